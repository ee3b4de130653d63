"""Linear mode connectivity: barriers between all pairs, and the curves of chosen ones."""

import streamlit as st

from pages.components import jobs, picking, snippets
from pages.components.state import Pair, View
from soupcore import figures
from soupcore.connectivity import stored_barriers, stored_path
from soupcore.connectivity.barriers import pairs
from soupcore.connectivity.path import grid, path_points

ALPHAS: dict[int, str] = {11: "11 (model soups)", 25: "25 (Git Re-Basin)"}


def main(view: View) -> None:
    st.header("Connectivity")
    selected = st.session_state["selection"]
    names = selected if len(selected) > 1 else view.sweep.names()
    which = "the selection" if len(selected) > 1 else "all ingredients (none are selected)"
    st.caption(
        f"{view.task.loss_name.capitalize()} along the straight line (1−α)·θ₀ + α·θ₁ between "
        f"**{which}** · barrier: how far it rises above the line between its ends"
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        alphas = st.selectbox(
            "Points a line", [*ALPHAS], format_func=lambda n: ALPHAS[n], width=220
        )
        split = st.selectbox(
            "Split", view.task.reported, width=220,
            help="Curves on report and the shifts are to look at; choose with select only.",
        )  # fmt: skip
        measure = st.segmented_control("Barrier", ["loss", "error"], default="loss", required=True)
    left, right = st.columns(2)
    with left:
        _matrix(view, names, alphas, split, measure)
    with right:
        _curves(view, alphas, split)
    snippets.show(snippets.connectivity(view, names, st.session_state["pairs"], alphas))


def _matrix(view: View, names: list[str], alphas: int, split: str, measure: str) -> None:
    st.subheader("All pairs")
    wanted = list(pairs(names))
    known = stored_barriers(view.sweep, view.evaluator, names, alphas, split=split)
    _evaluate_button(view, wanted, alphas, split, known.missing, key="all")
    if not known.paths:
        st.info(
            f"No pair is known on {split} yet. The {len(wanted)} pairs need {known.missing} "
            "evaluations; the cells fill as they come.",
            icon=":material/grid_on:",
        )
        return
    st.caption(
        f"{len(known.paths)} of {len(wanted)} pairs known. Click a cell for its curve. "
        "A grid of points cannot prove that there is no barrier between them."
    )
    picking.show(figures.barrier_heatmap(known, measure=measure), "heatmap", _take_cells)


def _curves(view: View, alphas: int, split: str) -> None:
    st.subheader("Curves")
    ends = [*([view.sweep.base.name] if view.sweep.base else []), *view.sweep.ingredients]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = st.selectbox("From", ends, index=0)
        second = st.selectbox("To", ends, index=min(1, len(ends) - 1))
        if st.button("Add", disabled=first == second, icon=":material/add:"):
            _toggle((first, second), keep=True)
            st.rerun()
    chosen = st.session_state["pairs"]
    if not chosen:
        st.info(
            "Choose two ends above, or click a cell of the matrix, to draw the loss and the "
            f"{view.task.score_name} along the line between them.",
            icon=":material/show_chart:",
        )
        return
    kept = st.pills(
        "Pairs",
        chosen,
        selection_mode="multi",
        default=chosen,
        format_func=lambda pair: f"{pair[0]} → {pair[1]}",
        label_visibility="collapsed",
        key=f"pairs-{chosen}",
        help="Click a pair to remove it.",
    )
    if len(kept) < len(chosen):
        st.session_state["pairs"] = [pair for pair in chosen if pair in kept]
        st.rerun()
    _evaluate_and_draw(view, chosen, alphas, split)


def _evaluate_and_draw(view: View, chosen: list[Pair], alphas: int, split: str) -> None:
    points = [
        point
        for a, b in chosen
        for point in path_points(view.sweep[a], view.sweep[b], grid(alphas))
    ]
    missing = len(view.evaluator.missing(points, split))
    _evaluate_button(view, chosen, alphas, split, missing, key="chosen")
    paths = {
        (a, b): path
        for a, b in chosen
        if (path := stored_path(view.sweep[a], view.sweep[b], view.evaluator, alphas, split=split))
    }
    if paths:
        st.plotly_chart(
            figures.path_curves(
                paths, loss_name=view.task.loss_name, score_name=view.task.score_name
            ),
            config={"displaylogo": False},
        )
        st.caption(
            "The shape of a path does not predict how well its points do on other data "
            "(Vlaar & Frankle 2022)."
        )


def _evaluate_button(
    view: View, wanted: list[Pair], alphas: int, split: str, missing: int, *, key: str
) -> None:
    request = view.request | {
        "pairs": [list(pair) for pair in wanted],
        "alphas": alphas,
        "splits": [split],
    }
    if missing and st.button(
        f"Evaluate {missing} points" if missing > 1 else "Evaluate 1 point",
        type="primary",
        icon=":material/play_arrow:",
        key=f"evaluate-{key}",
        disabled=jobs.unfinished("paths", **request) is not None,
        help=f"{len(wanted)} lines of {alphas} points on {split}, less what is known.",
    ):
        label = f"{wanted[0][0]} → {wanted[0][1]}" if len(wanted) == 1 else f"{len(wanted)} lines"
        jobs.submit("paths", f"Evaluate {label} on {split}", request)
        st.rerun()


def _take_cells(picked: list[tuple[str, str, str]]) -> None:
    for a, b, _ in picked:
        _toggle((a, b))


def _toggle(pair: Pair, *, keep: bool = False) -> None:
    chosen = st.session_state["pairs"]
    if pair not in chosen:
        st.session_state["pairs"] = [*chosen, pair]
    elif not keep:
        st.session_state["pairs"] = [other for other in chosen if other != pair]


main(st.session_state["view"])
