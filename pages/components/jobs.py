"""Jobs: add, cancel and look up long computations, and read the results that they store."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import streamlit as st

from pages.components import access, display, settings, state
from pages.components.display import plain
from pages.components.state import View
from soupcore.calls import Call, Pairs, Paths, Result, StoredCall
from soupcore.connectivity import PairSummaries
from soupcore.display import counted
from soupcore.jobs import Job, State
from soupcore.plan import Analysis
from soupcore.plan import seconds as estimate

_WAIT = 0.3  # seconds that a page may wait for a result
_POLL = 0.01  # seconds between two look-ups of a job
_SAMPLED = 50  # pairs without a summary that are looked up

MIDPOINT_ALPHAS = 3  # both ends and the midpoint


def submit(kind: str, title: str, request: Mapping[str, Any]) -> int:
    """Add a job and return its id. The jobs panel shows it from the next run on."""
    access.note("ran", title)
    return state.supervisor().submit(kind, title, request)


def start(view: View, call: Call, title: str) -> int:
    """Add a job for a call and return its id; see `submit`."""
    return submit(call.kind, title, request_of(view, call))


def request_of(view: View, call: Call) -> dict[str, Any]:
    """Return the request of a job for a call."""
    return view.request | call.arguments


def cancel(job: Job) -> None:
    """Request the cancellation of a job."""
    access.note("cancelled", job.title)
    state.supervisor().queue.cancel(job.id)


def resume(job: Job) -> None:
    """Queue a failed or cancelled job again."""
    access.note("resumed", job.title)
    state.supervisor().resume(job.id)


def dismiss(job: Job) -> None:
    """Remove a failed or cancelled job from the panel."""
    access.note("dismissed", job.title)
    state.supervisor().queue.dismiss(job.id)


def start_latest(view: View, call: Call, title: str) -> Job | None:
    """Add a job that replaces this session's last job of the kind, as when a slider moves.

    Waits briefly for the result, so that the page shows the result of a small network in one run.

    Returns:
        The job if it failed. It is not added again for the same request.
    """
    if state.store().is_read_only:
        return None
    slot = f"latest-{call.kind}"
    last = get(st.session_state[slot]) if slot in st.session_state else None
    if last is not None and last.request == request_of(view, call):
        if last.state == State.FAILED:
            return last
    elif last is not None:
        cancel(last)
    st.session_state[slot] = start(view, call, title)
    return _wait_briefly(st.session_state[slot])


def derive(view: View, call: Call, title: str) -> Job | None:
    """Add a job for a result that follows from stored evaluations, once in this session.

    Returns:
        The job if it failed or was cancelled. The page does not add it again: a job that ends
        without the result would otherwise be added on every run of the page, without end.
    """
    if state.store().is_read_only:
        return None
    added: dict[str, int] = st.session_state.setdefault("derived", {})
    key = json.dumps([call.kind, request_of(view, call)], sort_keys=True)
    if key not in added:
        added[key] = start(view, call, title)
        job = _wait_briefly(added[key])
        if job is not None and job.is_unfinished:
            # It may end before the page is drawn, and ended jobs of its kind are not in the panel.
            st.session_state["awaits_result"] = True
    else:
        job = get(added[key])
    return job if job is not None and job.state in (State.FAILED, State.CANCELLED) else None


def derived(view: View, call: StoredCall, title: str, *, key: str) -> Result | None:
    """Return a result that follows from stored evaluations, or None if it is not computed yet.

    A job computes it without a click, except in a sweep that was only opened by a link.
    """
    found = call.result(view)
    if found is not None or state.store().is_read_only:
        return found
    if view.folder not in state.opened():
        call_button(view, "Compute", call, title, key=key, primary=False)
        return None
    ended = derive(view, call, title)
    if ended is not None:
        st.caption(f"{plain(title)}: {plain(ended.error or ended.state)}. Restart it under Jobs.")
    return call.result(view)


def start_if_short(view: View, call: Call, title: str, seconds: float | None) -> int | None:
    """Start a job without a click if it is known to take only seconds, and return its id.

    The sweep has to be opened on this server by a click or its command line, not by a link in this
    session. A job that failed or was cancelled is left to the user. A job that ended without all
    of its results is started again only once its sweep has changed. Nothing is started beside the
    analysis of the sweep, which may find the same results.

    Args:
        view: The view.
        call: The call.
        title: Title of the job in the jobs panel.
        seconds: Estimated duration; None if it is unknown.
    """
    if seconds is None or seconds >= settings.current().auto_s or state.store().is_read_only:
        return None
    if view.folder not in state.opened() or st.session_state["is_linked"]:
        return None
    request = request_of(view, call)
    last = state.supervisor().queue.latest(call.kind, request)
    if last is not None and last.state != State.DONE:
        return None
    if unfinished(Analysis.kind, **view.request) is not None:
        return None
    digests = [each.digest for each in view.sweep.ingredients.values()]
    key = json.dumps([call.kind, request, digests], sort_keys=True)
    if key in _started():
        return None
    _started().add(key)
    return start(view, call, title)


def get(job_id: int) -> Job | None:
    """Return a job, or None if there is none of this id."""
    return state.supervisor().queue.get(job_id)


def unfinished(kind: str, **request: Any) -> Job | None:
    """Return the unfinished job of a kind whose request contains these items, or None."""
    return _first(state.supervisor().queue.unfinished(kind), request)


def cannot_start(view: View, call: Call) -> bool:
    """Whether a job's button is disabled: the job is unfinished or the workspace is read-only."""
    return state.store().is_read_only or unfinished(call.kind, **request_of(view, call)) is not None


