"""Snippets that show more than the pages do by default; `test_figures` compares the others."""

import numpy as np
import pytest

from pages.components import pair_matrix, snippets
from pages.components.state import View
from soupcore import barriers, linear_path, uniform
from soupcore.calls import Paths, TwoModelEnsembles, TwoModelTheory
from soupcore.evaluation import StatisticsChoice
from tests.pages.conftest import NAMES, Run, evaluator_of

ALL_PAIRS = Paths(names=tuple(NAMES), alphas="adaptive", splits=("val",))
MIDPOINTS = Paths(names=tuple(NAMES), alphas=3, splits=("val",))


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("measure", ["loss", "error (Frankle)", "distance"])
def test_the_matrix(view: View, run: Run, measure: str, tree: bool) -> None:
    code = snippets.matrix(view, ALL_PAIRS, measure, tree=tree)
    drawn = [trace.name for trace in run(code).data if trace.type == "scatter"]
    assert drawn == ["tree"] * tree + ["numbers", "cells"]


def test_the_matrix_of_midpoints_is_in_the_order_of_the_page(view: View, run: Run) -> None:
    midpoints = barriers(view.sweep, evaluator_of(view), NAMES, split="val").midpoint_advantage
    choices = pair_matrix.Choices(NAMES, "adaptive", "val", "midpoint", True)
    figure = run(snippets.matrix(view, choices.call, "midpoint", tree=True))
    joined = pair_matrix.join(choices, midpoints)
    assert list(figure.layout.yaxis2.ticktext) == list(joined.order)
    (drawn,) = (trace for trace in figure.data if trace.name == "tree")
    heights = np.reshape(drawn.y, (-1, 5))[:, :4]
    np.testing.assert_allclose(heights, joined.branches[1] * 100)
    assert heights.any()


@pytest.mark.parametrize("shown", ["averaged", "re-estimated"])
def test_curves_with_both_batchnorm_statistics_have_a_panel_for_each(
    view: View, run: Run, shown: StatisticsChoice
) -> None:
    soup = view.keep_soup(uniform(view.sweep), {})
    view = view.with_statistics(shown)
    pairs = (("base", "run1"), ("run2", {"soup": soup}))
    call = Paths(pairs=pairs, alphas=3, splits=("val", "test"), beyond=(-0.5, 1.5))
    figure = run(snippets.curves(view, call, both_statistics=True))
    assert [note.text for note in figure.layout.annotations] == [
        f"{split}, {kind}" for split in ("val", "test") for kind in ("averaged", "re-estimated")
    ]
    averaged, anew = (
        linear_path(view.sweep["base"], view.sweep["run1"],
                    evaluator_of(view).with_statistics(kind), 3, split="val",
                    beyond=(-0.5, 1.5)).losses.tolist()
        for kind in ("averaged", "re-estimated")
    )  # fmt: skip
    drawn = [list(trace.y) for trace in figure.data if trace.mode == "markers"]
    assert averaged != anew
    assert averaged in drawn
    assert anew in drawn
    assert {trace.x[0] for trace in figure.data if trace.mode == "markers"} == {-0.5}


@pytest.mark.parametrize("to", [None, "run2"])
def test_layers(view: View, run: Run, to: str | None) -> None:
    figure = run(snippets.layers(view, NAMES, to, grouped=False))
    assert len(figure.data[0].y) == 6


@pytest.mark.parametrize("colour", [None, "lr"])
def test_angles_soups_and_theory(view: View, run: Run, colour: str | None) -> None:
    both = TwoModelEnsembles(tuple(NAMES), "val")
    for code in (
        snippets.angles(view, MIDPOINTS, colour),
        snippets.soups_and_ensembles(view, both, MIDPOINTS, colour),
        snippets.theory(view, TwoModelTheory(tuple(NAMES), "val"), colour),
    ):
        points = run(code).data[0]
        assert len(points.x) == 3
        assert isinstance(points.marker.color, str) is (colour is None)
