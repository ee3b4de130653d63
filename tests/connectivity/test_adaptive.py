import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from soupcore.connectivity.adaptive import (
    Adaptive,
    Curves,
    ceiling,
    estimates_of_whole,
    gaps,
    lobatto,
)
from soupcore.inner_products import Floats

Curve = Callable[[Floats], Any]
DENSE = np.linspace(0, 1, 4097)
EVEN = np.linspace(0, 1, 11)


def follow(
    curve: Curve, rule: Adaptive, score: Curve = np.zeros_like, *, on_subset: bool = False
) -> list[Fraction]:
    """Evaluate a curve where the rule asks for it, and return the points in that order.

    With `on_subset`, the gaps are evaluated only if the curve's values there are doubtful.
    """
    return follow_all([curve], rule, score, on_subset=on_subset)[0]


def follow_all(
    curves: Sequence[Curve],
    rule: Adaptive,
    score: Curve = np.zeros_like,
    *,
    on_subset: bool = False,
) -> list[list[Fraction]]:
    """Follow curves side by side; see `follow`. The rule takes as long for many as for one."""
    known: list[dict[Fraction, tuple[float, float]]] = [{} for _ in curves]

    def values(curve: Curve, alphas: list[Fraction]) -> dict[Fraction, tuple[float, float]]:
        at = np.array([float(alpha) for alpha in alphas])
        found = zip(curve(at).tolist(), score(at).tolist(), strict=True)
        return dict(zip(alphas, found, strict=True))

    going = list(range(len(curves)))
    while going:
        asked = rule.wanted([known[index] for index in going])
        wanted = {i: alphas or gaps(known[i]) for i, alphas in zip(going, asked, strict=True)}
        assert not any(set(alphas) & known[i].keys() for i, alphas in wanted.items())
        found = {i: values(curves[i], alphas) for i, alphas in wanted.items() if alphas}
        seen = [i for i in found if on_subset and wanted[i] == gaps(known[i])]
        doubts = rule.doubtful([known[i] for i in seen], [found[i] for i in seen])
        settled = {i for i, doubt in zip(seen, doubts, strict=True) if not doubt}
        going = [i for i in found if i not in settled]
        for index in going:
            known[index] |= found[index]
    return [list(alphas) for alphas in known]


def barrier(curve: Curve, at: Floats) -> float:
    start, end = curve(np.array([0.0, 1.0]))
    return float((curve(at) - (1 - at) * start - at * end).max())


def bump(middle: float, width: float, height: float = 1.0) -> Curve:
    return lambda at: height * np.exp(-(((at - middle) / width) ** 2))


def hills(first: float, second: float, width: float, depth: float = 0) -> Curve:
    """Two hills, each 0.5 high, in a valley."""
    both = bump(first, width, 0.5), bump(second, width, 0.5)
    return lambda at: both[0](at) + both[1](at) - depth * 4 * at * (1 - at)


CURVES: dict[str, Curve] = {
    "flat": np.zeros_like,
    "valley": lambda at: 0.3 * (at - 0.4) ** 2,
    "double well": lambda at: ((2 * at - 1) ** 2 - 1) ** 2,
    "bump in the middle": bump(0.5, 0.2),
    "bump aside": bump(0.62, 0.15),
    "bump near an end": bump(0.12, 0.1),
    "two bumps": lambda at: bump(0.25, 0.12, 0.7)(at) + bump(0.75, 0.12)(at),
    "hill, then valley": lambda at: 0.2 * np.sin(2 * np.pi * at),
    "small hill beside a valley": lambda at: 0.1 * (at - 0.6) ** 2 + bump(0.25, 0.15, 0.04)(at),
    "mountain": bump(0.4, 0.2, 30),
    "steep slope": lambda at: np.exp(5 * at) / 50,
    "plateau": lambda at: np.tanh(at / 0.1) * np.tanh((1 - at) / 0.1),
}


@cache
def known_curves(tolerance: float, on_subset: bool) -> dict[str, list[Fraction]]:
    """Follow all known curves side by side, which takes less time than one after the other."""
    found = follow_all([*CURVES.values()], Adaptive(tolerance), on_subset=on_subset)
    return dict(zip(CURVES, found, strict=True))


@pytest.mark.parametrize("tolerance", [0.003, 0.01, 0.05])
@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("on_subset", [False, True])
def test_the_barrier_of_a_known_curve_is_found_to_within_the_tolerance(
    name: str, tolerance: float, on_subset: bool
) -> None:
    curve = CURVES[name]
    alphas = known_curves(tolerance, on_subset)[name]
    found = barrier(curve, np.array([float(alpha) for alpha in alphas]))
    true = barrier(curve, DENSE)
    assert true - found <= tolerance * max(1, true)
    assert len(alphas) < 25


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=7), st.booleans())
def test_the_barrier_of_a_smooth_curve_is_found_at_exact_fractions(
    coefficients: list[float], on_subset: bool
) -> None:
    curve = Polynomial(coefficients)
    alphas = follow(curve, Adaptive(), on_subset=on_subset)
    found = barrier(curve, np.array([float(alpha) for alpha in alphas]))
    assert found >= barrier(curve, DENSE) - 0.01
    assert all(0 <= alpha <= 1 and (alpha * 4096).denominator == 1 for alpha in alphas)
    assert len(set(alphas)) == len(alphas)


