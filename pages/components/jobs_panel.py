"""The jobs in the sidebar, each with a button that opens the page of its result.

The panel runs the page again when results arrive.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from pages.components import header, jobs, settings, state
from pages.components.display import plain
from pages.components.streamlit_internals import is_late, rerun_after_this
from soupcore.jobs import Job, State
from soupcore.sweeps.snapshots import snapshots_to_text

_POLL = 0.5  # seconds between look-ups of the queue while a job is unfinished
_REDRAW = 2.0  # seconds between redraws of a page while results arrive
_REST = 2  # minimal pause between redraws, as a multiple of the time that the page took to draw
_SHOWN = 6  # finished jobs
_LONG = 10.0  # seconds; the end of a longer job is shown in the title of the browser's tab

_ICONS = {
    State.QUEUED: ":material/schedule:",
    State.RUNNING: ":material/progress_activity:",
    State.CANCELLING: ":material/cancel:",
    State.CANCELLED: ":material/block:",
    State.FAILED: ":material/error:",
    State.DONE: ":material/check_circle:",
}

_PAGES = {
    "open": "overview.py",
    "analyze": "overview.py",
    "timed passes": "overview.py",
    "evaluate": "ingredients.py",
    "intervals": "ingredients.py",
    "breakdown": "ingredients.py",
    "soup": "soups.py",
    "soups": "soups.py",
    "scores": "soup.py",
    "mixture": "soup.py",
    "preview": "soups.py",
    "curve": "soups.py",
    "weights": "soup.py",
    "push": "soup.py",
    "statistics": "soup.py",
    "ensemble": "compare.py",
    "greedy ensemble": "compare.py",
    "shown examples": "compare.py",
    "calibration": "soup.py",
    "attribution": "soup.py",
    "best ingredient bias": "soup.py",
    "optimism": "soup.py",
    "search optimism": "soup.py",
    "orders": "soup.py",
    "paths": "connectivity.py",
    "line": "connectivity.py",
    "known pairs": "connectivity.py",
    "plane": "plane.py",
    "geometry": "geometry.py",
    "two-model ensembles": "soup_vs_ensemble.py",
    "two-model theory": "soup_vs_ensemble.py",
}
# Sections of the page of a soup; those that are not here lead to its summary.
_SECTIONS = {
    "weights": "download",
    "push": "download",
    "calibration": "evidence",
    "attribution": "evidence",
    "best ingredient bias": "evidence",
    "optimism": "evidence",
    "search optimism": "evidence",
    "orders": "evidence",
}


def show() -> None:
    """Show the latest jobs, and update them while one is unfinished."""
    st.subheader("Jobs", divider="gray")
    recent = _recent()
    header.show_ended(_ended(recent))
    st.session_state["drawn"] = time.monotonic()
    st.session_state["jobs_drawn"] = _progress(recent)
    active = any(job.is_unfinished for job in recent)
    st.fragment(_panel, run_every=_POLL if active else None)()


def redraw_if_outdated() -> None:
    """Run the page again if a job began or ended after the panel was drawn; call it last."""
    st.session_state["took"] = time.monotonic() - st.session_state["drawn"]
    awaits = st.session_state.pop("awaits_result", False)
    if awaits or _begun_or_ended(_progress(_recent())):
        rerun_after_this()


def by_sweep(recent: Sequence[Job], current: str) -> dict[str, list[Job]]:
    """Return jobs by the folder of their sweep, in their order; those of the current one first."""
    groups: dict[str, list[Job]] = {current: []}
    for job in recent:
        groups.setdefault(job.request.get("sweep", ""), []).append(job)
    return groups


def page_of(kind: str, request: Mapping[str, Any]) -> str:
    """Return the file of the page that shows the result of a job."""
    if kind == "paths" and request.get("alphas") == jobs.MIDPOINT_ALPHAS:
        return "soup_vs_ensemble.py"
    if kind == "paths" and len(request.get("splits", ())) > 1:
        return "from_base.py"
    return _PAGES.get(kind, "overview.py")


def _ended(recent: list[Job]) -> list[Job]:
    """Return the long jobs that ended since the user last did something on the pages."""
    known: dict[int, tuple[bool, int]] = st.session_state.get("jobs_drawn", {})
    unseen: set[int] = st.session_state.get("jobs_unseen", set())
    unseen |= {job.id for job in recent if known.get(job.id, (False, 0))[0] and _is_long(job)}
    if not st.session_state.pop("is_own_run", False):
        unseen = set()  # the user started this run, and sees the jobs
    st.session_state["jobs_unseen"] = unseen
    return [job for job in recent if job.id in unseen]


def _is_long(job: Job) -> bool:
    """Whether a job took so long that the user may have left the page, and was not cancelled."""
    if job.state not in (State.DONE, State.FAILED) or not job.started or not job.finished:
        return False
    return job.finished - job.started >= _LONG


def _panel() -> None:
    recent = _recent()
    if not recent:
        st.caption("No jobs yet. Long computations appear here and continue if you reload.")
    with st.container(key="jobs"):
        _list(recent)
    now = _progress(recent)
    results_came = now != st.session_state["jobs_drawn"]
    pause = max(_REDRAW, _REST * st.session_state.get("took", 0))
    due = time.monotonic() - st.session_state["drawn"] > pause
    if is_late() or _begun_or_ended(now) or (results_came and due):
        rerun_after_this()


def _list(recent: Sequence[Job]) -> None:
    current = st.session_state["sweep"]
    for folder, jobs_of_sweep in by_sweep(recent, current).items():
        if folder != current and folder:
            st.caption(f":material/folder: **{plain(state.path_label(folder))}**")
        for job in jobs_of_sweep:
            if job.is_unfinished:
                _unfinished(job)
            else:
                _finished(job)


def _unfinished(job: Job) -> None:
    with st.container(border=True):
        st.markdown(f"{_ICONS[State(job.state)]} **{plain(job.title)}**")
        st.progress(job.fraction, text=_status(job))
        if job.state != State.CANCELLING:
            st.button(
                "Cancel", key=f"cancel-{job.id}", on_click=jobs.cancel, args=(job,),
                disabled=state.store().is_read_only,
            )  # fmt: skip


def _finished(job: Job) -> None:
    is_read_only = state.store().is_read_only
    with st.container(gap="xxsmall"):
        st.caption(f"{_ICONS[State(job.state)]} {plain(job.title)} · {job.state}")
        if job.error:
            st.caption(plain(job.error))
        with st.container(horizontal=True, gap="small"):
            closed = _why_closed(job)
            if st.button(
                "Show", key=f"show-{job.id}", type="tertiary", disabled=bool(closed),
                icon=":material/arrow_forward:", help=closed or None,
            ):  # fmt: skip
                _open_result(job)
            if job.state not in (State.FAILED, State.CANCELLED):
                return
            label = "Retry" if job.state == State.FAILED else "Resume"
            st.button(
                label, key=f"resume-{job.id}", type="tertiary", on_click=jobs.resume, args=(job,),
                icon=":material/replay:", disabled=is_read_only,
            )  # fmt: skip
            st.button(
                "Dismiss", key=f"dismiss-{job.id}", type="tertiary", on_click=jobs.dismiss,
                args=(job,), icon=":material/close:", disabled=is_read_only,
            )  # fmt: skip


def _status(job: Job) -> str:
    if job.state != State.RUNNING:
        return plain(state.supervisor().waits_for(job) or job.state)
    left = job.seconds_left(time.time())
    return f"{job.fraction:.0%}" + (f" · {_duration(left)} left" if left is not None else "")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _recent() -> list[Job]:
    return state.supervisor().queue.overview(_SHOWN)


def _progress(jobs: list[Job]) -> dict[int, tuple[bool, int]]:
    return {job.id: (job.is_unfinished, job.done) for job in jobs}


def _begun_or_ended(now: dict[int, tuple[bool, int]]) -> bool:
    drawn = st.session_state["jobs_drawn"]
    return {i: now[i][0] for i in now} != {i: drawn[i][0] for i in drawn}


def _why_closed(job: Job) -> str:
    """Return why the sweep of a job cannot be opened; "" if it can."""
    folder = job.request.get("sweep", st.session_state["sweep"])
    if not settings.current().allows(Path(folder)):
        return "Its sweep is not in a folder of this server (--root)."
    return "" if Path(folder).is_dir() else "The folder of its sweep is gone."


def _open_result(job: Job) -> None:
    """Show the sweep of a job, and what it computed, on its page."""
    request = job.request
    _show_sweep(request)
    soup = (job.result or job.partial or {}).get("soup") or request.get("soup")
    if isinstance(soup, str):
        st.session_state["soup"] = soup
    if job.kind in ("soup", "soups"):
        first = request["recipe"] if job.kind == "soup" else request["recipes"][0]["recipe"]
        st.session_state.update(building=job.id, recipe=first, tab="")
    st.session_state["section"] = _SECTIONS.get(job.kind, "")
    st.switch_page(page_of(job.kind, request))


def _show_sweep(request: Mapping[str, Any]) -> None:
    folder = request.get("sweep", st.session_state["sweep"])
    offered = settings.current().tasks_for(folder)
    task = request.get("task", st.session_state["task"])
    if folder != st.session_state["sweep"]:
        state.choose_sweep(folder, task if task in offered else settings.current().task_of(folder))
    elif task != st.session_state["task"] and task in offered:
        state.choose_task(task)
    if "weights" in request:
        st.session_state["weights"] = request["weights"]
        st.session_state["snapshot"] = snapshots_to_text(request.get("snapshot", ""))
