import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from soupcore.evaluation import score_interval


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


def test_one_score_that_is_no_share_says_nothing_of_the_others() -> None:
    assert score_interval(torch.tensor([0.5])) == (-math.inf, math.inf)


def test_wilson_s_interval_covers_the_truth_as_often_as_it_says() -> None:
    n, truth = 50, 0.8
    covered = 0.0
    for successes in range(n + 1):
        low, high = score_interval(torch.tensor([1.0] * successes + [0.0] * (n - successes)))
        covered += float(stats.binom.pmf(successes, n, truth)) * (low <= truth <= high)
    assert covered == pytest.approx(0.95, abs=0.02)
