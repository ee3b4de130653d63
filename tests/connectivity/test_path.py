import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from soupcore import Barriers, LinearPath
from soupcore.connectivity import basins
from soupcore.connectivity.path import grid

NAN = float("nan")


def path(alphas: list[float], losses: list[float], scores: list[float] | None = None) -> LinearPath:
    return LinearPath(
        alphas=np.array(alphas),
        losses=np.array(losses),
        scores=np.array(scores or [0.5] * len(alphas)),
        split="val",
        n=10,
    )


@pytest.mark.parametrize(
    ("alphas", "losses", "barrier", "at"),
    [
        pytest.param([0, 1], [3, 7], 0, 0, id="ends only"),
        pytest.param([0, 0.5, 1], [1, 2, 1], 1, 0.5, id="a hill"),
        pytest.param([0, 0.5, 1], [1, 0, 1], 0, 0, id="a valley"),
        pytest.param([0, 0.5, 1], [0, 1, 2], 0, 0, id="on the chord"),
        pytest.param([0, 0.25, 0.5, 1], [4, 4, 3, 0], 1, 0.25, id="above a sloping chord"),
        pytest.param([0, 0.25, 0.75, 1], [0, 5, 6, 8], 3, 0.25, id="the first of two hills"),
        pytest.param([-1, 0, 0.5, 1, 2], [99, 1, 2, 1, 99], 1, 0.5, id="outside does not count"),
        pytest.param([0, 0.5, 1], [1, NAN, 1], NAN, 0.5, id="no number on the way"),
        pytest.param([0, 0.5, 1], [NAN, 1, 1], NAN, 0, id="no number at an end"),
        pytest.param([-1, 0, 0.5, 1], [NAN, 1, 2, 1], 1, 0.5, id="no number outside"),
    ],
)
def test_the_loss_barrier_is_the_largest_height_above_the_chord(
    alphas: list[float], losses: list[float], barrier: float, at: float
) -> None:
    found = path(alphas, losses)
    assert found.barrier == pytest.approx(barrier, nan_ok=True)
    assert found.barrier_alpha == at
    assert path([1 - a for a in alphas][::-1], losses[::-1]).barrier == pytest.approx(
        barrier, nan_ok=True
    )


@pytest.mark.parametrize(
    ("alphas", "scores", "over_chord", "over_mean"),
    [
        pytest.param([0, 1], [0.8, 0.8], 0, 0, id="equal ends"),
        pytest.param([0, 1], [0.9, 0.7], 0, 0.1, id="the mean counts half the gap of the ends"),
        pytest.param([0, 0.5, 1], [0.9, 0.8, 0.7], 0, 0.1, id="on the chord"),
        pytest.param([0, 0.5, 1], [0.9, 0.6, 0.7], 0.2, 0.2, id="a drop in the middle"),
        pytest.param([0, 0.25, 1], [0.9, 0.65, 0.7], 0.2, 0.15, id="a drop near the better end"),
        pytest.param([0, 0.5, 1], [0.8, 0.9, 0.8], 0, 0, id="a rise"),
        pytest.param([0, 0.5, 1], [-9.0, -13.0, -5.0], 6, 6, id="scores that are no shares"),
        pytest.param(
            [-1, 0, 0.5, 1, 2], [0, 0.8, 0.7, 0.8, 0], 0.1, 0.1, id="outside does not count"
        ),
    ],
)
def test_the_error_barrier_is_over_the_chord_and_that_of_frankle_over_the_mean_of_the_ends(
    alphas: list[float], scores: list[float], over_chord: float, over_mean: float
) -> None:
    for walked in (1, -1):
        found = path(
            alphas if walked == 1 else [1 - a for a in alphas][::-1],
            [1.0] * len(alphas), scores[::walked],
        )  # fmt: skip
        assert found.error_barrier == pytest.approx(over_chord)
        assert found.error_barrier_over_mean == pytest.approx(over_mean)
        for low, high in (found.error_barrier_bracket, found.error_barrier_over_mean_bracket):
            assert low <= high
        assert found.accuracies.tolist() == scores[::walked]


def test_the_chord_goes_on_beyond_the_ends() -> None:
    assert path([-1, 0, 0.5, 1, 2], [9, 1, 9, 3, 9]).chord.tolist() == [-1, 1, 2, 3, 5]


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        (2, [0, 1]),
        (3, [0, Fraction(1, 2), 1]),
        (11, [Fraction(i, 10) for i in range(11)]),
        ([], [0, 1]),
        ([0.5], [0, Fraction(1, 2), 1]),
        ([1, 0.3, 0, 0.3, Fraction(3, 10)], [0, Fraction(3, 10), 1]),
        ([1.5, -0.5], [Fraction(-1, 2), 0, 1, Fraction(3, 2)]),
    ],
)
def test_a_grid_is_ascending_with_both_ends(alphas: Any, expected: list[Fraction]) -> None:
    assert grid(alphas) == expected


def test_a_grid_of_floats_is_the_grid_of_fractions() -> None:
    assert grid([i / 10 for i in range(11)]) == grid(11)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_a_grid_of_fewer_than_two_points_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 2 α values, not {count}"):
        grid(count)


@pytest.mark.parametrize("alpha", [NAN, float("inf")])
def test_an_alpha_that_is_not_finite_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        grid([alpha])


def test_a_computed_grid_is_the_same_as_the_counted_one() -> None:
    assert grid([float(alpha) for alpha in np.linspace(0, 1, 11)]) == grid(11)


@pytest.mark.parametrize("losses", [[NAN, 1, 1], [1, 1, math.inf], [NAN, NAN, NAN]])
def test_paths_without_a_finite_loss_have_no_barrier(losses: list[float]) -> None:
    found = path([0, 0.5, 1], losses, [0.1, 0.1, 0.1])
    assert math.isnan(found.error_barrier)
    assert np.isnan(found.error_barrier_bracket).all()
    assert np.isnan(found.error_barrier_over_mean_bracket).all()
    assert path([0, 0.5, 1], [1, NAN, 1], [0.9, 0.1, 0.9]).error_barrier == pytest.approx(0.8)
    pairs = Barriers(("a", "b"), {("a", "b"): found})
    assert pairs.known.all()
    assert [basin.is_closed for basin in basins("ab", pairs.error, 0.02, known=pairs.known)] == [
        True, True
    ]  # fmt: skip
