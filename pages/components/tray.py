"""The jobs in the sidebar: progress, time left, cancel, resume; and the redrawing of the page."""

import time

import streamlit as st

from pages.components import redraw, services
from pages.components.text import plain
from soupcore.jobs import Job, State

_POLL = 0.5  # seconds between looks at the queue while something is under way
_REDRAW = 2.0  # seconds between redraws of a page whose results are still coming
_REST = 2  # times as long as drawing took, at least: a matrix of thousands of pairs takes a second
_SHOWN = 6  # jobs that ended

_ICONS = {
    State.QUEUED: ":material/schedule:",
    State.RUNNING: ":material/progress_activity:",
    State.CANCELLING: ":material/cancel:",
    State.CANCELLED: ":material/block:",
    State.FAILED: ":material/error:",
    State.DONE: ":material/check_circle:",
}


def show() -> None:
    """Show the last jobs, and look at them again and again while one is under way."""
    st.subheader("Jobs", divider="gray")
    recent = _recent()
    st.session_state["drawn"] = time.monotonic()
    st.session_state["jobs_drawn"] = _progress(recent)
    active = any(job.is_unfinished for job in recent)
    st.fragment(_tray, run_every=_POLL if active else None)()


def redraw_if_outdated() -> None:
    """Run the page again if a job began or ended after the tray was drawn; call it last."""
    st.session_state["took"] = time.monotonic() - st.session_state["drawn"]
    if _begun_or_ended(_progress(_recent())):
        redraw.after_this_run()


def _tray() -> None:
    services.supervisor().look_after()
    recent = _recent()
    if not recent:
        st.caption("Nothing has run yet. Long work shows here; it survives a reload.")
    for job in recent:
        if job.is_unfinished:
            _under_way(job)
        else:
            _ended(job)
    now = _progress(recent)
    results_came = now != st.session_state["jobs_drawn"]
    pause = max(_REDRAW, _REST * st.session_state.get("took", 0))
    due = time.monotonic() - st.session_state["drawn"] > pause
    if redraw.is_late() or _begun_or_ended(now) or (results_came and due):
        redraw.after_this_run()


def _under_way(job: Job) -> None:
    with st.container(border=True):
        st.markdown(f"{_ICONS[State(job.state)]} **{job.title}**")
        st.progress(job.fraction, text=_status(job))
        if job.state != State.CANCELLING:
            cancel = services.supervisor().queue.cancel
            st.button("Cancel", key=f"cancel-{job.id}", on_click=cancel, args=(job.id,))


def _ended(job: Job) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{_ICONS[State(job.state)]} {job.title} · {job.state}")
        if job.state in (State.FAILED, State.CANCELLED):
            resume = services.supervisor().resume
            st.button(
                "Resume", key=f"resume-{job.id}", type="tertiary", on_click=resume, args=(job.id,)
            )
    if job.error:
        st.caption(f":red[{plain(job.error)}]")


def _status(job: Job) -> str:
    if job.state != State.RUNNING:
        return job.state
    left = job.seconds_left(time.time())
    return f"{job.fraction:.0%}" + (f" · {_duration(left)} left" if left is not None else "")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _recent() -> list[Job]:
    return services.supervisor().queue.overview(_SHOWN)


def _progress(jobs: list[Job]) -> dict[int, tuple[bool, int]]:
    return {job.id: (job.is_unfinished, job.done) for job in jobs}


def _begun_or_ended(now: dict[int, tuple[bool, int]]) -> bool:
    drawn = st.session_state["jobs_drawn"]
    return {i: now[i][0] for i in now} != {i: drawn[i][0] for i in drawn}
