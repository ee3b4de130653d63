"""Linear mode connectivity: pairwise matrix, basins, and interpolation curves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from pages.components import display, exports, jobs, pair_matrix, scores, snippets, tasks
from pages.components.display import plain
from pages.components.pair_matrix import Choices
from pages.components.scores import Point
from pages.components.state import STATISTICS, Pair, View
from soupcore import LinearPath, figures
from soupcore.calls import Paths, alphas_of
from soupcore.connectivity import Basin, stored_lines, summaries
from soupcore.connectivity.adaptive import EVALUATIONS_PER_LINE
from soupcore.display import capitalised
from soupcore.figures.tables import barriers_table, paths_table
from soupcore.overview import ranked
from soupcore.plan import seconds
from soupcore.tasks import Labels

_METRICS = {
    "loss": "Loss barrier",
    "error": "Error barrier",
    "error (Frankle)": "Error barrier (Frankle)",
    "midpoint": "Midpoint gain",
    "angle": "Angle",
    "distance": "Distance",
}
_BEYOND = (-0.5, -0.25, 1.25, 1.5)  # α values
_BOUND = "Estimated maximum between the evaluated α values (interpolated)"
ALPHAS: dict[int | str, str] = {
    "adaptive": "adaptive (tolerance 0.01)",
    11: "11 (Model Soups)",
    25: "25 (Git Re-Basin)",
    30: "30 (Frankle et al.)",
    61: "61 (Garipov et al.)",
}


def main(view: View) -> None:
    st.header("Connectivity")
    selected = st.session_state["selection"]
    names = selected if len(selected) > 1 else view.sweep.names()
    _caption(view, len(selected))
    if not view.has_task:
        _distances(view, names)
        return
    choices = _choose(view, names)
    with st.container(key="connectivity"):
        left, right = st.columns([3, 2], gap="medium")
    with left:
        st.subheader("Pairwise matrix")
        _matrix(view, choices)
    with right:
        st.subheader("Interpolation curves")
        _curves(view, scores.points(view), choices.alphas, choices.split)
    snippets.show(snippets.matrix(view, choices.call, choices.measure, tree=choices.clustered))


def _caption(view: View, selected: int) -> None:
    which = (
        f"the {selected} selected ingredients"
        if selected > 1
        else f"all {len(view.sweep)} ingredients"
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(_compared(view, which), width="content")
        if selected > 1:
            st.button(
                f"Clear selection (show all {len(view.sweep)})",
                type="tertiary",
                on_click=_select_none,
            )


def _compared(view: View, which: str) -> str:
    """Return what the page compares, as Markdown."""
    if not view.has_task:
        return f"Angles and distances between every pair of **{which}**."
    loss, score, unit = (
        plain(view.task.loss_name),
        plain(view.task.score_name),
        view.task.score_unit,
    )
    if unit.counts_errors:
        rise = f"rise in {loss} or error above"
    elif unit.sign < 0:
        rise = f"rise in {loss} or {score} above"
    else:
        rise = f"rise in {loss} above, or drop in {score} below,"
    return (
        f"Lines (1−α)·θ₀ + α·θ₁ for every pair of **{which}**. Barrier = maximum {rise} linear "
        "interpolation of the endpoint values."
    )


def _distances(view: View, names: list[str]) -> None:
    """Show the measures of the matrix that need no evaluation."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure = st.segmented_control(
            "Metric", pair_matrix.GEOMETRIC, default="angle", required=True,
            format_func=lambda name: _METRICS[name],
        )  # fmt: skip
        clustered = _choose_order()
    with st.container(key="connectivity-distances"):
        left, right = st.columns([3, 2], gap="medium")
    with left:
        st.subheader("Pairwise matrix")
        choices = Choices(names, 0, "", measure, clustered)
        pair_matrix.show_geometry_button(view)
        values = pair_matrix.values_of(view, choices, None)
        if values is None:
            st.info("Angles and distances have not been computed yet.", icon=":material/grid_on:")
        else:
            pair_matrix.draw(view, choices, None, values, None)
    with right:
        st.subheader("Interpolation curves")
        tasks.show_needed("Loss along the line between two models", key="curves")
    snippets.show(snippets.matrix(view, choices.call, measure, tree=clustered))


