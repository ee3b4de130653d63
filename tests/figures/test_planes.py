from dataclasses import replace

import numpy as np
import pytest

from soupcore import Evaluator, Sweep, figures, mean, plane
from soupcore.connectivity.plane import Place
from soupcore.figures import planes
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
    loss, error = (trace for trace in figure.data if trace.type == "contour")
    markers = [trace for trace in figure.data if trace.name == "points"]
    np.testing.assert_array_equal(loss.customdata, found.losses)
    np.testing.assert_allclose(error.customdata, 100 - 100 * found.scores)
    np.testing.assert_array_equal(loss.x, found.xs)
    for trace in markers:
        assert [name for name, _ in trace.customdata] == list(points)
        assert list(trace.marker.symbol) == ["square", *["circle"] * 3, "star"]
        assert trace.marker.opacity[3] == pytest.approx(0.4)  # the farthest off the plane
        assert trace.marker.opacity[1] == pytest.approx(1)
        assert trace.customdata[1][1] == "on the plane"
        assert trace.customdata[3][1].endswith(" off the plane")
        assert [fill == "#ffffff" for fill in trace.marker.color] == [False] * 3 + [True, False]
    assert list(markers[0].textfont.size) == [12, 12, 12, 10, 12]
    assert list(markers[0].text) == list(points)
    table = plane_table(found, places)
    assert len(table) == 16 + 5
    assert table["loss"].dropna().tolist() == found.losses.ravel().tolist()
    assert table["name"].dropna().tolist() == list(points)


@pytest.mark.parametrize(
    ("places", "named"),
    [
        # Names on the plane come first, in their order, then the nearest to it.
        ({"a": (0, 0, 0), "b": (1, 0, 0), "far": (0.5, 0, 2), "near": (0.5, 0, 1)}, "a b near"),
        ({"off": (0.1, 0, 1), "a": (0, 0, 0), "b": (1, 1, 0)}, "a b"),
        ({"off": (0, 0.5, 1), "a": (0, 0, 0), "b": (1, 1, 0)}, "off a b"),
        ({"a": (0, 0, 0), "b": (0.1, 0, 0), "c": (1, 1, 0)}, "a c"),
        ({"a": (0, 0, 0), "b": (1, 1, 0), "beyond the edge": (9, 9, 1)}, "a b beyond the edge"),
    ],
)
def test_names_are_drawn_where_there_is_room(
    places: dict[str, tuple[float, float, float]], named: str
) -> None:
    kinds = dict.fromkeys(places, "ingredient")
    found = planes._markers({n: Place(*at) for n, at in places.items()}, kinds, {}, labelled=True)
    assert " ".join(filter(None, found["text"])) == named
    assert list(found["textfont"]["size"]) == [10 if at[2] else 12 for at in places.values()]


@pytest.mark.parametrize(
    ("values", "log", "expected"),
    [
        ([0.3, 9.0], True, [0.5, 0.7, 1, 1.5, 2, 3, 5, 7]),
        ([0.02, 50.0], True, [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]),
        ([1e-5, 1e3], True, [1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100]),
        ([0.94, 1.52], True, [0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4, 1.45, 1.5]),
        ([12.0, 67.0], False, [15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65]),
        ([-3.0, 1.0], False, [-2.5, -2, -1.5, -1, -0.5, 0, 0.5]),
    ],
)
def test_contours_are_at_round_numbers(
    values: list[float], log: bool, expected: list[float]
) -> None:
    np.testing.assert_allclose(planes._levels(np.array(values), log=log), expected)


def test_each_contour_has_its_number_on_it(sweep: Sweep, evaluator: Evaluator) -> None:
    found = plane(sweep, evaluator, ["base", "run1", "run2"], 3)
    steps = np.linspace(0, 1, 61)
    across, _ = np.meshgrid(steps, steps)
    found = replace(found, xs=steps, ys=steps, losses=0.1 * 1000**across, scores=1 - 0.5 * across)
    figure = figures.plane_contours(found, {}, {}, {})
    losses, errors = (trace for trace in figure.data if trace.name == "numbers")
    assert list(losses.text) == ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]
    np.testing.assert_allclose(0.1 * 1000 ** np.array(losses.x), [*map(float, losses.text)], 0.02)
    np.testing.assert_allclose(50 * np.array(errors.x), [*map(float, errors.text)], atol=1e-6)


def test_a_plane_not_known_yet_is_drawn_empty(sweep: Sweep, evaluator: Evaluator) -> None:
    found = plane(sweep, evaluator, ["base", "run1", "run2"], 3)
    found.losses[:] = np.nan
    found.scores[:] = np.nan
    figure = figures.plane_contours(found, {}, {}, {})
    assert np.isnan(np.array(figure.data[0].z, dtype=float)).all()
