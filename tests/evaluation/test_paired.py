import math

import numpy as np
import pytest
import scipy
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcore.errors import TaskError
from soupcore.evaluation import paired

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
def test_the_other_way_round_is_the_mirror_image(both: int, gained: int, lost: int) -> None:
    one, other = scores(both, gained, lost, 1)
    there, back = paired(one, other), paired(other, one)
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.p_value == pytest.approx(back.p_value)


def test_scores_that_are_not_right_or_wrong_get_students_interval_and_the_sign_test() -> None:
    one = torch.tensor([0.2, 0.9, 0.4, 0.7], dtype=torch.float64)
    other = torch.tensor([0.1, 0.3, 0.6, 0.2], dtype=torch.float64)
    found = paired(one, other)
    oracle = scipy.stats.ttest_rel(one.numpy(), other.numpy()).confidence_interval(0.95)
    assert found.interval == pytest.approx((oracle.low, oracle.high))
    assert found.p_value == pytest.approx(scipy.stats.binomtest(3, 4).pvalue)


def test_two_equal_points_differ_by_nothing_and_the_interval_says_how_sure_that_is() -> None:
    found = paired(*scores(50, 0, 0, 50))
    assert (found.difference, found.p_value) == (0, 1)
    assert -0.05 < found.interval[0] < 0 < found.interval[1] < 0.05


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_scores_of_other_examples_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(TaskError, match="same examples"):
        paired(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
