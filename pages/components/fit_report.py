"""The fit report of a sweep, and the choice of its snapshots and weight sets."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd
import streamlit as st
from natsort import natsorted

from pages.components import state
from pages.components.display import plain
from pages.components.state import View
from soupcore import Finding, FitReport
from soupcore.display import counted
from soupcore.sweeps.findings import Severity, SnapshotChoice
from soupcore.sweeps.snapshots import EVERY, OTHERS, snapshots_from_text, snapshots_to_text

_RULES = {
    "": "each tool's choice",
    "best": "best",
    "last": "last",
    "final": "final",
    EVERY: "every one, as an ingredient each",
}
_BADGES: dict[Severity, str] = {
    "misfit": ":red-badge[excluded]",
    "warning": ":orange-badge[warning]",
    "note": ":gray-badge[note]",
}
_MOST_ROWS = 8  # a longer table scrolls
_MOST_OTHERS = 20  # other files of the folder that are listed by name
_HEIGHT = 600  # pixels


def show(fit: FitReport) -> None:
    """Show the fit report, if it has any content."""
    if not fit.findings and not fit.ignored and not fit.others:
        return
    with st.expander(_fit_title(fit), icon=":material/rule:", expanded=bool(fit.misfits)):
        if fit.findings:
            _fit_table(fit)
        st.caption(" ".join([*_compared_with(fit), *_ignored(fit), *_others(fit)]))


def choose_weights(view: View) -> None:
    """Let the user choose the weight set, if checkpoints hold several, such as EMA weights."""
    titles = [found.title for found in view.sweep.weight_sets]
    if len(titles) < 2:
        return
    taken = _weights_in_use(view)
    default = next(iter(set(taken))) if len(set(taken)) == 1 else None
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = st.segmented_control(
            "Weights",
            titles,
            default=default,
            format_func=plain,
            key=f"weights-{view.folder}-{view.weights}",
            label_visibility="collapsed",
        )
        why = "your choice" if view.weights else "the writing framework's default"
        st.caption(
            f"{len(taken)} of {len(view.sweep)} checkpoints contain {plain(' and '.join(titles))}. "
            f"Using {plain(', '.join(dict.fromkeys(taken)))} ({why})."
        )
    if chosen and chosen != default:
        state.choose_weights(chosen)
        st.rerun()


def choose_snapshots(fit: FitReport) -> None:
    """Show which snapshots of runs are used, and let the user choose others, if there are any."""
    if not fit.snapshots:
        return
    text = st.session_state["snapshot"]
    chosen_before = snapshots_from_text(text)
    if isinstance(chosen_before, str):
        each = {OTHERS: chosen_before} if chosen_before else {}
    else:
        each = dict(chosen_before)
    names = {name for run in fit.snapshots for name in run.names}
    options = [*_RULES, *(name for name in natsorted(names) if name not in _RULES)]
    current = each.get(OTHERS, "")
    options += [current] if current not in options else []
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen: str | None = st.selectbox(
            "Snapshot of each run",
            options,
            index=options.index(current),
            format_func=_option,
            key=f"snapshot-{st.session_state['sweep']}-{text}",
            width=280,
        )
        with st.popover("One run", help="Choose another snapshot of one run."):
            of_one = _of_one_run(fit.snapshots, each)
        st.caption(_used(fit.snapshots))
    if of_one is not None:
        each = of_one
    elif chosen is not None and chosen != current:
        each = each | {OTHERS: chosen}
    else:
        return
    each = {run: name for run, name in each.items() if name}
    only = each.get(OTHERS, "") if each.keys() <= {OTHERS} else None
    state.choose_snapshot(snapshots_to_text(each if only is None else only))
    st.rerun()


def _fit_title(fit: FitReport) -> str:
    warned = {f.ingredient for f in fit.findings if f.severity == "warning"} - fit.misfits
    if not fit.misfits and not warned:
        return "Fit report: all checkpoints compatible"
    warnings = counted(len(warned), "warning")
    return f"Fit report: {len(fit.misfits)} excluded, {warnings}"


def _fit_table(fit: FitReport) -> None:
    rows = sorted(fit.grouped, key=lambda row: [*_BADGES].index(row[1].severity))
    # `st.table` wraps its cells; `st.dataframe` would cut off the instructions.
    st.table(
        pd.DataFrame(
            {
                "": _BADGES[finding.severity],
                "checkpoint": ", ".join(f"**{plain(name)}**" for name in names),
                "problem": plain(_sentence(finding)),
                "how to fix": plain(finding.way_out),
            }
            for names, finding in rows
        ),
        border="horizontal",
        hide_index=True,
        height=_HEIGHT if len(rows) > _MOST_ROWS else "content",
    )


def _sentence(finding: Finding) -> str:
    if finding.tensor and finding.tensor not in finding.problem:
        return f"{finding.tensor}: {finding.problem}"
    first, _, _ = finding.problem.partition(" ")
    if "." in first or "_" in first:  # the name of a file or a tensor keeps its case
        return finding.problem
    return finding.problem[:1].upper() + finding.problem[1:]


def _compared_with(fit: FitReport) -> list[str]:
    return [f"All tensors compared with {plain(fit.reference)}."] if fit.reference else []


def _ignored(fit: FitReport) -> list[str]:
    names = Counter(PurePosixPath(path).name for path in fit.ignored)
    shown = [plain(name) + (f" ({n} times)" if n > 1 else "") for name, n in names.items()]
    if not shown:
        return []
    return [f"Ignored trainer files: {', '.join(shown)}."]


def _others(fit: FitReport) -> list[str]:
    if not fit.others:
        return []
    shown = ", ".join(plain(name) for name in fit.others[:_MOST_OTHERS])
    rest = len(fit.others) - _MOST_OTHERS
    more = f" and {rest:,} more" if rest > 0 else ""
    return [f"Not checkpoints, by name and first bytes: {shown}{more}."]


def _weights_in_use(view: View) -> list[str]:
    """Return the title of the weight set in use, for each checkpoint that holds several."""
    return [
        next(found.title for found in checkpoint.weight_sets if found.name == checkpoint.weights)
        for checkpoint in (i.checkpoint for i in view.sweep.ingredients.values())
        if checkpoint.weight_sets
    ]


def _option(name: str) -> str:
    return _RULES.get(name, name)


def _of_one_run(runs: Sequence[SnapshotChoice], each: dict[str, str]) -> dict[str, str] | None:
    """Return the choices with another one for a run; None before a click."""
    by_name = {run.run: run for run in runs}
    run: str = st.selectbox("Run", [*by_name])
    options = ["", *by_name[run].names, EVERY]
    current = each.get(run, "")
    snapshot = st.selectbox(
        "Snapshot",
        options,
        index=options.index(current) if current in options else 0,
        format_func=lambda name: _option(name) if name else "like the others",
        key=f"snapshot-of-{run}",
    )
    return each | {run: snapshot} if st.button("Use it", type="primary") else None


def _used(runs: Sequence[SnapshotChoice]) -> str:
    counts = Counter(", ".join(run.taken) or "none, as it is unclear which" for run in runs)
    used = "; ".join(f"{plain(names)} ({count})" for names, count in counts.most_common(3))
    more = "; …" if len(counts) > 3 else ""
    tools = ", ".join(dict.fromkeys(run.tool for run in runs if run.tool))
    of_tools = f" of {plain(tools)}" if tools else ""
    plural = "run has" if len(runs) == 1 else "runs have"
    return f"{len(runs)} {plural} several snapshots{of_tools}. Used: {used}{more}."