@pytest.mark.parametrize(
    ("width", "bound"), [(0.12, 0.1), (0.15, 0.025), (0.18, 0.01), (0.2, 0.01)]
)
@pytest.mark.parametrize("depth", [0, 0.3])
@pytest.mark.parametrize("on_subset", [False, True])
def test_two_maxima_are_found_at_any_place(
    width: float, bound: float, depth: float, on_subset: bool
) -> None:
    places = product(np.arange(0.1, 0.5, 0.05), np.arange(0.5, 0.92, 0.05))
    curves = [hills(first, second, width, depth) for first, second in places]
    for curve, alphas in zip(
        curves, follow_all(curves, Adaptive(), on_subset=on_subset), strict=True
    ):
        at = np.array([float(alpha) for alpha in alphas])
        assert barrier(curve, at) == pytest.approx(barrier(curve, DENSE), abs=bound)


@pytest.mark.parametrize("on_subset", [False, True])
def test_two_hills_in_the_widest_gaps_of_the_first_points_are_not_taken_for_one(
    on_subset: bool,
) -> None:
    curve = hills(0.32, 0.68, 0.1)
    at = np.array([float(alpha) for alpha in follow(curve, Adaptive(), on_subset=on_subset)])
    assert barrier(curve, at) == pytest.approx(0.5, abs=0.01)


def test_without_a_barrier_five_points_between_the_ends_are_enough() -> None:
    alphas = follow(CURVES["valley"], Adaptive())
    assert alphas[:3] == lobatto(2)
    assert sorted(alphas) == sorted({*lobatto(8)} - {lobatto(8)[1], lobatto(8)[7]})


def test_three_points_are_enough_if_the_part_shows_no_maximum() -> None:
    assert sorted(follow(CURVES["valley"], Adaptive(), on_subset=True)) == lobatto(4)
    assert follow(hills(0.32, 0.68, 0.1), Adaptive(), on_subset=True)[5:7] == lobatto(8)[3:6:2]


def test_a_maximum_or_nan_on_the_part_makes_a_line_doubtful() -> None:
    valley = {alpha: (-float(alpha * (1 - alpha)), 0.5) for alpha in lobatto(4)}
    assert Adaptive().wanted([valley]) == [[]]
    for seen, doubt in ((-0.2, False), (0.02, True), (math.nan, True)):
        on_subset = dict(zip(gaps(valley), [(seen, 0.5), (-0.2, 0.5)], strict=True))
        assert Adaptive().doubtful([valley], [on_subset]) == [doubt], seen


def test_the_middle_comes_first_and_the_points_are_nested_and_symmetric() -> None:
    assert lobatto(2) == [0, Fraction(1, 2), 1]
    assert set(lobatto(2)) < set(lobatto(4)) < set(lobatto(8)) < set(lobatto(16))
    assert [1 - alpha for alpha in lobatto(16)] == lobatto(16)[::-1]


