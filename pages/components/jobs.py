"""Long work as the pages see it: submit, watch, cancel, resume."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from pages.components import services
from soupcore.jobs import Job, State

_POLL = 0.5  # seconds between looks at the queue while something is under way
_REDRAW = 2.0  # seconds between redraws of a page whose results are still coming
_SHOWN = 6  # jobs in the tray

_ICONS = {
    State.QUEUED: ":material/schedule:",
    State.RUNNING: ":material/progress_activity:",
    State.CANCELLING: ":material/cancel:",
    State.CANCELLED: ":material/block:",
    State.FAILED: ":material/error:",
    State.DONE: ":material/check_circle:",
}


def begin() -> None:
    """Note what the jobs are as the page begins to draw, to tell later what it does not show."""
    st.session_state["drawn"] = time.monotonic()
    st.session_state["jobs_drawn"] = _progress(services.supervisor().queue.recent(_SHOWN))


def submit(kind: str, title: str, request: Mapping[str, Any]) -> int:
    """Add a job; the tray shows it from the next run on."""
    return services.supervisor().submit(kind, title, request)


def settle(kind: str, title: str, request: Mapping[str, Any]) -> Job | None:
    """Add a job in place of this session's last one of the kind: a slider has moved on.

    Returns:
        The job where it failed, so that it is not asked for again and again.
    """
    slot = f"settling-{kind}"
    last = get(st.session_state[slot]) if slot in st.session_state else None
    if last is not None and last.request == dict(request):
        if last.state == State.FAILED:
            return last
    elif last is not None:
        services.supervisor().queue.cancel(last.id)
    st.session_state[slot] = submit(kind, title, request)
    return None


def get(job_id: int) -> Job | None:
    """Return a job by its id."""
    return services.supervisor().queue.get(job_id)


def unfinished(kind: str, **request: Any) -> Job | None:
    """Return the job of a kind that is under way, if its request says this."""
    for job in services.supervisor().queue.unfinished(kind):
        if all(job.request.get(name) == value for name, value in request.items()):
            return job
    return None


def open_sweep(folder: str, label: str) -> None:
    """Have the checkpoints of the sweep read once, and say so meanwhile."""
    last = next(
        (
            job
            for job in services.supervisor().queue.recent()
            if job.kind == "open" and job.request["sweep"] == folder
        ),
        None,
    )
    st.header(label)
    if last is not None and last.state in (State.FAILED, State.CANCELLED):
        st.error(last.error or "Reading was cancelled.", icon=":material/error:")
        if st.button("Read the checkpoints again"):
            submit("open", f"Read {label}", {"sweep": folder})
            st.rerun()
        return
    st.info(
        "Reading every checkpoint once, to know its digest and whether its values are finite. "
        "The next time this sweep opens at once.",
        icon=":material/hourglass_top:",
    )
    submit("open", f"Read {label}", {"sweep": folder})


def tray() -> None:
    """Show the jobs under way and the last ones, and redraw the page as results come."""
    st.subheader("Jobs", divider="gray")
    active = bool(services.supervisor().queue.unfinished())
    st.fragment(_tray, run_every=_POLL if active else None)()


def _tray() -> None:
    supervisor = services.supervisor()
    supervisor.look_after()
    recent = supervisor.queue.recent(_SHOWN)
    if not recent:
        st.caption("Nothing has run yet. Long work shows here; it survives a reload.")
    for job in recent:
        _entry(job)
    _redraw_when_due(recent)


def _entry(job: Job) -> None:
    icon = _ICONS[State(job.state)]
    if not job.is_unfinished:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"{icon} {job.title} · {job.state}")
            if job.state in (State.FAILED, State.CANCELLED) and st.button(
                "Resume", key=f"resume-{job.id}", type="tertiary"
            ):
                submit(job.kind, job.title, job.request)
                st.rerun()
        if job.error:
            st.caption(f":red[{job.error}]")
        return
    with st.container(border=True):
        st.markdown(f"{icon} **{job.title}**")
        st.progress(job.fraction, text=_status(job))
        if job.state != State.CANCELLING and st.button("Cancel", key=f"cancel-{job.id}"):
            services.supervisor().queue.cancel(job.id)
            st.rerun(scope="fragment")


def _status(job: Job) -> str:
    if job.state != State.RUNNING:
        return job.state
    left = job.seconds_left(datetime.now(UTC))
    return f"{job.fraction:.0%}" + (f" · {_duration(left)} left" if left is not None else "")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _redraw_when_due(jobs: list[Job]) -> None:
    """Run the whole page again when a job began or ended, and now and then while results come."""
    drawn = st.session_state["jobs_drawn"]
    now = _progress(jobs)
    if {i: unfinished for i, (unfinished, _) in now.items()} != {
        i: unfinished for i, (unfinished, _) in drawn.items()
    }:
        st.rerun()
    if now != drawn and time.monotonic() - st.session_state["drawn"] > _REDRAW:
        st.rerun()


def _progress(jobs: list[Job]) -> dict[int, tuple[bool, int]]:
    return {job.id: (job.is_unfinished, job.done) for job in jobs}
