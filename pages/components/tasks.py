"""The task: choose it, its metric and BatchNorm statistics, or describe one for Hugging Face.

The form for a Hugging Face network writes the file of a task `hf:FILE.toml`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st

from pages.components import access, jobs, settings, state, streamlit_internals
from pages.components.display import plain
from pages.components.state import View
from soupcore import StockpotError, TaskError
from soupcore.calls import MetricIntervals
from soupcore.evaluation import StatisticsChoice
from soupcore.task_spec import TaskSpec
from soupcore.tasks import hugging_face_file
from soupcore.tasks.hugging_face import KINDS, Setting
from soupcore.workspace import private_folder

_HOW = (
    "To add one, describe a Hugging Face network under **Choose a task**, or restart with "
    "`stockpot FOLDER --task TASK`, where TASK is `FILE.py:NAME` (Python), `hf:FILE.toml` (Hugging "
    "Face), `imagefolder:FILE.toml`, `ultralytics:data.yaml` or `command:FILE.toml` (your own "
    "evaluation script)."
)
_RESTART = (
    "Tasks from files must be passed at startup, since some of them run code: "
    "`--task FILE.py:NAME`, `--task command:FILE.toml` and others (see `stockpot --help`)."
)
_NONE = "No task"
_FORM = "Describe a Hugging Face network"

# Tables of images name files anywhere on the server, which no one checks: they are for --task.
OFFERED = {name: kind for name, kind in KINDS.items() if "image" not in kind.settings}

_DATA = (".csv", ".tsv", ".jsonl", ".parquet")
_PATIENCE = 120.0  # seconds to wait for the task; it may go on longer after that
_SPLITS = {
    "select": ("Validation data (select)", ("val", "valid", "validation", "dev", "select")),
    "report": ("Test data (report), optional", ("test", "report")),
    "train": ("Training data, optional", ()),
}
#: Words in the names of columns that are proposed for a setting.
_GUESSES = {
    "text": ("text", "message", "sentence", "content", "words", "tokens"),
    "label": ("label", "class", "category", "target", "tags"),
    "weight": (),  # a column of that name may hold anything
}
#: The labels of settings; those of one kind of task under `(kind, setting)`.
_LABELS: dict[str | tuple[str, str], str] = {
    "text": "Text column (two, separated by a comma, for pairs)",
    "label": "Class column",
    ("token-classification", "text"): "Column of the words, a list in each row",
    ("token-classification", "label"): "Column of their tags, a list in each row",
    ("causal-lm", "text"): "Text column",
    ("masked-lm", "text"): "Text column",
    "group": "Group column, optional (for worst-group accuracy)",
    "weight": "Weight column, optional (how much each text counts)",
    "max_length": "Longest text, in tokens (0: the tokenizer's limit, at most 512)",
    "block": "Block length, in tokens (0: each text by itself)",
    "seed": "Seed of the masked tokens",
}


def label(spec: str) -> str:
    """Return a short display name of a task."""
    if not spec:
        return _NONE
    try:
        return TaskSpec.parse(spec).label
    except TaskError:  # its file is gone
        return spec


def choose(folder: str, current: str) -> str:
    """Let the user choose a task for a sweep, or none; return it."""
    offered = ["", *settings.current().tasks_for(folder)]
    return st.selectbox(
        "Task (how ingredients are evaluated)",
        offered,
        index=offered.index(current) if current in offered else 0,
        format_func=label,
        help="Tasks execute Python code or commands, so only those passed with --task at startup "
        "and those described on this page are listed.",
    )


def show_choice() -> None:
    """Show the task in the sidebar, with a button to choose another."""
    task = st.session_state["task"]
    st.markdown(
        f":material/labs: {plain(label(task))}",
        help=plain(task) if task else "Nothing is evaluated. Recipes that choose need a task.",
    )
    if st.button("Choose a task", width="stretch", icon=":material/labs:", key="change-task"):
        _dialog()


def show_needed(what: str, *, key: str = "page") -> None:
    """Show that something needs a task, and how to add one.

    Args:
        what: The subject of the sentence, such as "Evidence".
        key: Distinguishes several of these on a page.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(f"{what} needs a task, which says how to evaluate a network. {_HOW}",
                icon=":material/labs:")  # fmt: skip
        if st.button("Choose a task", key=f"choose-task-{key}"):
            _dialog()


