"""The sweeps of the workspace with their verdicts; a click opens one."""

import time
from pathlib import Path

import streamlit as st

from pages.components import settings, state, tasks
from pages.components.display import VERDICT_ICONS, plain
from soupcore.display import counted
from soupcore.jobs.known_sweeps import KnownSweep, KnownVerdict, known_sweeps

_COLUMNS = (4, 7, 2)  # relative widths
_MOST_UNFILTERED = 10
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def main() -> None:
    st.header("Sweeps")
    found = known_sweeps(state.store())
    st.caption(
        "The sweeps of this workspace, the last changed first. Verdicts are the stored ones: "
        "nothing is opened or computed until you open a sweep."
    )
    if not found:
        st.info("No sweeps yet. Open one from the sidebar.", icon=":material/folder_open:")
    if len(found) > _MOST_UNFILTERED:
        text = st.text_input(
            "Filter", placeholder="Filter by name", label_visibility="collapsed", width=320
        )
        found = [each for each in found if text.strip().lower() in _matched(each)]
        if not found:
            st.caption("No sweep matches the filter.")
    with st.container(gap="xsmall"):
        for number, each in enumerate(found):
            with st.container(border=True):
                _row(each, number)


def _matched(known: KnownSweep) -> str:
    task = known.verdict.task if known.verdict else ""
    return f"{state.path_label(known.folder)} {known.folder} {task}".lower()


def _row(known: KnownSweep, number: int) -> None:
    name, verdict, changed = st.columns(_COLUMNS, vertical_alignment="center")
    problem = _problem(known.folder)
    with name, st.container(gap="xxsmall"):
        if st.button(
            f"**{plain(state.path_label(known.folder))}**",
            key=f"open-{number}",
            type="tertiary",
            icon=":material/folder_off:" if problem else ":material/folder:",
            disabled=bool(problem),
            help=plain(known.folder),
        ):
            _open(known)
        st.caption(_about(known))
    with verdict, st.container(gap="xxsmall"):
        if problem:
            st.markdown(f":material/warning: {problem}")
        if known.verdict is not None:
            _verdict(known.verdict)
        elif not problem:
            st.caption("Not evaluated yet.")
    with changed:
        st.caption(ago(time.time() - known.changed))


def _problem(folder: str) -> str:
    """Return why a sweep cannot be opened; "" if it can."""
    if not settings.current().allows(Path(folder)):
        return "Not in a folder of this server (--root)."
    return "" if Path(folder).is_dir() else "The folder is gone. Results are still stored."


def _about(known: KnownSweep) -> str:
    count = known.ingredients
    parts = [] if count is None else [counted(count, "ingredient")]
    if known.verdict is not None:
        parts.append(f"task {plain(tasks.label(known.verdict.task))}")
    return " · ".join(parts) or "Never read"


def _verdict(verdict: KnownVerdict) -> None:
    icon = VERDICT_ICONS[verdict.outcome]
    if not verdict.best:
        st.markdown(f"{icon} {plain(verdict.sentence)}")
        return
    best = f"Best run: {plain(verdict.best)}"
    if not verdict.soup:
        st.markdown(f"{icon} {best}")
        st.caption("No soup has been evaluated yet.")
        return
    gain = f": **{plain(verdict.gain)}**" if verdict.gain else ""
    st.markdown(f"{icon} {plain(verdict.soup)}{gain}")
    details = [f"95 % interval {plain(verdict.interval)}"] if verdict.interval else []
    details += [f"n = {verdict.n:,}"] if verdict.n > 1 else []
    where = f"{plain(verdict.metric)} on {plain(verdict.split)}"
    about = f" ({', '.join(details)})" if details else ""
    st.caption(f"Difference in {where}{about}. {best}.")


def _open(known: KnownSweep) -> None:
    offered = settings.current().tasks_for(known.folder)
    task = known.verdict.task if known.verdict else ""
    task = task if task in offered else settings.current().task_of(known.folder)
    state.choose_sweep(known.folder, task)
    st.switch_page("overview.py")


def ago(seconds: float) -> str:
    """Return how long ago something happened, in the largest whole unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{counted(count, unit)} ago"
    return "just now"


if __name__ == "__main__":
    main()
