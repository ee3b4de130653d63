"""From a job to the page that shows its result."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from pages.components import settings, state
from pages.components.results import MIDPOINT_ALPHAS
from soupcore.jobs import Job
from soupcore.sweeps.snapshots import snapshots_to_text

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


def page_of(kind: str, request: Mapping[str, Any]) -> str:
    """Return the file of the page that shows the result of a job."""
    if kind == "paths" and request.get("alphas") == MIDPOINT_ALPHAS:
        return "soup_vs_ensemble.py"
    if kind == "paths" and len(request.get("splits", ())) > 1:
        return "from_base.py"
    return _PAGES.get(kind, "overview.py")


def why_closed(job: Job) -> str:
    """Return why the sweep of a job cannot be opened; "" if it can."""
    folder = job.request.get("sweep", st.session_state["sweep"])
    if not settings.current().allows(Path(folder)):
        return "Its sweep is not in a folder of this server (--root)."
    return "" if Path(folder).is_dir() else "The folder of its sweep is gone."


def open_result(job: Job) -> None:
    """Show the sweep of a job, and what it computed, on its page. Call it after a click."""
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
