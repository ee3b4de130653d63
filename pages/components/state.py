"""Shared objects of the server, and a session's state: its sweep, its task and its selection.

The URL holds the session's state, so that it can be shared and reloaded.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import streamlit as st

from pages.components import access, settings
from pages.components.uploads import Incoming
from soupcore import StockpotError, Store, Sweep
from soupcore.calls import Context, OpenSweep
from soupcore.evaluation import Estimate, Evaluations, StatisticsChoice
from soupcore.figures import ingredient_colours
from soupcore.figures.style import Inks
from soupcore.jobs import Descriptions, Supervisor
from soupcore.overview import Overview
from soupcore.remote.cache import REMOTE
from soupcore.sweeps import TensorRule
from soupcore.sweeps.opening import is_scanned
from soupcore.sweeps.remote_table import sweep_signature
from soupcore.sweeps.snapshots import snapshots_from_text

Pair = tuple[str, str]

STATISTICS: dict[StatisticsChoice, str] = {
    "averaged": "averaged",
    "re-estimated": "re-estimated (train)",
}

_NO_TASK = "none"  # in the URL
# Texts in the session and the URL: settings of the run table, of the form of a soup, the tabs of
# two pages, the axes and the colour of the scatter of columns. "" is the default.
_TEXTS = (
    "filter", "sort", "order", "group", "baseline", "recipe", "candidates", "take", "tab",
    "section", "x", "y", "colour",
)  # fmt: skip
# Lists there: columns of the run table that differ from its default, and those that come first;
# candidates by name and soups among them; parameters of recipes that differ from their defaults;
# the sources of tensors that are not merged; the weights of a manual soup; further recipes; the
# rows to compare.
_LISTS = (
    "hide", "show", "first", "candidate", "with", "parameter", "rest", "share", "also", "compare",
)  # fmt: skip

# Without any of these in the URL, the sweep is that of the command line.
_OPENED_BY_LINK = ("sweep", "task", "weights", "snapshot", "batchnorm", "metric")

_HASH = re.compile(r"-[0-9a-f]{8}$")  # at the end of the folder of a remote sweep
_PATIENCE = 10.0  # seconds to wait for a task's description; then the page shows a message


@cache
def store() -> Store:
    """Return the store of the workspace."""
    return Store(url=settings.current().database)


@cache
def incoming() -> Incoming:
    """Return the uploaded files that do not belong to a sweep yet."""
    known = settings.current()
    return Incoming(known.uploads, total=known.uploads_total, session=known.uploads_session)


@cache
def opened() -> set[str]:
    """Return the sweep folders that were opened by a click or on the command line.

    Only their checkpoints are read without a click: anyone may have written a link.
    """
    return {settings.SAMPLE_SWEEP, *map(str, settings.current().roots)}


@cache
def descriptions() -> Descriptions:
    """Return the descriptions of this server's tasks."""
    return Descriptions(store().folder / "worker.log")


@cache
def supervisor() -> Supervisor:
    """Return the supervisor of this server's workers."""
    known = settings.current()
    return Supervisor(store(), known.tasks, known.devices, known.roots, ray=known.ray)


class UndescribedError(Exception):
    """The task has not been described yet."""


@dataclass(frozen=True)
class View(Context):
    """The sweep and the task that a session shows, as the context of calls.

    Attributes:
        weights: Title of the weight set to use of checkpoints with several; "" for the default.
        snapshot: The snapshots chosen of runs with several, as text; "" for the default.
        is_outdated: Whether the folder has new or changed checkpoints that have not been read yet.
    """

    weights: str = ""
    snapshot: str = ""
    is_outdated: bool = False

    @property
    def statistics(self) -> StatisticsChoice:
        """The BatchNorm statistics of all evaluations."""
        return "averaged" if self.estimate is None else "re-estimated"

    @property
    def estimate(self) -> Estimate | None:
        """How BatchNorm statistics are re-estimated; None if they are averaged like weights."""
        return self.evaluations.estimate if self.has_task else None

    @property
    def offers_statistics(self) -> bool:
        """Whether BatchNorm statistics can be chosen."""
        return self.has_task and self.task.can_re_estimate

    @cached_property
    def overview(self) -> Overview:
        """The stored results of the sweep with its task, looked up once in a run of a page."""
        return Overview.of(self)

    @cached_property
    def basin_numbers(self) -> dict[str, int]:
        """The number of each ingredient's basin, 1 for the largest; empty without a task."""
        return self.overview.basin_numbers if self.has_task else {}

    @property
    def colours(self) -> Inks:
        """The colour of each ingredient, the same on every page."""
        return ingredient_colours(
            self.sweep.ingredients,
            basins=self.basin_numbers,
            selected=st.session_state.get("selection", ()),
        )

    @property
    def opening(self) -> OpenSweep:
        """How jobs open the sweep."""
        return OpenSweep(self.folder, self.weights, snapshots_from_text(self.snapshot))

    @property
    def request(self) -> dict[str, Any]:
        """The part of a job's request that identifies this view."""
        rule = self.sweep.rule
        request = self.opening.request
        if self.has_task:
            request |= {
                "task": self.task_spec,
                "batchnorm": self.statistics,
                "data": {name: split.digest for name, split in self.task.splits.items()},
            }
            if self.task.primary is not None:
                request["primary"] = self.task.primary
        if self.offered:
            request["soups"] = self.offered
        if rule != TensorRule():
            request["tensors"] = rule.to_json()
        return request