def _choose_order() -> bool:
    return st.toggle(
        "Cluster rows",
        value=True,
        help="Order rows by single-linkage clustering, so that ingredients in the same basin "
        "are adjacent.",
    )


def _choose(view: View, names: list[str]) -> Choices:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        alphas = st.selectbox(
            "α values per pair", [*ALPHAS], format_func=lambda n: ALPHAS[n], width=200,
            help="Adaptive adds α values until each loss barrier is known to ±0.01 (1 % if above "
            f"1) and each {_drop(view)}. Peaks narrower than about 0.3 in α can still be missed. "
            "Fixed grids match the cited papers.",
        )  # fmt: skip
        split = st.selectbox(
            "Split", view.task.reported, format_func=view.task.split_title, width=180,
            help="Use test and shifted splits for reporting only; make choices on "
            f"{plain(view.task.select)}.",
        )  # fmt: skip
        clustered = _choose_order()
    # Below the others, since beside them it would be cut off in a narrow window.
    measure = st.segmented_control(
        "Metric", [*figures.measures(view.task.score_unit)], default="loss", required=True,
        format_func=lambda name: _METRICS[name] if view.task.score_unit.counts_errors
        else _METRICS[name].replace("Error", _capitalised(view.task.score_name)),
        help="Barriers are above linear interpolation of the endpoint values (Entezari et al. "
        "2022). Frankle: above the endpoint mean (Frankle et al. 2020), which includes half "
        "the difference between unequal endpoints.",
    )  # fmt: skip
    return Choices(names, alphas, split, measure, clustered)


def _capitalised(name: str) -> str:
    return plain(capitalised(name))


def _drop(view: View) -> str:
    if view.task.score_unit.counts_errors:
        return "error barrier to ±1 pp"
    within = "±1 pp" if view.task.score_unit.is_share else "±0.01 (1 % if above 1)"
    return f"{plain(view.task.score_name)} barrier to {within}"


def _matrix(view: View, choices: Choices) -> None:
    if (
        choices.measure == "midpoint"
        and isinstance(choices.alphas, int)
        and choices.alphas % 2 == 0
    ):
        st.info(f"A grid of {choices.alphas} α values has no midpoint (α = 0.5). Choose an odd "
                "number or adaptive.", icon=":material/grid_on:")  # fmt: skip
        return
    found = pair_matrix.look_up(view, choices)
    pair_matrix.show_buttons(view, choices, found)
    values = pair_matrix.values_of(view, choices, found)
    count = math.comb(len(choices.names), 2)
    if values is None:
        what = (
            "Angles and distances have not been computed yet."
            if choices.measure in pair_matrix.GEOMETRIC
            else f"None of the {count:,} pairs has been evaluated on {plain(choices.split)} yet. "
            "Cells fill in as results arrive."
        )
        st.info(what, icon=":material/grid_on:")
        return
    measure = figures.measures(view.task.score_unit, view.task.score_name)[choices.measure]
    limit: float | None = None
    grouped: list[Basin] = []
    if measure.connected is not None:
        limit, grouped = pair_matrix.choose_threshold(found.best, values, measure)
    if choices.measure not in pair_matrix.GEOMETRIC:
        st.caption(_state(found, count, choices))
    pair_matrix.draw(view, choices, found, values, limit, grouped)


def _state(found: pair_matrix.Summaries, count: int, choices: Choices) -> str:
    settled = int(found.whole.settled.sum())
    text = f"{settled:,} of {count:,} pairs evaluated on {plain(choices.split)}"
    if waiting := len(found.best.preliminary):
        text += f"; {waiting:,} preliminary, faded (screened, or not yet converged)"
    return f"{text}. Click a cell to plot its curve."


def _select_none() -> None:
    st.session_state["selection"] = []


