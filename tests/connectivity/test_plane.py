import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore import (
    Cancelled,
    ConnectivityError,
    Evaluator,
    Mixture,
    Store,
    Sweep,
    mean,
    plane,
    ties,
)
from soupcore.connectivity import stored_plane
from soupcore.connectivity.geometry import reference_and_checkpoints
from soupcore.connectivity.plane import SIZES, Frame
from soupcore.inner_products import Floats, inner_products
from tests.test_inner_products import flat

CORNERS = ("base", "run1", "run2")


def weights(mixture: Mixture) -> Floats:
    return flat(mixture.state_dict())


@pytest.fixture
def frame(sweep: Sweep, store: Store) -> Frame:
    corners = sweep["base"].mixture, sweep["run1"].mixture, sweep["run2"].mixture
    return Frame(corners, inner_products(*reference_and_checkpoints(sweep), store))


@pytest.fixture
def basis(frame: Frame) -> Floats:
    """The orthonormal basis of the plane, by QR."""
    origin, first, second = map(weights, frame.corners)
    q, r = np.linalg.qr(np.stack([first - origin, second - origin]).T)
    return (q * np.sign(np.diag(r))).T


def test_the_corners_have_gram_schmidt_coordinates(frame: Frame, basis: Floats) -> None:
    origin = weights(frame.corners[0])
    for corner, place in zip(frame.corners, frame.places, strict=True):
        np.testing.assert_allclose(basis @ (weights(corner) - origin), [place.x, place.y],
                                   atol=1e-6)  # fmt: skip
        found = frame.locate(corner)
        assert (found.x, found.y) == pytest.approx((place.x, place.y), abs=1e-12)
        assert found.distance == pytest.approx(0, abs=1e-6)
    assert frame.places[0].x == frame.places[0].y == frame.places[1].y == 0


def test_a_soup_by_a_formula_is_projected_onto_the_plane_on_request(
    sweep: Sweep, evaluator: Evaluator, basis: Floats
) -> None:
    soup = ties(sweep).mixture
    assert not plane(sweep, evaluator, CORNERS, 2).frame.covers(soup)
    unknown = stored_plane(sweep, evaluator, CORNERS, 2, points=[soup])
    assert unknown is not None
    assert not unknown.frame.covers(soup)
    moved = weights(soup) - weights(sweep["base"].mixture)
    x, y = basis @ moved
    distance = np.linalg.norm(moved - np.array([x, y]) @ basis)
    found = plane(sweep, evaluator, CORNERS, 2, points=[soup])
    known = stored_plane(sweep, evaluator, CORNERS, 2, points=[soup])
    assert known is not None
    for frame in (found.frame, known.frame):
        place = frame.locate(soup)
        np.testing.assert_allclose([place.x, place.y, place.distance], [x, y, distance], atol=1e-6)


@given(x=st.floats(-2, 2), y=st.floats(-2, 2))
def test_a_point_of_the_plane_has_the_requested_position(
    frame: Frame, basis: Floats, x: float, y: float
) -> None:
    found = frame.at(x, y)
    assert sum(found.coefficients.values()) == 1
    assert all((c * 65536).denominator == 1 for c in found.coefficients.values())
    expected = weights(frame.corners[0]) + np.array([x, y]) @ basis
    np.testing.assert_allclose(weights(found), expected, atol=2e-4)
    place = frame.locate(found)
    assert (place.x, place.y) == pytest.approx((x, y), abs=2e-4)
    assert place.distance < 1e-6


def test_other_points_are_projected_with_their_distance(
    frame: Frame, basis: Floats, sweep: Sweep
) -> None:
    soup = mean(ingredient.mixture for ingredient in sweep.ingredients.values())
    for point in (sweep["run10"].mixture, soup):
        away = weights(point) - weights(frame.corners[0])
        found = frame.locate(point)
        np.testing.assert_allclose([found.x, found.y], basis @ away, atol=1e-6)
        assert found.distance == pytest.approx(
            np.linalg.norm(away - (basis @ away) @ basis), rel=1e-5
        )


@pytest.mark.parametrize(("size", "margin"), [(3, 0.0), (7, 0.2), (4, 1.0)])
def test_a_grid_reaches_beyond_the_corners_by_the_margin(
    frame: Frame, size: int, margin: float
) -> None:
    for side, places in zip(
        frame.grid(size, margin),
        ([p.x for p in frame.places], [p.y for p in frame.places]),
        strict=True,
    ):
        low, high = min(places), max(places)
        np.testing.assert_allclose(
            side, np.linspace(low - margin * (high - low), high + margin * (high - low), size)
        )