def opening() -> OpenSweep:
    """Return how jobs open the sweep of the session."""
    session = st.session_state
    snapshot = snapshots_from_text(session["snapshot"])
    return OpenSweep(session["sweep"], session["weights"], snapshot)


def read_url() -> None:
    """Read the session's state from the URL when it begins. A link grants no permission."""
    if "sweep" in st.session_state:
        return
    url = st.query_params
    known = settings.current()
    folder = url.get("sweep", known.sweep)
    state = st.session_state
    state["is_linked"] = any(name in url for name in _OPENED_BY_LINK)
    state["sweep"] = folder if known.allows(Path(folder)) else settings.SAMPLE_SWEEP
    own = known.task_of(state["sweep"])
    task = url.get("task", own) if state["sweep"] == folder else own
    if task == _NO_TASK:
        task = ""
    state["task"] = task if task in ("", *known.tasks_for(state["sweep"])) else ""
    if state["sweep"] != folder:
        state["notice"] = (
            "This link points to a sweep that this server cannot open, so the bundled sample is "
            "shown instead. To allow it, restart the server with --root."
        )
    elif state["task"] != task:
        state["notice"] = (
            "This link names a task that this server does not offer, so the sweep is shown "
            "without a task. To offer it, restart the server with --task."
        )
    if "sweep" in url and state["sweep"] == folder:
        access.note("followed a link to", folder)
    state["weights"] = url.get("weights", "")
    state["snapshot"] = url.get("snapshot", "")
    state["batchnorm"] = url.get("batchnorm", "averaged")
    state["metric"] = url.get("metric", "")
    state["rank"] = url.get("rank", "")
    state["better"] = url.get("better", "")
    state.update({name: url.get(name, "") for name in _TEXTS})
    state.update({name: url.get_all(name) for name in _LISTS})
    state["selection"] = url.get_all("selection")
    ends = url.get_all("pair")
    state["pairs"] = list(zip(ends[::2], ends[1::2], strict=False))
    state["soup"] = url.get("soup", "")


def write_url() -> None:
    """Write the session's state to the URL."""
    state, known = st.session_state, settings.current()
    task = state["task"] or _NO_TASK
    handles: dict[str, str] = state.get("handles", {})  # users may change the labels of soups
    parameters = {
        "sweep": [state["sweep"]] if state["sweep"] != known.sweep else [],
        "task": [task] if state["task"] != known.task_of(state["sweep"]) else [],
        "weights": [state["weights"]] if state["weights"] else [],
        "snapshot": [state["snapshot"]] if state["snapshot"] else [],
        "batchnorm": [state["batchnorm"]] if state["batchnorm"] != "averaged" else [],
        "metric": [state["metric"]] if state["metric"] else [],
        "rank": [state["rank"]] if state["rank"] else [],
        "better": [state["better"]] if state["better"] else [],
        **{name: [state[name]] if state[name] else [] for name in _TEXTS},
        **{name: state[name] for name in _LISTS},
        "selection": state["selection"],
        "pair": [handles.get(end, end) for pair in state["pairs"] for end in pair],
        "soup": [state["soup"]] if state["soup"] else [],
    }
    if any(st.query_params.get_all(name) != texts for name, texts in parameters.items()):
        st.query_params.from_dict({name: texts for name, texts in parameters.items() if texts})


def sweep_label() -> str:
    """Return the name of the session's sweep."""
    return label_of(st.session_state["sweep"])


def label_of(folder: str) -> str:
    """Return the name of a sweep."""
    if folder == settings.SAMPLE_SWEEP:
        return "Sample: cluttered digits"
    name = Path(folder).name
    return _HASH.sub("", name) if Path(folder).parent.name == REMOTE else name


def path_label(folder: str) -> str:
    """Return the name of a sweep among others: the last two parts of its path."""
    if folder == settings.SAMPLE_SWEEP or Path(folder).parent.name == REMOTE:
        return label_of(folder)
    return "/".join(Path(folder).parts[-2:]).replace("//", "/")


def choose_sweep(folder: str, task: str) -> None:
    """Show another sweep, with a task or "" for none, and clear the selection."""
    st.session_state.pop("notice", None)
    opened().add(folder)
    access.note("opened", f"{folder} with {task or 'no task'}")
    st.session_state.update(
        sweep=folder, task=task, is_linked=False, weights="", snapshot="",
        batchnorm="averaged", metric="", rank="", better="", selection=[], pairs=[], soup="",
        **dict.fromkeys(_TEXTS, ""), **{name: [] for name in _LISTS},
    )  # fmt: skip