def _curves(view: View, points: Mapping[str, Point], alphas: int | str, split: str) -> None:
    """Let the user choose pairs and splits, and draw their curves."""
    _add_pair(points)
    chosen: list[Pair] = [p for p in st.session_state["pairs"] if points.keys() >= set(p)]
    if chosen:
        _remove_pairs(chosen)
    else:
        chosen = _best_two(view)
        if not chosen:
            st.info(
                "Click a matrix cell, or pick two models above, to plot loss and "
                f"{plain(view.task.score_name)} along the line between them.",
                icon=":material/show_chart:",
            )
            return
        st.caption(
            f"The two best ingredients on {plain(view.task.select)}: {plain(chosen[0][0])} → "
            f"{plain(chosen[0][1])}. Click a matrix cell, or pick two models above, to plot others."
        )
    splits = st.pills(
        "Splits", view.task.reported, selection_mode="multi", default=[split],
        format_func=plain, key=f"curve-splits-{split}",
        help="Use test and shifted splits for reporting only; make choices on "
        f"{plain(view.task.select)}.",
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        is_beyond = st.toggle("Extrapolate", help="Extend α to [−0.5, 1.5].")
        is_both = view.offers_statistics and st.toggle(
            "Compare BatchNorm modes", help="Plot averaged and re-estimated statistics together."
        )
    if not splits:
        st.info("Select at least one split.", icon=":material/dataset:")
        return
    beyond = _BEYOND if is_beyond else ()
    if is_both:
        paths = _both(view, points, chosen, alphas, splits, beyond)
    else:
        paths = _known(view, points, chosen, alphas, splits, beyond)
    call = _call(points, chosen, alphas, splits, beyond)
    if not is_both and not any(paths.values()):
        call, paths = _screened(view, points, chosen, call)
    if any(paths.values()):
        _draw(view, points, paths, call, both_statistics=is_both)


def _best_two(view: View) -> list[Pair]:
    """Return the pair of the two best ingredients on the select split; none if it is unclear."""
    best = ranked(view.overview.runs, view.task.select, view.sweep.names())[:2]
    return [(best[0], best[1])] if len(best) == 2 else []


def _both(
    view: View, points: Mapping[str, Point], chosen: Sequence[Pair], alphas: int | str,
    splits: Sequence[str], beyond: Sequence[float],
) -> dict[Pair, list[LinearPath]]:  # fmt: skip
    """Look up the paths with both BatchNorm statistics, which the names of their splits include."""
    paths: dict[Pair, list[LinearPath]] = {pair: [] for pair in chosen}
    for split in splits:
        for kind in STATISTICS:
            seen = view.with_statistics(kind)
            found = _known(seen, points, chosen, alphas, [split], beyond, which=kind)
            for pair, many in found.items():
                paths[pair] += [replace(path, split=f"{split}, {kind}") for path in many]
    return paths


def _known(
    view: View, points: Mapping[str, Point], chosen: Sequence[Pair], alphas: int | str,
    splits: Sequence[str], beyond: Sequence[float], which: str = "",
) -> dict[Pair, list[LinearPath]]:  # fmt: skip
    """Look up the paths, and show a button that evaluates missing α values."""
    lines = [(points[a].mixture, points[b].mixture) for a, b in chosen]
    paths: dict[Pair, list[LinearPath]] = {pair: [] for pair in chosen}
    missing = examples = 0
    for split in splits:
        known = stored_lines(lines, view.evaluations, alphas_of(alphas), split=split, beyond=beyond)
        missing += known.missing
        # `missing` has the midpoints of the lines without a path.
        follow = EVALUATIONS_PER_LINE - 1 if alphas == "adaptive" else 0
        examples += (known.missing + follow * known.paths.count(None)) * len(view.task.split(split))
        for pair, path in zip(chosen, known.paths, strict=True):
            if path is not None:
                paths[pair].append(path)
    if missing:
        call = _call(points, chosen, alphas, splits, beyond)
        label = " → ".join(chosen[0]) if len(chosen) == 1 else f"{len(chosen)} pairs"
        where = splits[0] if len(splits) == 1 else f"{len(splits)} splits"
        where += f", {which}" if which else ""
        more = "at least " if alphas == "adaptive" else ""
        jobs.call_button(
            view,
            f"Run {more}{jobs.evaluations_text(missing)}{f' on {plain(where)}' if which else ''}",
            call, f"Evaluate {label} on {where}", key=f"evaluate-chosen-{where}",
            price=seconds(view.overview, examples), starts=True,
        )  # fmt: skip
    return paths


def _screened(
    view: View, points: Mapping[str, Point], chosen: Sequence[Pair], call: Paths
) -> tuple[Paths, dict[Pair, list[LinearPath]]]:
    """Look up the paths on the part of the splits that pairs are screened on.

    Returns:
        The call for them, without α values outside [0, 1], and the paths.
    """
    large = [s for s in call.splits if len(view.task.split(s)) >= 2 * summaries.SCREEN]
    call = replace(call, splits=tuple(large), beyond=(), part=summaries.SCREEN)
    found = {split: each for split, each in call.result(view).items() if any(each.paths)}
    call = replace(call, splits=tuple(found))
    paths: dict[Pair, list[LinearPath]] = {
        pair: [path for each in found.values() if (path := each.paths[index]) is not None]
        for index, pair in enumerate(chosen)
    }
    return call, paths


def _call(
    points: Mapping[str, Point], chosen: Iterable[Pair], alphas: int | str,
    splits: Sequence[str], beyond: Sequence[float],
) -> Paths:  # fmt: skip
    return Paths(
        pairs=tuple((points[a].end, points[b].end) for a, b in chosen),
        alphas=alphas,
        splits=tuple(splits),
        beyond=tuple(beyond),
    )


def _draw(
    view: View, points: Mapping[str, Point], paths: Mapping[Pair, Sequence[LinearPath]],
    call: Paths, *, both_statistics: bool,
) -> None:  # fmt: skip
    unit = view.task.score_unit
    drawn = {pair: many for pair, many in paths.items() if many}
    call = replace(call, pairs=tuple((points[a].end, points[b].end) for a, b in drawn))
    code = snippets.curves(view, call, both_statistics=both_statistics)
    figure = figures.path_curves(
        drawn,
        **view.task.labels.for_figures,
    )
    display.show_figure(
        figure,
        "curves",
        paths_table(drawn),
        code,
        title="Linear interpolation",
        about=exports.sizes(view.task, *call.splits, part=call.part),
    )
    if call.part is not None:
        st.caption(
            f"**Preliminary:** screened on n = {call.part} examples of "
            f"{display.listed(call.splits)}. The button evaluates all of them."
        )
    table = barriers_table(drawn, score_unit=unit)
    st.dataframe(table, hide_index=True, column_config=_columns(view.task.labels))
    st.caption(
        "Barriers are above the chord; *over mean of ends* is the definition of Frankle et al. "
        "2020. The shape of a path does not predict generalization (Vlaar & Frankle 2022), and "
        "adaptive sampling can miss peaks narrower than about 0.3 in α."
    )


def _columns(labels: Labels) -> dict[str, ColumnConfig]:
    number, unit = st.column_config.NumberColumn, labels.score_unit
    of_scores = "percent" if unit.is_share else "%.4g"
    what = "error" if unit.counts_errors else "score"  # as in the table
    named = "error" if unit.counts_errors else labels.score_name
    return {
        "points": number("α values", help="Number of α values evaluated, including both ends"),
        "loss barrier": number(format="%.4f"),
        "up to": number("upper bound", format="%.4f", help=_BOUND),
        "at α": number("α at barrier", format="%.3f"),
        f"{what} barrier": number(f"{named} barrier", format=of_scores, help="Above the chord"),
        f"{what} up to": number(f"{named} upper bound", format=of_scores, help=_BOUND),
        f"{what} over mean of ends": number(
            f"{named} over mean of ends",
            format=of_scores,
            help="Frankle et al. 2020: counts half the difference between unequal ends",
        ),
        "midpoint advantage": number(
            "midpoint gain",
            format=of_scores,
            help="Score of the midpoint minus the mean of the ends",
        ),
    }


def _add_pair(points: Mapping[str, Point]) -> None:
    ends = list(points)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = st.selectbox("From", ends, index=0)
        second = st.selectbox("To", ends, index=min(1, len(ends) - 1))
        if st.button("Add curve", disabled=first == second, icon=":material/add:"):
            if (first, second) not in st.session_state["pairs"]:
                st.session_state["pairs"] = [*st.session_state["pairs"], (first, second)]
            st.rerun()


def _remove_pairs(chosen: list[Pair]) -> None:
    kept = st.pills(
        "Pairs",
        chosen,
        selection_mode="multi",
        default=chosen,
        format_func=lambda pair: f"{plain(pair[0])} → {plain(pair[1])}",
        label_visibility="collapsed",
        key=f"pairs-{chosen}",
        help="Click to remove.",
    )
    if len(kept) < len(chosen):
        st.session_state["pairs"] = [pair for pair in chosen if pair in kept]
        pair_matrix.forget_clicks()
        st.rerun()


if __name__ == "__main__":
    main(st.session_state["view"])
