"""Paths from the base to other models, by accuracy and robustness (WiSE-FT)."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from pages.components import display, exports, jobs, scores, snippets, tasks
from pages.components.display import plain
from pages.components.state import View
from soupcore import figures
from soupcore.calls import Paths
from soupcore.display import counted
from soupcore.figures.tables import robustness_tables
from soupcore.plan import seconds

ALPHAS = 11
_FIRST = 4  # number of ingredients drawn by default


def main(view: View) -> None:
    st.header("Paths")
    if not view.has_task:
        tasks.show_needed("This page")
        return
    reports, shifts = view.task.splits_with_role("report"), view.task.splits_with_role("shift")
    if view.sweep.base is None or not reports or not shifts:
        missing = {
            "a base checkpoint": view.sweep.base is None,
            "a test split (role report)": not reports,
            "shifted splits (role shift)": not shifts,
        }
        st.info(
            "This page needs a base checkpoint in the sweep, and a test split and at least one "
            "shifted split in the task. Missing: "
            f"{', '.join(name for name, is_missing in missing.items() if is_missing)}.",
            icon=":material/info:",
        )
        return
    st.caption(
        "Interpolates from the base to each model, (1−α)·base + α·model with α = 0, 0.1, …, 1, and "
        f"plots test {plain(view.task.score_name)} (**{plain(reports[0])}**) against the mean over "
        f"**{counted(len(shifts), 'shift')}** (WiSE-FT, arXiv:2109.01903). "
        f"Choose α on {plain(view.task.select)}, not here."
    )
    known = scores.points(view)
    ends = [name for name in known if known[name].kind != "base"]
    proposed = st.session_state["selection"] or view.overview.ranked[:_FIRST]
    chosen = st.multiselect(
        "Models", ends, default=proposed, key=f"ends-{proposed}",
        help="Ingredients and soups. Defaults to the selection, or else to the best on "
        f"{plain(view.task.select)}.",
    )  # fmt: skip
    if not chosen:
        st.info("Select at least one model.", icon=":material/grocery:")
        return
    call = Paths(
        pairs=tuple((view.sweep.base.name, known[name].end) for name in chosen),
        alphas=ALPHAS,
        splits=(reports[0], *shifts),
    )
    code = snippets.from_base(view, call, chosen)
    tables = _tables(view, chosen, call)
    if tables:
        figure = figures.from_base(
            tables,
            figures.curve_colours(chosen, view.sweep.ingredients),
            score_name=view.task.score_name,
            score_unit=view.task.score_unit,
        )
        everything = pd.concat(tables, names=["end", None]).reset_index(level="end")
        display.show_figure(
            figure,
            "from-base",
            everything,
            code,
            title="Paths from the base",
            about=exports.sizes(view.task, reports[0], "shift"),
        )
        better = "upper right" if view.task.score_unit.sign > 0 else "lower left"
        st.caption(
            f"■ base · ● model (α = 1). A curve that bulges to the {better} passes through "
            "interpolations better on both axes than either end."
        )
    snippets.show(code)


def _tables(view: View, chosen: Sequence[str], call: Paths) -> dict[str, pd.DataFrame]:
    """Return the tables of the paths that are evaluated, and show a button for the others."""
    found = call.result(view)
    missing = sum(lines_on.missing for lines_on in found.values())
    if missing:
        examples = sum(
            lines_on.missing * len(view.task.split(split)) for split, lines_on in found.items()
        )
        jobs.call_button(
            view, f"Run {jobs.evaluations_text(missing)}", call,
            f"Evaluate {len(chosen)} paths from the base", key="evaluate",
            price=seconds(view.overview, examples), starts=True,
        )  # fmt: skip
    by_name = {
        ("base", name): [on_split.paths[index] for on_split in found.values()]
        for index, name in enumerate(chosen)
    }
    tables = robustness_tables(
        {pair: [p for p in many if p] for pair, many in by_name.items() if None not in many}
    )
    if not tables:
        st.info("These paths have not been evaluated yet. Curves appear as results arrive.",
                icon=":material/show_chart:")  # fmt: skip
    return tables


if __name__ == "__main__":
    main(st.session_state["view"])
