import math

import numpy as np
import pytest
import scipy
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from soupcore.errors import TaskError
from soupcore.intervals import defined, mean_of, paired, score_interval


def wilson(successes: int, n: int, z: float) -> tuple[float, float]:
    """Wilson (1927), as it stands in textbooks."""
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 10), (10, 10), (5, 10), (83, 100), (599, 600), (1, 3)]
)
@pytest.mark.parametrize(
    ("confidence", "z"), [(0.95, 1.959963984540054), (0.9, 1.6448536269514722)]
)
def test_shares_have_wilson_s_interval(successes: int, n: int, confidence: float, z: float) -> None:
    scores = torch.tensor([1.0] * successes + [0.0] * (n - successes))
    low, high = score_interval(scores, confidence)
    assert (low, high) == pytest.approx(wilson(successes, n, z), abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1


@given(st.data(), st.integers(1, 100_000), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_shares_have_the_interval_that_scipy_says(
    data: st.DataObject, n: int, confidence: float
) -> None:
    successes = data.draw(st.integers(0, n))
    scores = torch.zeros(n)
    scores[:successes] = 1
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert score_interval(scores, confidence) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize("scores", [[0.5, 0.25, 0.125], [1.0, 0.0, 0.5], [-3.0, -2.0, 7.0, 7.0]])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_other_scores_have_student_s_interval(scores: list[float], confidence: float) -> None:
    expected = stats.t.interval(
        confidence, len(scores) - 1, loc=sum(scores) / len(scores), scale=stats.sem(scores)
    )
    assert score_interval(torch.tensor(scores), confidence) == pytest.approx(expected)


@pytest.mark.parametrize(
    "scores",
    [[0.5], [0.5] * 10, [-2.0] * 3, [0.1] * 7, [], [1.0, math.nan], [0.5, -math.inf], [-math.inf]],
)
def test_scores_without_variance_have_no_interval(scores: list[float]) -> None:
    assert all(math.isnan(end) for end in score_interval(torch.tensor(scores)))


@pytest.mark.parametrize("scores", [[0.5, math.nan, 0.25], [1.0, 0.0, math.nan], [math.nan] * 2])
def test_the_mean_is_undefined_or_over_the_defined_scores(scores: list[float]) -> None:
    values = torch.tensor(scores)
    assert math.isnan(mean_of(values, "refuse"))
    numbers = values[~values.isnan()]
    assert torch.equal(defined(values, "exclude"), numbers)
    expected = float(np.mean(numbers.double().numpy())) if len(numbers) else math.nan
    assert mean_of(values, "exclude") == pytest.approx(expected, nan_ok=True)


def test_wilson_s_interval_has_its_nominal_coverage() -> None:
    n, truth = 50, 0.8
    covered = 0.0
    for successes in range(n + 1):
        low, high = score_interval(torch.tensor([1.0] * successes + [0.0] * (n - successes)))
        covered += float(stats.binom.pmf(successes, n, truth)) * (low <= truth <= high)
    assert covered == pytest.approx(0.95, abs=0.02)


counts = st.integers(0, 40)


def scores(both: int, gained: int, lost: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    one = [1] * both + [1] * gained + [0] * lost + [0] * neither
    other = [1] * both + [0] * gained + [1] * lost + [0] * neither
    return torch.tensor(one, dtype=torch.float32), torch.tensor(other, dtype=torch.float32)


@given(counts, counts, counts, counts)
def test_the_p_value_is_that_of_the_exact_test_on_the_examples_that_differ(
    both: int, gained: int, lost: int, neither: int
) -> None:
    found = paired(*scores(both, gained, lost, neither + 1))
    assert (found.gained, found.lost, found.changed) == (gained, lost, gained + lost)
    assert found.n == both + gained + lost + neither + 1
    assert found.difference == pytest.approx((gained - lost) / found.n)
    tail = scipy.stats.binom.cdf(min(gained, lost), gained + lost, 0.5)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))


@given(counts, counts, counts, counts)
def test_the_interval_is_walds_with_half_an_example_more_in_each_cell(
    both: int, gained: int, lost: int, neither: int
) -> None:
    found = paired(*scores(both, gained, lost, neither + 1))
    cells = np.array([both, gained, lost, neither + 1]) + 0.5
    shares = cells / cells.sum()
    steps = np.array([0, 1, -1, 0])
    mean = shares @ steps
    error = math.sqrt((shares @ steps**2 - mean**2) / cells.sum())
    low, high = scipy.stats.norm.interval(0.95, mean, error)
    assert found.interval == pytest.approx((max(low, -1), min(high, 1)))


@given(counts, counts, counts)
def test_swapping_two_points_mirrors_the_difference(both: int, gained: int, lost: int) -> None:
    one, other = scores(both, gained, lost, 1)
    there, back = paired(one, other), paired(other, one)
    assert there.difference == pytest.approx(-back.difference)
    low, high = back.interval or (math.nan, math.nan)
    assert there.interval == pytest.approx((-high, -low))
    assert there.p_value == pytest.approx(back.p_value)


def test_scores_that_are_not_right_or_wrong_get_students_interval_and_no_test() -> None:
    one = torch.tensor([0.2, 0.9, 0.4, 0.7], dtype=torch.float64)
    other = torch.tensor([0.1, 0.3, 0.6, 0.2], dtype=torch.float64)
    found = paired(one, other)
    oracle = scipy.stats.ttest_rel(one.numpy(), other.numpy()).confidence_interval(0.95)
    assert found.interval == pytest.approx((oracle.low, oracle.high))
    assert (found.gained, found.lost, found.p_value, found.changed) == (None, None, None, 4)


mixed = st.lists(
    st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan])] * 2), min_size=3, max_size=30
)


