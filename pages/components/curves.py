"""The curves of chosen pairs, on any splits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import streamlit as st

from pages.components import asking, batchnorm, connectivity_snippets, export, pair_matrix
from pages.components.points import Point
from pages.components.state import Pair, View
from soupcore import LinearPath, figures
from soupcore.connectivity import stored_lines
from soupcore.figures.tables import barriers_table, paths_table
from soupcore.jobs.connectivity_kinds import alphas_of

BEYOND = (-0.5, -0.25, 1.25, 1.5)
_COLUMNS = {
    "points": st.column_config.NumberColumn(help="Evaluated, the ends included"),
    "loss barrier": st.column_config.NumberColumn(format="%.4f"),
    "up to": st.column_config.NumberColumn(
        format="%.4f", help="How high it may be between the points, by interpolation: an estimate"
    ),
    "at α": st.column_config.NumberColumn(format="%.3f"),
    "error barrier": st.column_config.NumberColumn(format="percent"),
    "error up to": st.column_config.NumberColumn(format="percent"),
    "midpoint advantage": st.column_config.NumberColumn(format="percent"),
}


def show(view: View, points: Mapping[str, Point], alphas: int | str, split: str) -> None:
    """Let the user choose pairs and splits, and draw their curves."""
    _add(points)
    chosen: list[Pair] = [p for p in st.session_state["pairs"] if points.keys() >= set(p)]
    if not chosen:
        st.info(
            "Choose two ends above, or click a cell of the matrix, to draw the loss and the "
            f"{view.task.score_name} along the line between them.",
            icon=":material/show_chart:",
        )
        return
    _remove(chosen)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        splits = st.pills(
            "Splits of the curves", view.task.reported, selection_mode="multi", default=[split],
            key=f"curve-splits-{split}",
            help="Curves on report and the shifts are to look at; choose with select only.",
        )  # fmt: skip
        is_beyond = st.toggle("Beyond the ends", help="α from −0.5 to 1.5: extrapolations.")
        is_both = view.offers_statistics and st.toggle(
            "Both BatchNorm statistics", help="Averaged and re-estimated, side by side."
        )
    if not splits:
        st.info("Choose at least one split.", icon=":material/dataset:")
        return
    beyond = BEYOND if is_beyond else ()
    if is_both:
        paths = _both(view, points, chosen, alphas, splits, beyond)
    else:
        paths = _known(view, points, chosen, alphas, splits, beyond)
    if any(paths.values()):
        _draw(view, points, paths, alphas, splits, beyond, both_statistics=is_both)


def _both(
    view: View, points: Mapping[str, Point], chosen: Sequence[Pair], alphas: int | str,
    splits: Sequence[str], beyond: Sequence[float],
) -> dict[Pair, list[LinearPath]]:  # fmt: skip
    """Look the paths up with either kind of BatchNorm statistics, named in their splits."""
    paths: dict[Pair, list[LinearPath]] = {pair: [] for pair in chosen}
    for split in splits:
        for kind in batchnorm.CHOICES:
            seen = view.with_statistics(kind)
            found = _known(seen, points, chosen, alphas, [split], beyond, which=kind)
            for pair, many in found.items():
                paths[pair] += [replace(path, split=f"{split}, {kind}") for path in many]
    return paths


def _known(
    view: View, points: Mapping[str, Point], chosen: Sequence[Pair], alphas: int | str,
    splits: Sequence[str], beyond: Sequence[float], which: str = "",
) -> dict[Pair, list[LinearPath]]:  # fmt: skip
    """Look the paths up, and offer to evaluate what is missing of them."""
    lines = [(points[a].mixture, points[b].mixture) for a, b in chosen]
    paths: dict[Pair, list[LinearPath]] = {pair: [] for pair in chosen}
    missing = 0
    for split in splits:
        known = stored_lines(lines, view.evaluator, alphas_of(alphas), split=split, beyond=beyond)
        missing += known.missing
        for pair, path in zip(chosen, known.paths, strict=True):
            if path is not None:
                paths[pair].append(path)
    if missing:
        request = view.request | {
            "pairs": [[points[a].end, points[b].end] for a, b in chosen],
            "alphas": alphas,
            "splits": list(splits),
            "beyond": list(beyond),
        }
        label = " → ".join(chosen[0]) if len(chosen) == 1 else f"{len(chosen)} lines"
        where = splits[0] if len(splits) == 1 else f"{len(splits)} splits"
        where += f", {which}" if which else ""
        more = "at least " if alphas == "adaptive" else ""
        asking.button(
            f"Evaluate {more}{asking.points(missing)}{f' on {where}' if which else ''}", "paths",
            f"Evaluate {label} on {where}", request, key=f"evaluate-chosen-{where}",
        )  # fmt: skip
    return paths


def _draw(
    view: View, points: Mapping[str, Point], paths: Mapping[Pair, Sequence[LinearPath]],
    alphas: int | str, splits: Sequence[str], beyond: Sequence[float], *, both_statistics: bool,
) -> None:  # fmt: skip
    names = {"loss_name": view.task.loss_name, "score_name": view.task.score_name}
    drawn = {pair: many for pair, many in paths.items() if many}
    code = connectivity_snippets.curves(
        view, dict(points), drawn, alphas, splits, beyond, both_statistics=both_statistics
    )
    export.show(figures.path_curves(drawn, **names), "curves", paths_table(drawn), code)
    st.dataframe(barriers_table(drawn), hide_index=True, column_config=_COLUMNS)
    st.caption(
        "The shape of a path does not predict how well its points do on other data "
        "(Vlaar & Frankle 2022), and no number of points proves that there is no barrier: adaptive "
        "points may miss a hill narrower than about 0.3 of the line."
    )


def _add(points: Mapping[str, Point]) -> None:
    ends = list(points)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = st.selectbox("From", ends, index=0)
        second = st.selectbox("To", ends, index=min(1, len(ends) - 1))
        if st.button("Add", disabled=first == second, icon=":material/add:"):
            if (first, second) not in st.session_state["pairs"]:
                st.session_state["pairs"] = [*st.session_state["pairs"], (first, second)]
            st.rerun()


def _remove(chosen: list[Pair]) -> None:
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
        pair_matrix.forget_clicks()
        st.rerun()
