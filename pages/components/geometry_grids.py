"""Scores, and what two-model soups gain, over hyperparameters."""

from collections.abc import Sequence

import streamlit as st

from pages.components import connectivity_snippets, export, middles
from pages.components.state import View
from soupcore import figures
from soupcore.analysis import ingredient_grid, pair_grid, varying
from soupcore.figures.tables import grid_table

_PAIRS = "midpoint − best end"


def show(view: View, names: Sequence[str]) -> None:
    """Let the user choose what to average over which hyperparameters, and draw it."""
    keys = varying(view.sweep)
    if not keys:
        st.info(
            "The ingredients differ in no hyperparameter that is known. Put a sweep.jsonl or "
            "sweep.csv beside them.",
            icon=":material/tune:",
        )
        return
    score = f"{view.task.score_name} of ingredients"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        what = st.segmented_control("Average", [_PAIRS, score], default=_PAIRS, required=True)
        split = st.selectbox("Split", view.task.reported, width=180, key="grid-split")
        rates = middles.rates(keys)
        first = keys.index(rates[0]) if rates else 0
        row = st.selectbox("Hyperparameter", keys, index=first, width=200)
        others = [key for key in keys if key != row]
        column = None
        if what == score and others:
            column = st.selectbox("and", others, width=200)
    if what == _PAIRS:
        _pairs(view, names, split, row)
    elif column is None:
        st.info("There is only one hyperparameter.", icon=":material/tune:")
    else:
        _ingredients(view, names, split, row, column)


def _pairs(view: View, names: Sequence[str], split: str, key: str) -> None:
    known = middles.ask(view, names, split, key="grid")
    if known is None:
        return
    gains = {pair: path.midpoint_gain * 100 for pair, path in known.paths.items()}
    grid = pair_grid(view.sweep, gains, key)
    title = f"{_PAIRS}, points"
    figure = figures.grid_heatmap(grid, title=title, unit=" points", diverges=True)
    code = connectivity_snippets.pair_grid(view, names, split, key)
    export.show(figure, "pair-grid", grid_table(grid), code)
    st.caption(
        f"Mean over pairs of what the middle's {view.task.score_name} has over the better end's "
        "(appendix F.1 of the soups' paper); blue gains."
    )


def _ingredients(view: View, names: Sequence[str], split: str, row: str, column: str) -> None:
    points = [view.sweep[name].mixture for name in names]
    known = view.evaluator.stored(points, split)
    scores = {name: found.score * 100 for name, found in zip(names, known, strict=True) if found}
    if not scores:
        st.info(f"No ingredient is evaluated on {split} yet; the page Ingredients does that.",
                icon=":material/grocery:")  # fmt: skip
        return
    grid = ingredient_grid(view.sweep, scores, row, column)
    figure = figures.grid_heatmap(grid, title=f"{view.task.score_name}, %", unit=" %")
    code = connectivity_snippets.ingredient_grid(view, names, split, row, column)
    export.show(figure, "ingredient-grid", grid_table(grid), code)
