import numpy as np
import pytest

from pages.components import connectivity_snippets as snippets
from pages.components import pair_matrix
from pages.components.snippets import Point
from pages.components.state import View
from soupcore import barriers, linear_path, uniform
from soupcore.evaluation import StatisticsChoice
from tests.pages.conftest import NAMES, Run, evaluator_of


@pytest.fixture
def points(view: View) -> dict[str, Point]:
    soup = uniform(view.sweep)
    known = {name: Point(view.sweep[name].mixture, "ingredient", name, f"sweep[{name!r}]")
             for name in NAMES}  # fmt: skip
    shares = ", ".join(f"{name!r}: Fraction('1/3')" for name in NAMES)
    return known | {
        "base": Point(view.sweep["base"].mixture, "base", "base", "sweep['base']"),
        "uniform": Point(soup.mixture, "soup", {"soup": soup.id}, f"sweep.mixture({{{shares}}})"),
    }


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("measure", ["loss", "error", "midpoint", "angle", "distance"])
def test_the_matrix(view: View, run: Run, measure: str, tree: bool) -> None:
    code = snippets.matrix(view, NAMES, "adaptive", "val", measure, tree=tree)
    drawn = [trace.name for trace in run(code).data if trace.type == "scatter"]
    assert drawn == ["tree"] * tree + ["numbers", "cells"]


def test_the_matrix_of_midpoints_is_in_the_order_of_the_page(view: View, run: Run) -> None:
    midpoints = barriers(view.sweep, evaluator_of(view), NAMES, split="val").midpoint_advantage
    choices = pair_matrix.Choices(NAMES, "adaptive", "val", "midpoint", True)
    figure = run(snippets.matrix(view, NAMES, "adaptive", "val", "midpoint", tree=True))
    joined = pair_matrix.join(choices, midpoints)
    assert list(figure.layout.yaxis2.ticktext) == list(joined.order)
    (drawn,) = (trace for trace in figure.data if trace.name == "tree")
    heights = np.reshape(drawn.y, (-1, 5))[:, :4]
    np.testing.assert_allclose(heights, joined.branches[1] * 100)
    assert heights.any()


@pytest.mark.parametrize("shown", ["averaged", "re-estimated"])
def test_curves_with_both_batchnorm_statistics_have_a_panel_for_each(
    view: View, points: dict[str, Point], run: Run, shown: StatisticsChoice
) -> None:
    view = view.with_statistics(shown)
    pairs = [("base", "run1"), ("run2", "uniform")]
    code = snippets.curves(view, points, pairs, 3, ["val", "test"], [], both_statistics=True)
    figure = run(code)
    assert [note.text for note in figure.layout.annotations] == [
        f"{split}, {kind}" for split in ("val", "test") for kind in ("averaged", "re-estimated")
    ]
    averaged, anew = (
        linear_path(points["base"].mixture, points["run1"].mixture,
                    evaluator_of(view).with_statistics(kind), 3, split="val").losses.tolist()
        for kind in ("averaged", "re-estimated")
    )  # fmt: skip
    drawn = [list(trace.y) for trace in figure.data if trace.mode == "markers"]
    assert averaged != anew
    assert averaged in drawn
    assert anew in drawn


def test_curves_of_pairs_with_a_soup_beyond_the_ends(
    view: View, points: dict[str, Point], run: Run
) -> None:
    pairs = [("base", "run1"), ("run2", "uniform")]
    code = snippets.curves(view, points, pairs, 3, ["val", "test"], [-0.5, 1.5])
    figure = run(code)
    assert {trace.x[0] for trace in figure.data if trace.mode == "markers"} == {-0.5}
    assert [t.showlegend for t in figure.data if t.mode == "markers"].count(True) == 2


def test_paths_from_the_base(view: View, points: dict[str, Point], run: Run) -> None:
    figure = run(snippets.from_base(view, points, ["run1", "uniform"], 3))
    assert [trace.name for trace in figure.data] == ["run1", "uniform"]


def test_a_plane(view: View, points: dict[str, Point], run: Run) -> None:
    code = snippets.plane(view, points, ["base", "run1", "uniform"], ["run2"], "val", 3)
    figure = run(code)
    assert [row[0] for row in figure.data[2].customdata] == ["base", "run1", "uniform", "run2"]


def test_norms(view: View, run: Run) -> None:
    assert list(run(snippets.norms(view, NAMES)).data[0].y) == NAMES


@pytest.mark.parametrize("to", [None, "run2"])
@pytest.mark.parametrize("grouped", [True, False])
def test_layers(view: View, run: Run, to: str | None, grouped: bool) -> None:
    figure = run(snippets.layers(view, NAMES, to, grouped=grouped))
    assert len(figure.data[0].y) == (3 if grouped else 6)


@pytest.mark.parametrize("colour", [None, "lr"])
def test_angles_soups_and_theory(view: View, run: Run, colour: str | None) -> None:
    for make in (snippets.angles, snippets.soups_and_ensembles, snippets.theory):
        points = run(make(view, NAMES, "val", colour)).data[0]
        assert len(points.x) == 3
        assert isinstance(points.marker.color, str) is (colour is None)


def test_grids(view: View, run: Run) -> None:
    assert run(snippets.pair_grid(view, NAMES, "val", "lr")).data[0].z.shape == (3, 3)


def test_grids_of_ingredients(view: View, run: Run) -> None:
    figure = run(snippets.ingredient_grid(view, NAMES, "val", "lr", "seed"))
    assert figure.data[0].z.shape == (3, 3)