@given(mixed)
def test_undefined_scores_give_no_evidence_or_are_left_out_of_means(
    pairs: list[tuple[float, float]],
) -> None:
    one, other = torch.tensor(pairs, dtype=torch.float64).T
    if one.isnan().any() or other.isnan().any():
        refused, count = paired(one, other), int((one.isnan() | other.isnan()).sum())
        assert math.isnan(refused.difference)
        assert (refused.interval, refused.gained, refused.p_value) == (None, None, None)
        assert f"undefined (NaN) for {count} of {len(one)}" in refused.why_no_interval
    found = paired(one, other, undefined="exclude")
    if one.isnan().all() or other.isnan().all():
        assert math.isnan(found.difference)
        assert found.interval is None
        return
    assert found.difference == pytest.approx(np.nanmean(one) - np.nanmean(other), abs=1e-12)
    assert found.interval is None or found.interval[0] < found.difference < found.interval[1]


def test_examples_that_neither_defines_make_no_difference() -> None:
    one, other = torch.tensor([[1.0, 0, 1, 1, 0.5, 0.2], [0, 0, 1, 1, 0.2, 0.7]])
    gap = torch.full((3,), math.nan)
    for few in (4, 6):
        plain = paired(one[:few], other[:few])
        found = paired(
            torch.cat([one[:few], gap]), torch.cat([gap, other[:few].flip(0)]).flip(0),
            undefined="exclude",
        )  # fmt: skip
        assert found.interval == pytest.approx(plain.interval)
        assert found.difference == pytest.approx(plain.difference)
        assert (found.changed, found.gained, found.lost) == (
            plain.changed,
            plain.gained,
            plain.lost,
        )
        assert found.p_value == plain.p_value


def test_the_interval_over_different_examples_is_as_wide_as_the_bootstraps() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.rand(400, generator=generator, dtype=torch.float64)
    one = shared + 0.3 * torch.rand(400, generator=generator, dtype=torch.float64)
    other = shared + 0.3 * torch.rand(400, generator=generator, dtype=torch.float64)
    one[torch.rand(400, generator=generator) < 0.2] = math.nan
    other[torch.rand(400, generator=generator) < 0.2] = math.nan
    found = paired(one, other, undefined="exclude")
    rows = torch.randint(0, 400, (4000, 400), generator=generator)
    drawn = one[rows].nanmean(1) - other[rows].nanmean(1)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert found.interval == pytest.approx((low, high), abs=0.004)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ([0.5], [0.25], "A single example"),
        ([0.5, 0.75, 0.1], [0.4, 0.65, 0.0], "the same on every example"),
        ([0.5, 0.7], [0.5, 0.7], "the same on every example"),
        ([0.5, -math.inf], [0.5, 0.7], "failed on an example"),
    ],
)
def test_differences_that_do_not_vary_have_no_interval(
    one: list[float], other: list[float], words: str
) -> None:
    found = paired(torch.tensor(one), torch.tensor(other))
    assert found.interval is None
    assert words in found.why_no_interval
    assert found.p_value is None


