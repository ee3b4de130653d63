"""What a session looks at: the sweep, the task, and what is selected. The URL says the same."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import streamlit as st

from pages.components import services, settings
from soupcore import Evaluator, StockpotError, Sweep, Task, load_task
from soupcore.evaluation import StatisticsChoice
from soupcore.figures import colours
from soupcore.jobs.stored_soups import StoredSoup, including, soup_label
from soupcore.sweeps.folder import folder_signature
from soupcore.sweeps.sweep import is_scanned
from soupcore.tasks.loading import task_signature

Pair = tuple[str, str]


@dataclass(frozen=True)
class View:
    """The sweep and the task that a session looks at.

    Attributes:
        folder: Where the sweep is.
        task_spec: Where the task is, `file.py:attribute`.
        weights: Title of the weight set that was chosen of checkpoints with several; "" where none
            was.
        sweep: The sweep.
        evaluator: The evaluator of the task, with the BatchNorm statistics that were chosen.
        soups: The soups that are further ingredients of the sweep, by their names there.
    """

    folder: str
    task_spec: str
    weights: str
    sweep: Sweep
    evaluator: Evaluator
    soups: Mapping[str, StoredSoup] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The task."""
        return self.evaluator.task

    @property
    def statistics(self) -> StatisticsChoice:
        """Which BatchNorm statistics everything is evaluated with."""
        return "averaged" if self.evaluator.estimate is None else "re-estimated"

    @property
    def offers_statistics(self) -> bool:
        """Whether there are BatchNorm statistics to choose."""
        try:
            return self.evaluator.can_re_estimate
        except Exception:  # the network cannot be built; the first job that needs it says why
            return False

    def with_statistics(self, statistics: StatisticsChoice) -> "View":
        """Return the same with other BatchNorm statistics."""
        return replace(self, evaluator=self.evaluator.with_statistics(statistics))

    def including(self, soups: Mapping[str, StoredSoup]) -> "View":
        """Return the same with soups as further ingredients, under these names."""
        return replace(self, sweep=including(self.sweep, soups), soups=soups)

    @property
    def colours(self) -> dict[str, str]:
        """The colour of each ingredient, the same on every page."""
        return colours(self.sweep.ingredients)

    @property
    def request(self) -> dict[str, Any]:
        """What every job on this view has to be told."""
        soups = {name: stored.soup.id for name, stored in self.soups.items()}
        return {
            "sweep": self.folder,
            "weights": self.weights,
            "task": self.task_spec,
            "batchnorm": self.statistics,
            "data": {name: split.digest for name, split in self.task.splits.items()},
            **({"soups": soups} if soups else {}),
        }


def read_url() -> None:
    """Take the session's state from the URL when it begins; a link is no proof of permission."""
    if "sweep" in st.session_state:
        return
    url = st.query_params
    folder = url.get("sweep", settings.SAMPLE_SWEEP)
    task = url.get("task", settings.current().tasks[0] if "sweep" in url else settings.SAMPLE_TASK)
    state = st.session_state
    state["sweep"] = folder if settings.current().allows(Path(folder)) else settings.SAMPLE_SWEEP
    state["task"] = task if task in settings.current().tasks else settings.SAMPLE_TASK
    if state["sweep"] != folder or state["task"] != task:
        state["notice"] = (
            "The link names a sweep or a task that this server does not offer, so the bundled "
            "sample is shown. Start the server with --root and --task to offer it."
        )
    state["weights"] = url.get("weights", "")
    state["batchnorm"] = url.get("batchnorm", "averaged")
    state["selection"] = url.get_all("selection")
    ends = url.get_all("pair")
    state["pairs"] = list(zip(ends[::2], ends[1::2], strict=False))
    state["soup"] = url.get("soup", "")


def write_url() -> None:
    """Put the session's state into the URL, so that it can be shared and reloaded."""
    state = st.session_state
    wanted = {
        "sweep": [state["sweep"]] if state["sweep"] != settings.SAMPLE_SWEEP else [],
        "task": [state["task"]] if state["task"] != settings.SAMPLE_TASK else [],
        "weights": [state["weights"]] if state["weights"] else [],
        "batchnorm": [state["batchnorm"]] if state["batchnorm"] != "averaged" else [],
        "selection": state["selection"],
        "pair": [end for pair in state["pairs"] for end in pair],
        "soup": [state["soup"]] if state["soup"] else [],
    }
    if any(st.query_params.get_all(name) != texts for name, texts in wanted.items()):
        st.query_params.from_dict({name: texts for name, texts in wanted.items() if texts})


def sweep_label() -> str:
    """Return what the sweep that the session looks at is called."""
    folder = st.session_state["sweep"]
    return "Bundled sample" if folder == settings.SAMPLE_SWEEP else Path(folder).name


def choose_sweep(folder: str, task: str) -> None:
    """Look at another sweep or task; what was selected in the last one is forgotten."""
    st.session_state.update(
        sweep=folder, task=task, weights="", batchnorm="averaged", selection=[], pairs=[], soup=""
    )


def choose_weights(title: str) -> None:
    """Look at other weights of the same checkpoints, where they hold several sets."""
    st.session_state.update(weights=title, soup="")


def select(names: Iterable[str]) -> None:
    """Select ingredients, on every page."""
    st.session_state["selection"] = list(names)


def view() -> View | None:
    """Return what the session looks at, or None while its checkpoints have not been read yet.

    Raises:
        StockpotError: The sweep or the task cannot be opened.
    """
    folder, spec = st.session_state["sweep"], st.session_state["task"]
    weights = st.session_state["weights"]
    signature = folder_signature(folder)
    if not _is_scanned(folder, weights, signature):
        return None
    sweep = _open_sweep(folder, weights, signature)
    found = View(folder, spec, weights, sweep, _open_task(spec, task_signature(spec)))
    if st.session_state["batchnorm"] == "re-estimated" and found.offers_statistics:
        found = found.with_statistics("re-estimated")
    st.session_state["selection"] = sweep.names(
        name for name in st.session_state["selection"] if name in sweep.ingredients
    )
    ends = {*sweep.ingredients, *([sweep.base.name] if sweep.base else [])}
    ends |= {
        soup_label(row.body["recipe"], row.id)
        for row in services.store().soups(folder)
        if row.body["task"] == spec
    }
    st.session_state["pairs"] = [p for p in st.session_state["pairs"] if ends.issuperset(p)]
    return found


def _is_scanned(folder: str, weights: str, signature: str) -> bool:
    known: set[tuple[str, str]] = st.session_state.setdefault("scanned", set())
    if (weights, signature) not in known and is_scanned(folder, weights):
        known.add((weights, signature))
    return (weights, signature) in known


@st.cache_resource(max_entries=8, show_spinner=False)
def _open_sweep(folder: str, weights: str, signature: str) -> Sweep:
    return Sweep.from_folder(folder, weights=weights)


@st.cache_resource(max_entries=8, show_spinner=False)
def _open_task(spec: str, signature: str) -> Evaluator:
    if spec not in settings.current().tasks:
        raise StockpotError(f"The task {spec} was not named when the server was started.")
    return Evaluator(load_task(spec), services.store(), device="cpu")