def choose_task(task: str) -> None:
    """Show the same sweep with another task, or with "" for none."""
    st.session_state.pop("notice", None)
    access.note("chose the task", task or "none")
    st.session_state.update(task=task, is_linked=False, batchnorm="averaged", metric="", soup="")


def choose_weights(title: str) -> None:
    """Use another weight set of the same checkpoints."""
    st.session_state.update(weights=title, soup="")


def choose_snapshot(snapshot: str) -> None:
    """Use other snapshots of the same runs; see `Sweep.from_folder`."""
    st.session_state.update(snapshot=snapshot, soup="")


def select(names: Iterable[str]) -> None:
    """Select ingredients; the selection applies to every page."""
    st.session_state["selection"] = list(names)


def toggle(view: View, names: Iterable[str]) -> None:
    """Select ingredients that are not selected, and the other way round."""
    toggled = set(st.session_state["selection"]) ^ (set(names) & view.sweep.ingredients.keys())
    select(name for name in view.sweep.ingredients if name in toggled)


def view() -> View | None:
    """Return the session's view, or None if its checkpoints have not been read yet.

    While new checkpoints in its folder have not been read, the sweep is shown without them.

    Raises:
        StockpotError: The sweep or the task cannot be opened.
        UndescribedError: The task has not been described yet.
    """
    folder, spec = st.session_state["sweep"], st.session_state["task"]
    weights, snapshot = st.session_state["weights"], st.session_state["snapshot"]
    signature = sweep_signature(folder)
    is_scanned = _is_scanned(folder, weights, snapshot, signature)
    if is_scanned:
        sweep = _open_sweep(folder, weights, snapshot, signature)
        st.session_state["shown"] = ((folder, weights, snapshot), sweep)
    else:
        shown = _shown_before(folder, weights, snapshot)
        if shown is None:
            return None
        sweep = shown
    found = View(
        sweep,
        _evaluations(spec) if spec else store(),
        folder,
        spec,
        weights=weights,
        snapshot=snapshot,
        is_outdated=not is_scanned,
    )
    if st.session_state["batchnorm"] == "re-estimated" and found.offers_statistics:
        found = found.with_statistics("re-estimated")
    if st.session_state["metric"]:
        found = _with_metric(found, st.session_state["metric"])
    st.session_state["selection"] = sweep.names(
        name for name in st.session_state["selection"] if name in sweep.ingredients
    )
    labels = found.soups.labels(folder, spec)
    st.session_state["soup-label"] = found.soups.label(st.session_state["soup"])
    st.session_state["handles"] = {label: handle for handle, label in labels.items()}
    files = [*sweep.ingredients, *([sweep.base.name] if sweep.base else [])]
    names = {**{name: name for name in (*labels.values(), *files)}, **labels}
    st.session_state["pairs"] = [
        (names[a], names[b]) for a, b in st.session_state["pairs"] if a in names and b in names
    ]
    return found


def _shown_before(folder: str, weights: str, snapshot: str) -> Sweep | None:
    """Return the sweep that this session showed last, if it is the same and its files are too."""
    key, sweep = st.session_state.get("shown", (None, None))
    if key != (folder, weights, snapshot):
        return None
    opened: Sweep = sweep
    try:
        for ingredient in (*opened.ingredients.values(), *([opened.base] if opened.base else [])):
            ingredient.checkpoint.check_unchanged()
    except StockpotError:
        return None
    return opened


def _with_metric(view: View, metric: str) -> View:
    """Return a view with a primary metric; without it if the task has no such metric."""
    if view.has_task and metric in [each.name for each in view.task.metrics]:
        return view.with_primary(metric)
    st.session_state["metric"] = ""
    return view


def _is_scanned(folder: str, weights: str, snapshot: str, signature: str) -> bool:
    known: set[tuple[str, ...]] = st.session_state.setdefault("scanned", set())
    key = (weights, snapshot, signature)
    roots = settings.current().roots
    if key not in known and is_scanned(
        folder, weights, snapshots_from_text(snapshot), within=roots
    ):
        known.add(key)
    return key in known


@st.cache_resource(max_entries=8, show_spinner=False)
def _open_sweep(folder: str, weights: str, snapshot: str, signature: str) -> Sweep:
    return Sweep.from_folder(
        folder,
        weights=weights,
        snapshot=snapshots_from_text(snapshot),
        within=settings.current().roots,
    )


def _evaluations(spec: str) -> Evaluations:
    if spec not in settings.current().tasks_for(st.session_state["sweep"]):
        raise StockpotError(f"The task {spec} was not enabled at startup (--task).")
    with st.spinner("Reading the task"):
        task = descriptions().get(spec, wait_s=_PATIENCE)
    if task is None:
        raise UndescribedError(spec)
    supervisor().offer(spec)  # it may have been described on a page after the server started
    return Evaluations(task, store())