def test_a_finer_tolerance_takes_more_points() -> None:
    counts = [len(follow(CURVES["two bumps"], Adaptive(t))) for t in (0.1, 0.01, 0.001)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_barrier_is_evaluated_at_its_maximum() -> None:
    for middle in (0.37, 0.5, 0.71):
        alphas = [float(alpha) for alpha in follow(bump(middle, 0.2), Adaptive())]
        assert min(abs(alpha - middle) for alpha in alphas) < 0.03


@pytest.mark.parametrize(
    ("middle", "depth", "slope"),
    [pytest.param(0.7, 0.3, 0.0, id="equal ends"), pytest.param(0.3, 0.1, 0.5, id="unequal ends")],
)
def test_error_barriers_above_the_chord_are_refined(
    middle: float, depth: float, slope: float
) -> None:
    drop = bump(middle, 0.1, -depth)
    points = follow(np.zeros_like, Adaptive(), lambda at: drop(at) - slope * at)
    alphas = np.array([float(alpha) for alpha in points])
    assert drop(alphas).min() == pytest.approx(-depth, abs=0.01)


def test_scores_in_thousands_take_no_more_points_than_shares() -> None:
    drop = bump(0.7, 0.1, -0.3)

    def count(scale: float) -> int:
        return len(follow(np.zeros_like, Adaptive(), lambda at: scale * drop(at)))

    assert count(1000) <= count(1) + 4


def test_a_discontinuous_line_takes_a_bounded_number_of_points() -> None:
    step = follow(lambda at: (at > 0.3).astype(float), Adaptive(), lambda at: (at < 0.7) * 1.0)
    assert len(step) <= 50


@pytest.mark.parametrize("value", [(math.nan, 0.5), (math.inf, 0.5), (1.0, math.nan)])
def test_a_line_with_nan_is_not_refined(
    value: tuple[float, float],
) -> None:
    start, middle, end = lobatto(2)
    known = {start: (1.0, 0.5), middle: value, end: (1.0, 0.5)}
    wanted = Adaptive().wanted([known])[0]
    assert wanted == [lobatto(4)[1], lobatto(4)[3]]
    assert Adaptive().wanted([known | dict.fromkeys(wanted, (2.0, 0.1))]) == [[]]


def test_lines_together_get_the_points_that_each_gets_alone() -> None:
    rule = Adaptive()
    curves = [CURVES[name] for name in ("valley", "double well", "bump aside", "two bumps")]
    lines: list[dict[Fraction, tuple[float, float]]] = [{} for _ in curves]
    for _ in range(20):
        wanted = rule.wanted(lines)
        assert wanted == [rule.wanted([line])[0] for line in lines]
        for line, curve, alphas in zip(lines, curves, wanted, strict=True):
            line |= {alpha: (float(curve(np.array(float(alpha)))), 0.5) for alpha in alphas}
    assert rule.wanted(lines) == [[], [], [], []]


@pytest.mark.parametrize("tolerances", [(0, 0.1), (-1, 0.1), (0.1, 0), (math.nan, 0.1)])
def test_a_tolerance_of_zero_is_refused(tolerances: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Adaptive(*tolerances)


# Estimates from a part of a split


def test_values_on_a_part_are_corrected_by_those_of_the_neighbouring_points() -> None:
    gap, lines, on_subset = lobatto(8)[3], [], []
    for seed in range(3):
        loss, score = (Polynomial(each) for each in np.random.default_rng(seed).normal(size=(2, 4)))
        line = {a: (float(loss(float(a))), float(score(float(a)))) for a in lobatto(4)}
        there = {**line, gap: (7.0, 0.5)}
        lines.append(line)
        on_subset.append(
            {a: (x + 0.1 + float(a), y - 0.2 * float(a) ** 3) for a, (x, y) in there.items()}
        )
    for found in estimates_of_whole(lines, on_subset):
        assert list(found) == [gap]
        assert found[gap] == pytest.approx((7.0, 0.5))


# Estimated maxima between known points


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([0.0, 0.0], math.inf, id="two points"),
        pytest.param([0.0, math.nan, 0.0], math.nan, id="NaN"),
        pytest.param([0.0, math.inf], math.nan, id="infinite"),
        pytest.param([0.0, -1.0, 0.0], 0, id="valley"),
    ],
)
def test_ceilings_of_few_points(values: list[float], expected: float) -> None:
    found = ceiling(np.linspace(0, 1, len(values)), np.array(values))
    np.testing.assert_equal(found, expected)


def test_the_ceiling_of_a_cubic_is_its_maximum() -> None:
    cubic = Polynomial([0, 1, 2, -3])
    at = np.array([0, 0.2, 0.5, 0.6, 1.0])
    assert ceiling(at, cubic(at)) == pytest.approx(cubic(DENSE).max(), abs=1e-5)


def test_one_point_between_the_ends_leaves_room_above_it() -> None:
    assert ceiling(np.array([0, 0.5, 1.0]), np.array([0.0, 1.0, 0.0])) > 1.1


def test_a_spike_between_flat_points_raises_the_ceiling_only_around_it() -> None:
    values = np.zeros(11)
    values[7] = 1
    curves = Curves(EVEN, values[:, None])
    assert curves.highest.tolist() == [1]
    assert curves.ceiling[0] > 1
    assert np.flatnonzero(curves.contested(np.array([0.01]))[:, 0]).tolist() == [6, 7]
    assert not curves.contested(np.array([9.0])).any()


def test_curves_together_get_the_ceilings_of_each_alone() -> None:
    values = np.random.default_rng(0).normal(size=(11, 4))
    together = Curves(EVEN, values)
    alone = [Curves(EVEN, values[:, [column]]) for column in range(4)]
    np.testing.assert_allclose(together.ceiling, [curves.ceiling[0] for curves in alone])
    tolerance = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(
        together.contested(tolerance),
        np.hstack([c.contested(t) for c, t in zip(alone, tolerance[:, None], strict=True)]),
    )


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_a_smooth_curve_stays_below_its_ceiling_on_eleven_points(coefficients: list[float]) -> None:
    curve = Polynomial(coefficients)
    assert curve(DENSE).max() <= ceiling(EVEN, curve(EVEN)) + 1e-3