def test_equal_points_have_difference_zero_and_an_interval() -> None:
    found = paired(*scores(50, 0, 0, 50))
    assert (found.difference, found.p_value) == (0, 1)
    low, high = found.interval or (math.nan, math.nan)
    assert -0.05 < low < 0 < high < 0.05


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_scores_of_other_examples_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(TaskError, match="cannot be paired"):
        paired(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@given(st.lists(st.sampled_from([0.0, 1.0, 0.25, -3.0]), min_size=2, max_size=30), st.data())
def test_equal_weights_change_nothing(values: list[float], data: st.DataObject) -> None:
    scores = torch.tensor(values)
    other = torch.tensor(data.draw(st.permutations(values)))
    weights = torch.full((len(values),), data.draw(st.sampled_from([0.01, 1.0, 700.0])))
    assert mean_of(scores, "refuse", weights) == pytest.approx(mean_of(scores, "refuse"))
    assert score_interval(scores, weights=weights) == pytest.approx(
        score_interval(scores), abs=1e-9, nan_ok=True
    )
    one, two = paired(scores, other), paired(scores, other, weights=weights)
    assert two.difference == pytest.approx(one.difference)
    assert (two.changed, two.p_value) == (one.changed, None)
    if one.p_value is None and one.interval is not None:
        assert two.interval == pytest.approx(one.interval)


def test_a_weight_of_zero_leaves_an_example_out() -> None:
    scores = torch.tensor([0.5, -math.inf, 0.25, math.nan, 1.0])
    other = torch.tensor([0.0, 1.0, 0.5, 0.0, 0.75])
    weights = torch.tensor([1.0, 0, 2, 0, 4])
    kept = weights > 0
    assert mean_of(scores, "refuse", weights) == pytest.approx((0.5 + 0.5 + 4) / 7)
    assert score_interval(scores, weights=weights) == score_interval(
        scores[kept], weights=weights[kept]
    )
    found = paired(scores, other, weights=weights)
    assert found.interval == paired(scores[kept], other[kept], weights=weights[kept]).interval
    excluded = torch.tensor([1.0, 0, 2, 8, 4])
    assert mean_of(scores, "exclude", excluded) == mean_of(scores, "refuse", weights)
    assert math.isnan(mean_of(scores, "refuse", excluded))


def test_weighted_intervals_cover_the_mean_of_the_population() -> None:
    # Examples with larger weights are right more often, so that the design matters.
    generator = np.random.default_rng(0)
    covered, paired_covered = 0, 0
    for _ in range(400):
        weights = generator.uniform(0.2, 3, 120)
        chances = 0.5 + 0.15 * weights
        right = torch.from_numpy((generator.random(120) < chances).astype(np.float32))
        also = torch.from_numpy((generator.random(120) < chances).astype(np.float32))
        # E[w p] / E[w] for w uniform between 0.2 and 3.
        true = 0.5 + 0.15 * ((3**3 - 0.2**3) / 3 / 2.8) / 1.6
        low, high = score_interval(right, weights=torch.from_numpy(weights))
        covered += low <= true <= high
        ends = paired(right, also, weights=torch.from_numpy(weights)).interval
        assert ends is not None
        paired_covered += ends[0] <= 0 <= ends[1]
    assert 0.92 <= covered / 400 <= 0.98
    assert 0.92 <= paired_covered / 400 <= 0.98


def test_shares_that_are_all_right_have_an_interval_of_the_effective_number() -> None:
    weights = torch.tensor([1.0, 1, 2])
    low, high = score_interval(torch.ones(3), weights=weights)
    z, n = 1.959963984540054, 16 / 6
    assert (low, high) == pytest.approx((n / (n + z**2), 1.0))
