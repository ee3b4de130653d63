"""Linear mode connectivity: the matrix of all pairs, its basins, and the curves of chosen pairs."""

import streamlit as st

from pages.components import (
    basin_list,
    connectivity_snippets,
    curves,
    pair_matrix,
    points,
    snippets,
)
from pages.components.pair_matrix import Asked
from pages.components.state import View
from soupcore import figures
from soupcore.connectivity.barriers import pairs

ALPHAS: dict[int | str, str] = {
    "adaptive": "adaptive, to 0.01",
    11: "11 (model soups)",
    25: "25 (Git Re-Basin)",
    30: "30 (Frankle et al.)",
    61: "61 (Garipov et al.)",
}


def main(view: View) -> None:
    st.header("Connectivity")
    selected = st.session_state["selection"]
    names = selected if len(selected) > 1 else view.sweep.names()
    _caption(view, len(selected))
    asked = _ask(view, names)
    left, right = st.columns([6, 5], gap="medium")
    with left:
        st.subheader("All pairs")
        _matrix(view, asked)
    with right:
        st.subheader("Curves")
        curves.show(view, points.of(view), asked.alphas, asked.split)
    snippets.show(
        connectivity_snippets.matrix(
            view, names, asked.alphas, asked.split, asked.measure, tree=asked.clustered
        )
    )


def _caption(view: View, selected: int) -> None:
    which = "the selection" if selected > 1 else "all ingredients (none are selected)"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f"{view.task.loss_name.capitalize()} along the straight line (1−α)·θ₀ + α·θ₁ between "
            f"**{which}** · barrier: how far it rises above the line between its ends",
            width="content",
        )
        if selected > 1:
            st.button(f"Show all {len(view.sweep)}", type="tertiary", on_click=_select_none)


def _ask(view: View, names: list[str]) -> Asked:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        alphas = st.selectbox(
            "Points a line", [*ALPHAS], format_func=lambda n: ALPHAS[n], width=200,
            help="Adaptive: as many as it takes to know each barrier to within 0.01 (1 % of one "
            "above 1), the error barrier to within a point. A hill narrower than about 0.3 of the "
            "line may lie between the points unseen. Fixed grids are those of papers.",
        )  # fmt: skip
        split = st.selectbox(
            "Split", view.task.reported, width=180,
            help="Curves on report and the shifts are to look at; choose with select only.",
        )  # fmt: skip
        measure = st.segmented_control(
            "Measure", [*figures.MEASURES], default="loss", required=True,
        )  # fmt: skip
        clustered = st.toggle(
            "Clustered", value=True, help="Those that join early stand beside each other."
        )
    return Asked(names, alphas, split, measure, clustered)


def _matrix(view: View, asked: Asked) -> None:
    if asked.measure == "midpoint" and isinstance(asked.alphas, int) and asked.alphas % 2 == 0:
        st.info(f"{asked.alphas} points a line, evenly, have none in the middle: choose another "
                "number of points.", icon=":material/grid_on:")  # fmt: skip
        return
    found = pair_matrix.find(view, asked)
    pair_matrix.ask(view, asked, found)
    values = pair_matrix.values_of(view, asked, found)
    count = len(list(pairs(asked.names)))
    if values is None:
        what = "the checkpoints" if asked.measure in pair_matrix.GEOMETRIC else (
            f"the {count} pairs on {asked.split}")  # fmt: skip
        st.info(f"Nothing is known of {what} yet; the cells fill as results come.",
                icon=":material/grid_on:")  # fmt: skip
        return
    measure = figures.MEASURES[asked.measure]
    limit = None
    if measure.connected is not None:
        limit = basin_list.show(asked.names, values, measure)
    if asked.measure not in pair_matrix.GEOMETRIC:
        st.caption(_state(found, count, asked))
    pair_matrix.draw(view, asked, found, values, limit)


def _state(found: pair_matrix.Found, count: int, asked: Asked) -> str:
    settled = len(found.whole.paths.keys() - found.whole.open)
    text = f"{settled} of {count} pairs known on {asked.split}"
    if waiting := len(found.best.open):
        text += f"; ○ {waiting} preliminary: a screen, or still to be refined"
    return f"{text}. Click a cell for its curve."


def _select_none() -> None:
    st.session_state["selection"] = []


main(st.session_state["view"])