def choose_metric(view: View) -> None:
    """Let the user choose the primary metric, if the task has several, and complete its results."""
    if not view.has_task or len(view.task.metrics) < 2:
        return
    known = {metric.name: metric for metric in view.task.metrics}
    key = f"metric-{view.task_spec}"
    st.selectbox(
        "Primary metric",
        list(known),
        index=list(known).index(view.task.metric.name),
        format_func=lambda name: (
            name if known[name].higher_is_better else f"{name} (lower is better)"
        ),
        key=key,
        on_change=_take_metric,
        args=(key, view.task.default_metric.name),
        help="Ranks ingredients and soups; recipes choose by it. Stored evaluations have the "
        "scores of all metrics, so nothing is evaluated again.",
    )
    call = MetricIntervals()
    if view.task.primary is None:
        return
    title = f"Intervals of {view.task.primary}"
    count = len(call.lacking(view))
    if count and view.folder in state.opened():
        jobs.derive(view, call, title)
        count = len(call.lacking(view))
    if count:
        jobs.call_button(
            view,
            "Compute the intervals",
            call,
            title,
            key="metric-intervals",
            primary=False,
            help=f"For {count:,} stored evaluations, by bootstrap over their examples. Needs no "
            "forward pass. Intervals of differences need them.",
        )


def choose_statistics(view: View) -> None:
    """Let the user choose the BatchNorm statistics, if the network has any."""
    if not view.offers_statistics:
        return
    st.segmented_control(
        "BatchNorm statistics",
        [*state.STATISTICS],
        default=view.statistics,
        required=True,
        key=f"batchnorm-{view.task_spec}",
        on_change=_take_statistics,
        args=(f"batchnorm-{view.task_spec}",),
        help="Averaged: running means and variances are averaged like weights. Re-estimated: "
        "recomputed for each mixture on the train split (arXiv:1802.10026). Re-estimation usually "
        "helps far from the ingredients and can hurt near them. Results are stored separately.",
    )


def use_statistics(view: View, statistics: StatisticsChoice) -> None:
    """Switch the session to other BatchNorm statistics; call it before the page is drawn."""
    widget = f"batchnorm-{view.task_spec}"
    st.session_state[widget] = statistics
    _take_statistics(widget)


def create(description: Mapping[str, Any]) -> str:
    """Write a description and have it checked; return the task.

    Args:
        description: The settings; see `hugging_face_file.write`.

    Raises:
        TaskError: A path is outside the roots, or the task cannot be created.
    """
    if "select" not in description["splits"]:
        raise TaskError("Name the file of the validation data; recipes choose on it.")
    if (kind := description["task"]) not in OFFERED:
        raise TaskError(f"Describe a task of the kind {kind!r} in a file, for --task.")
    known = settings.current()
    named = [description["model"], description.get("tokenizer", description["model"])]
    for text in [*named, *(split["file"] for split in description["splits"].values())]:
        if not Path(text).is_absolute() or not known.allows(Path(text)):
            raise TaskError(
                f"{text or 'The model folder'} is not an absolute path below a folder that this "
                "server may open. Add its folder with --root at startup."
            )
    body = json.dumps(description, sort_keys=True)
    name = re.sub(r"[^a-z0-9]+", "-", description["name"].lower()).strip("-") or "task"
    digest = hashlib.sha256(body.encode()).hexdigest()[:8]
    path = private_folder(known.described_in) / f"{name}-{digest}.toml"
    hugging_face_file.write(path, description)
    spec = f"hf:{path}"
    try:
        _check(path)
        with st.spinner("Reading the data"):
            state.descriptions().get(spec, wait_s=_PATIENCE)
    except TaskError:
        path.unlink(missing_ok=True)
        raise
    access.note("created the task", spec)
    return spec