def last(view: View, call: Call) -> Job | None:
    """Return the newest finished job of a call, or None."""
    return _first(state.supervisor().queue.done(call.kind), request_of(view, call))


def call_button(
    view: View,
    label: str,
    call: Call,
    title: str,
    *,
    key: str,
    help: str | None = None,
    primary: bool = True,
    price: float | None = None,
    starts: bool = False,
) -> None:
    """Show a button that adds a job for a call. It is disabled if `cannot_start`.

    Args:
        view: The view.
        label: Label of the button, to which the price is added.
        call: The call.
        title: Title of the job in the jobs panel.
        key: Key of the button on its page.
        help: Tooltip.
        primary: Whether the button is highlighted.
        price: Estimated duration in seconds; None if it is unknown.
        starts: Whether a short job starts without a click, because the page is opened for its
            result; see `start_if_short`.
    """
    if starts:
        start_if_short(view, call, title, price)
    if st.button(
        label if price is None else f"{label}, about {display.about(price)}",
        type="primary" if primary else "secondary",
        icon=":material/play_arrow:",
        key=key,
        help=help,
        disabled=cannot_start(view, call),
    ):
        start(view, call, title)
        st.rerun()


def evaluations_text(count: int, *, about: bool = False) -> str:
    """Return a number of evaluations as text, such as "about 3 evaluations"."""
    return f"{'about ' if about else ''}{counted(count, 'evaluation')}"


def splits_text(names: Sequence[str]) -> str:
    """Return names of splits as text; only their number if there are more than two."""
    return " and ".join(names) if len(names) < 3 else f"{len(names)} splits"


def pairs(
    view: View, names: Sequence[str], alphas: int | str, split: str, *, part: int | None = None
) -> PairSummaries:
    """Return the summaries of the lines between all pairs of ingredients.

    If no pair has a summary but the pairs are evaluated, for other α or by an earlier version, a
    job adds the summaries.

    Args:
        view: The view.
        names: The ingredients.
        alphas: Number of α values, or "adaptive".
        split: Name of the split.
        part: Number of its examples to use; None for all.
    """
    call = Pairs(names=tuple(names), alphas=alphas, split=split, part=part)
    found = call.result(view)
    if len(found) or not _are_evaluated(view, call):
        return found
    at = split if part is None else view.task.part(split, part)
    derive(view, call, f"Look up {math.comb(len(names), 2)} pairs on {at}")
    return call.result(view)


def midpoint_paths(names: Sequence[str], split: str) -> Paths:
    """Return the call for the midpoints of all pairs of ingredients."""
    return Paths(names=tuple(names), alphas=MIDPOINT_ALPHAS, splits=(split,))


def midpoints(view: View, names: Sequence[str], split: str, *, key: str) -> PairSummaries | None:
    """Return the midpoints of all pairs that are evaluated, and show a button for the others.

    Returns:
        The summaries; None, with a message on the page, if no pair is evaluated.
    """
    known = pairs(view, names, MIDPOINT_ALPHAS, split)
    count = math.comb(len(names), 2)
    if len(known) < count:
        ends = [view.sweep[name].mixture for name in names]
        missing = len(view.evaluations.missing(ends, split)) + count - len(known)
        call = midpoint_paths(names, split)
        call_button(
            view, f"Run {evaluations_text(missing)}", call,
            f"Evaluate {count:,} midpoints on {split}", key=f"evaluate-{key}",
            help="Evaluates each pair's midpoint (α = 0.5) and any missing endpoints.",
            price=estimate(view.overview, missing * len(view.task.split(split))), starts=True,
        )  # fmt: skip
    if not len(known):
        st.info(f"No midpoints evaluated on {plain(split)} yet.", icon=":material/join_inner:")
        return None
    return known


@cache
def _started() -> set[str]:
    """The jobs that this server started without a click."""
    return set()


def _wait_briefly(job_id: int) -> Job | None:
    """Return the job when it has ended, or as it is after a while."""
    deadline = time.monotonic() + _WAIT
    while (job := get(job_id)) is not None and job.is_unfinished and time.monotonic() < deadline:
        time.sleep(_POLL)
    return job


def _first(jobs: Iterable[Job], request: Mapping[str, Any]) -> Job | None:
    for job in jobs:
        if all(job.request.get(name) == value for name, value in request.items()):
            return job
    return None


def _are_evaluated(view: View, call: Pairs) -> bool:
    """Whether pairs without summaries are evaluated, judged by an evenly spaced sample of them.

    Pairs that are being evaluated get their summaries without a look-up.
    """
    if view.folder not in state.opened() or any(
        unfinished(kind, sweep=view.folder) for kind in ("paths", "line")
    ):
        return False
    pairs = list(combinations(call.names, 2))
    some = tuple(pairs[:: math.ceil(len(pairs) / _SAMPLED) or 1])
    paths = Paths(pairs=some, alphas=call.alphas, splits=(call.split,), part=call.part)
    return any(path is not None for path in paths.result(view)[call.split].paths)
