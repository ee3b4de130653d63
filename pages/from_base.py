"""Paths from the base, in the plane of scores: on report, and under shift."""

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from pages.components import asking, connectivity_snippets, export, points, snippets
from pages.components.points import Point
from pages.components.state import View
from soupcore import figures
from soupcore.connectivity import stored_lines

ALPHAS = 11
_FIRST = 4  # ends drawn where none are selected


def main(view: View) -> None:
    st.header("From the base")
    reports, shifts = view.task.splits_with_role("report"), view.task.splits_with_role("shift")
    if view.sweep.base is None or not reports or not shifts:
        st.info(
            "Paths from the base take a base in the sweep, and a report split and shifts in the "
            "task; one of these is not there.",
            icon=":material/info:",
        )
        return
    st.caption(
        "(1−α)·base + α·end for α from 0 to 1 by 0.1, by its score on "
        f"**{reports[0]}** and the mean of its scores under **{len(shifts)} shifts** "
        "(WiSE-FT, arXiv:2109.01903). Choose an α on select only."
    )
    known = points.of(view)
    ends = [name for name in known if known[name].kind != "base"]
    chosen = st.multiselect(
        "Ends", ends, default=st.session_state["selection"] or ends[:_FIRST],
        key=f"ends-{st.session_state['selection']}",
        help="Ingredients and soups; the selection of the other pages, where there is one.",
    )  # fmt: skip
    if not chosen:
        st.info("Choose at least one end.", icon=":material/grocery:")
        return
    tables = _tables(view, known, chosen, reports[0], shifts)
    code = connectivity_snippets.from_base(view, known, chosen, ALPHAS)
    if tables:
        figure = figures.from_base(tables, view.colours, score_name=view.task.score_name)
        everything = pd.concat(tables, names=["end", None]).reset_index(level="end")
        export.show(figure, "from-base", everything, code)
        st.caption("■ the base · large dots the ends; a curve that bulges to the upper right has "
                   "mixtures that are better on both.")  # fmt: skip
    snippets.show(code)


def _tables(
    view: View, known: Mapping[str, Point], chosen: Sequence[str], report: str,
    shifts: Sequence[str],
) -> dict[str, pd.DataFrame]:  # fmt: skip
    base = view.sweep.base
    if base is None:
        return {}
    lines = [(base, known[name].mixture) for name in chosen]
    found = {split: stored_lines(lines, view.evaluator, ALPHAS, split=split) for split in
             [report, *shifts]}  # fmt: skip
    missing = sum(lines_on.missing for lines_on in found.values())
    if missing:
        request = view.request | {
            "pairs": [[base.name, known[name].end] for name in chosen],
            "alphas": ALPHAS,
            "splits": [report, *shifts],
        }
        asking.button(
            f"Evaluate {asking.points(missing)}", "paths",
            f"Evaluate {len(chosen)} lines from the base", request, key="evaluate",
        )  # fmt: skip
    tables = {}
    for index, name in enumerate(chosen):
        on_report = found[report].paths[index]
        under_shift = [path for split in shifts if (path := found[split].paths[index])]
        if on_report is not None and len(under_shift) == len(shifts):
            shift = sum(path.scores for path in under_shift) / len(shifts)
            tables[name] = pd.DataFrame(
                {"alpha": on_report.alphas, "report": on_report.scores, "shift": shift}
            )
    if not tables:
        st.info("Nothing is known of these paths yet; they appear as they are evaluated.",
                icon=":material/show_chart:")  # fmt: skip
    return tables


main(st.session_state["view"])