@streamlit_internals.dialog("Choose a task", width="large")
def _dialog() -> None:
    source = st.segmented_control(
        "Source", ["Offered tasks", _FORM], default="Offered tasks", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if source == _FORM:
        created = _describe()
        if created is not None:
            state.choose_task(created)
            st.rerun()
        return
    chosen = choose(st.session_state["sweep"], st.session_state["task"])
    st.caption(_RESTART)
    if st.button("Use this task" if chosen else "Continue without a task", type="primary"):
        state.choose_task(chosen)
        st.rerun()


def _take_metric(key: str, default: str) -> None:
    chosen = st.session_state[key]
    st.session_state["metric"] = "" if chosen == default else chosen


def _take_statistics(key: str) -> None:
    st.session_state["batchnorm"] = st.session_state[key]
    st.session_state["soup"] = ""


def _describe() -> str | None:
    """Show the form for a Hugging Face network; return the task once it was created."""
    if find_spec("transformers") is None:
        st.info(
            "Hugging Face networks need the package transformers: `pip install transformers`, "
            "then restart the server.",
            icon=":material/extension:",
        )
        return None
    found = _find(Path(st.session_state["sweep"]))
    kind_name = st.selectbox(
        "Kind", [*OFFERED], format_func=lambda name: OFFERED[name].title, key="hf-kind"
    )
    kind = OFFERED[kind_name]
    description: dict[str, Any] = {"task": kind_name}
    left, right = st.columns(2)
    with left:
        description["model"] = _path("Model folder (config.json)", found.get("model"), "model")
    with right:
        tokenizer = _path("Tokenizer folder, if it is another", found.get("tokenizer"), "tokenizer")
    if tokenizer and tokenizer != description["model"]:
        description["tokenizer"] = tokenizer
    description["splits"] = _splits(found)
    header = st.text_input(
        "Column names, for files without a header", key="hf-columns",
        placeholder="label, message",
    )  # fmt: skip
    if names := _listed(header):
        description["columns"] = names
    select = description["splits"].get("select", {}).get("file", "")
    description |= _settings(kind_name, _columns(select, names))
    if metrics := st.multiselect(
        "Metrics; the first one ranks", kind.metrics, default=kind.metrics[:1],
        key=f"hf-metrics-{kind_name}",
    ):  # fmt: skip
        description["metrics"] = metrics
    name = st.text_input("Name", kind.title, key=f"hf-name-{kind_name}")
    description["name"] = name.strip()
    if not st.button("Create the task", type="primary", disabled=state.store().is_read_only):
        return None
    try:
        return create(description)
    except StockpotError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return None


def _path(label: str, found: Path | None, key: str) -> str:
    return st.text_input(label, str(found or ""), key=f"hf-{key}").strip()


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _splits(found: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Let the user name the data files; return the splits as a description has them."""
    splits = {}
    for column, (role, (label, _)) in zip(st.columns(len(_SPLITS)), _SPLITS.items(), strict=True):
        with column:
            path = _path(label, found.get(role), role)
        if path:
            splits[role] = {"file": path, "role": role}
    shifts = st.text_area(
        "Shifted test data, optional: one file per line", key="hf-shift", height=68
    )
    for line in filter(None, map(str.strip, shifts.splitlines())):
        splits[f"shift/{Path(line).stem}"] = {"file": line, "role": "shift"}
    return splits


def _columns(select: str, names: list[str]) -> list[str]:
    """Return the columns of the validation data; empty if they cannot be read."""
    path = Path(select)
    if names or not select or not settings.current().allows(path):
        return names
    try:
        return hugging_face_file.columns_of(path)
    except TaskError:  # creating the task gives the reason
        return []


def _settings(kind: str, columns: list[str]) -> dict[str, Any]:
    """Let the user choose the settings of a kind of task."""
    if columns:
        st.caption(f"Columns of the validation data: {plain(', '.join(columns))}.")
    chosen = {}
    for name, setting in OFFERED[kind].settings.items():
        other = f"{name.replace('_', ' ').capitalize()} column"
        label = _LABELS.get((kind, name)) or _LABELS.get(name, other)
        if (value := _setting(name, label, setting, columns)) is not None:
            chosen[name] = value
    return chosen


def _setting(name: str, label: str, setting: Setting, columns: list[str]) -> Any:
    if setting == "number":
        default = 1 if name == "seed" else 0
        number = st.number_input(label, default, value=default, step=1, key=f"hf-{name}")
        return number or None
    words = _GUESSES.get(name, (name,))
    guess = next((c for c in columns if any(word in c.lower() for word in words)), "")
    text = st.text_input(label, guess, key=f"hf-{name}-{columns}")
    found = _listed(text) if setting == "columns" else [text.strip()] if text.strip() else []
    if not found:
        return None
    return found[0] if len(found) == 1 else found


def _find(sweep: Path) -> dict[str, Path]:
    """Return the model, tokenizer and data files in the folder of a sweep or the one above it.

    Returns:
        `{"model" or "tokenizer" or role: path}`; paths outside the roots are left out.
    """
    allows = settings.current().allows
    folders = [folder for folder in (sweep, sweep.parent) if allows(folder)]
    found: dict[str, Path] = {}
    for folder in folders:
        inner = sorted((e for e in _entries(folder) if e.is_dir()), key=lambda e: e.name != "base")
        for place in (folder, *inner):
            if allows(place) and (place / "config.json").is_file():
                found.setdefault("model", place)
            if allows(place) and (place / "tokenizer_config.json").is_file():
                found.setdefault("tokenizer", place)
        for file in _entries(folder):
            stem, _, _ = file.stem.lower().partition("-")
            for role, (_, names) in _SPLITS.items():
                if file.suffix.lower() in _DATA and stem in names and allows(file):
                    found.setdefault(role, file)
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:  # not readable
        return []


def _check(path: Path) -> None:
    """Check that no link among the files of a description leads out of the roots.

    Raises:
        TaskError: A link does.
    """
    for file in hugging_face_file.paths_of(path):
        if not settings.current().allows(file):
            raise TaskError(f"{file} is a link that leads out of the folders of this server.")
