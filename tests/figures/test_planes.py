import numpy as np
import pytest

from soupcore import Evaluator, Sweep, figures, mean, plane
from soupcore.figures.tables import plane_table


def test_loss_and_error_are_drawn_with_the_points_on_them(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    found = plane(sweep, evaluator, ["base", "run1", "run2"], 4)
    points = {name: sweep[name].mixture for name in ("base", "run1", "run2", "run10")}
    points["soup"] = mean([points["run1"], points["run2"]])
    places = {name: found.frame.locate(point) for name, point in points.items()}
    kinds = dict.fromkeys(points, "ingredient") | {"base": "base", "soup": "soup"}
    figure = figures.plane_contours(found, places, kinds, figures.colours(sweep.ingredients))
    loss, error, *markers = figure.data
    np.testing.assert_allclose(10 ** np.array(loss.z), found.losses)
    np.testing.assert_allclose(error.z, 100 - 100 * found.scores)
    np.testing.assert_array_equal(loss.x, found.xs)
    for trace in markers:
        assert [name for name, _ in trace.customdata] == list(points)
        assert list(trace.marker.symbol) == ["square", *["circle"] * 3, "star"]
        assert trace.marker.opacity[3] == pytest.approx(0.4)  # the farthest off the plane
        assert trace.marker.opacity[1] == pytest.approx(1)
    assert list(markers[0].text) == ["base", "run1", "run2", "", "soup"]
    table = plane_table(found, places)
    assert len(table) == 16 + 5
    assert table["loss"].dropna().tolist() == found.losses.ravel().tolist()
    assert table["name"].dropna().tolist() == list(points)


def test_a_plane_not_known_yet_is_drawn_empty(sweep: Sweep, evaluator: Evaluator) -> None:
    found = plane(sweep, evaluator, ["base", "run1", "run2"], 3)
    found.losses[:] = np.nan
    found.scores[:] = np.nan
    figure = figures.plane_contours(found, {}, {}, {})
    assert np.isnan(np.array(figure.data[0].z, dtype=float)).all()
