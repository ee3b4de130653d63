"""Long work as the pages see it: ask for it, and know how it stands."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import streamlit as st

from pages.components import services
from pages.components.text import plain
from soupcore.jobs import Job, State

_AT_ONCE = 0.3  # seconds that a page may wait for a result
_LOOK = 0.01  # seconds between two looks for it


def submit(kind: str, title: str, request: Mapping[str, Any]) -> int:
    """Add a job; the tray shows it from the next run on."""
    return services.supervisor().submit(kind, title, request)


def settle(kind: str, title: str, request: Mapping[str, Any]) -> Job | None:
    """Add a job in place of this session's last one of the kind: a slider has moved on.

    A result that comes at once, as it does of a small network, is waited for, so that the page
    shows it without being drawn twice.

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
    return _wait_briefly(st.session_state[slot])


def _wait_briefly(job_id: int) -> Job | None:
    deadline = time.monotonic() + _AT_ONCE
    while (job := get(job_id)) is not None and time.monotonic() < deadline:
        if not job.is_unfinished:
            return job if job.state == State.FAILED else None
        time.sleep(_LOOK)
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


def last(kind: str, **request: Any) -> Job | None:
    """Return the newest job of a kind that is done and whose request says this."""
    return next(done(kind, **request), None)


def done(kind: str, **request: Any) -> Iterator[Job]:
    """Give the jobs of a kind that are done and whose request says this, newest first."""
    for job in services.supervisor().queue.done(kind):
        if all(job.request.get(name) == value for name, value in request.items()):
            yield job


def open_sweep(folder: str, weights: str, label: str) -> None:
    """Have the checkpoints of the sweep read once, and say so meanwhile."""
    request = {"sweep": folder, "weights": weights}
    recent = services.supervisor().queue.recent()
    last = next((job for job in recent if job.kind == "open" and job.request == request), None)
    st.header(label)
    if last is not None and last.state in (State.FAILED, State.CANCELLED):
        st.error(plain(last.error or "Reading was cancelled."), icon=":material/error:")
        if st.button("Read the checkpoints again"):
            submit("open", f"Read {label}", request)
            st.rerun()
        return
    st.info(
        "Reading every checkpoint once, to know its digest and whether its values are finite. "
        "The next time this sweep opens at once.",
        icon=":material/hourglass_top:",
    )
    submit("open", f"Read {label}", request)
