import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from soupcore.connectivity.bracket import Curves, ceiling

LINE = np.linspace(0, 1, 11)
FINE = np.linspace(0, 1, 1001)


def test_ends_alone_give_no_ceiling() -> None:
    assert ceiling(np.array([0.0, 1.0]), np.array([0.0, 0.0])) == math.inf


def test_nan_values_give_a_nan_ceiling() -> None:
    assert math.isnan(ceiling(np.array([0, 0.5, 1]), np.array([0, math.nan, 0])))
    assert math.isnan(ceiling(np.array([0, 1.0]), np.array([0, math.inf])))


def test_the_ceiling_of_a_cubic_is_its_maximum() -> None:
    cubic = Polynomial([0, 1, 2, -3])
    at = np.array([0, 0.2, 0.5, 0.6, 1.0])
    assert ceiling(at, cubic(at)) == pytest.approx(cubic(FINE).max(), abs=1e-5)


def test_one_point_between_the_ends_leaves_room_above_it() -> None:
    at = np.array([0, 0.5, 1.0])
    assert ceiling(at, np.array([0.0, 1.0, 0.0])) > 1.1
    assert ceiling(at, np.array([0.0, -1.0, 0.0])) == 0


def test_a_spike_between_flat_points_raises_the_ceiling_only_around_it() -> None:
    values = np.zeros(11)
    values[7] = 1
    curves = Curves(LINE, values[:, None])
    assert curves.highest.tolist() == [1]
    assert curves.ceiling[0] > 1
    assert np.flatnonzero(curves.contested(np.array([0.01]))[:, 0]).tolist() == [6, 7]
    assert not curves.contested(np.array([9.0])).any()


def test_curves_together_get_the_ceilings_of_each_alone() -> None:
    values = np.random.default_rng(0).normal(size=(11, 4))
    together = Curves(LINE, values)
    alone = [Curves(LINE, values[:, [column]]) for column in range(4)]
    np.testing.assert_allclose(together.ceiling, [curves.ceiling[0] for curves in alone])
    tolerance = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(
        together.contested(tolerance),
        np.hstack([c.contested(t) for c, t in zip(alone, tolerance[:, None], strict=True)]),
    )


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_a_smooth_curve_stays_below_its_ceiling_on_eleven_points(coefficients: list[float]) -> None:
    curve = Polynomial(coefficients)
    assert curve(FINE).max() <= ceiling(LINE, curve(LINE)) + 1e-3