def test_finer_grids_hold_the_coarser_ones(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    coarse = plane(sweep, evaluator, CORNERS, 7)
    assert len(passes) == 49
    fine = plane(sweep, evaluator, CORNERS, 13)
    assert len(passes) == 169
    np.testing.assert_array_equal(fine.losses[::2, ::2], coarse.losses)
    np.testing.assert_array_equal(fine.xs[::2], coarse.xs)
    assert fine.missing == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("corners", [CORNERS, ("run1", "base", "run10"), ("run2", "run1", "run10")])
def test_evaluated_corners_are_points_of_the_grid(
    sweep: Sweep, evaluator: Evaluator, passes: list[int], size: int, corners: tuple[str, ...]
) -> None:
    losses = [evaluator.evaluate(sweep[corner].mixture, "val").loss for corner in corners]
    inner_products(*reference_and_checkpoints(sweep), evaluator.store)
    passes.clear()
    found = stored_plane(sweep, evaluator, corners, size)
    assert found is not None
    assert size**2 - found.missing == 2
    assert set(found.losses[np.isfinite(found.losses)]) < set(losses)
    assert passes == []


def test_the_losses_are_those_of_the_points(sweep: Sweep, evaluator: Evaluator) -> None:
    found = plane(sweep, evaluator, CORNERS, 3, margin=0, split="test")
    assert found.split == "test"
    for row, y in enumerate(found.ys):
        for column, x in enumerate(found.xs):
            expected = evaluator.evaluate(found.frame.at(x, y), "test")
            assert found.losses[row, column] == expected.loss
            assert found.scores[row, column] == expected.score
    # On a grid without a margin a corner may lie on it: here the first two do.
    assert found.losses[0, 0] == evaluator.evaluate(sweep["base"].mixture, "test").loss


def test_a_stored_plane_shows_the_finest_complete_grid_or_the_coarsest_with_gaps(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    assert stored_plane(sweep, evaluator, CORNERS) is None

    def stop_after(points: int) -> None:
        def stop(done: int, total: int) -> None:
            if done >= points * 100:
                raise Cancelled

        with pytest.raises(Cancelled):
            plane(sweep, evaluator, CORNERS, on_progress=stop)

    stop_after(10)
    begun = stored_plane(sweep, evaluator, CORNERS)
    assert begun is not None
    assert begun.losses.shape == (7, 7)
    assert np.isfinite(begun.losses).sum() == 625 - begun.missing == 9
    stop_after(60)
    coarse = stored_plane(sweep, evaluator, CORNERS)
    assert coarse is not None
    assert coarse.losses.shape == (7, 7)
    assert np.isfinite(coarse.losses).all()
    stop_after(170)
    finer = stored_plane(sweep, evaluator, CORNERS)
    assert finer is not None
    assert finer.losses.shape == (13, 13)
    wider = stored_plane(sweep, evaluator, CORNERS, margin=0.3)
    assert wider is not None
    assert wider.missing > finer.missing
    passes.clear()
    assert stored_plane(sweep, evaluator, CORNERS, split="test") is not None
    assert passes == []


def test_a_plane_goes_through_soups_too(sweep: Sweep, evaluator: Evaluator) -> None:
    soup = mean([sweep["run1"].mixture, sweep["run2"].mixture])
    found = plane(sweep, evaluator, ("run10", soup, sweep["base"]), 3)
    assert np.isfinite(found.losses).all()
    assert found.frame.locate(sweep["run1"].mixture).distance > 0.01


@pytest.mark.parametrize(
    "corners",
    [
        pytest.param(("base", "run1", "run1"), id="two are one"),
        pytest.param(("run1", "run1", "run2"), id="the first two are one"),
        pytest.param(("run1", "run1", "run1"), id="all are one"),
        pytest.param(("run1", "run2", None), id="the middle of the others"),
    ],
)
def test_corners_on_one_line_are_refused(
    sweep: Sweep, evaluator: Evaluator, corners: tuple[str, str, str | None]
) -> None:
    middle = mean([sweep["run1"].mixture, sweep["run2"].mixture])
    with pytest.raises(ConnectivityError, match="on one line"):
        plane(sweep, evaluator, [corner or middle for corner in corners], 3)


def test_two_corners_are_no_plane(sweep: Sweep, evaluator: Evaluator) -> None:
    with pytest.raises(ConnectivityError, match="three points, not 2"):
        plane(sweep, evaluator, ["base", "run1"])
