"""The run folders of training tools: the snapshots of a run, and the one that represents it.

`soupcore.checkpoints.tools` describes the run folders of each tool.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from natsort import natsort_keygen, natsorted

from soupcore.checkpoints.models import Model, Trouble, models_in, weight_files
from soupcore.checkpoints.names import clean
from soupcore.checkpoints.recognition import suffix_of
from soupcore.checkpoints.tools import SHARED, TOOLS, Tool

_LARGEST_STATE = 8 << 20  # bytes of a trainer_state.json or CKPT.yaml
_NUMBERS = ("epoch", "step", "checkpoint")
_BY_NAME = "by the name of its file"
_NAMED = ("best", "last", "final", "average")
_FOLDERS = re.compile("|".join(f"(?:{tool.folders})" for tool in TOOLS if tool.folders))
_FILES = {tool: re.compile(tool.files, re.IGNORECASE) for tool in (*TOOLS, SHARED)}
_UNCONSOLIDATED = re.compile(r"global_step\d+")
_NOT_CONSOLIDATED: Trouble = (
    "is a checkpoint of DeepSpeed that is not consolidated",
    "Run its zero_to_fp32.py there, which writes the weights as one file.",
)

_METRIC = re.compile(
    r"(?:^|[-_])([A-Za-z][\w/.@]*?)=(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\d.]*\d)"
)
_YAML_NUMBER = re.compile(r"^([\w./@-]+): *(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?) *$", re.MULTILINE)
_NO_METRICS = {"epoch", "step", "unixtime", "end-of-epoch", "global_step"}
_WORD = re.compile(r"[a-z]+")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LOWER = _word_set(
    "bpb bpc cer der eer err error fid loss lpips mae mape mse nll perplexity ppl rmse ter wer"
)
_HIGHER = _word_set(
    "acc accuracy ap auc auroc bleu chrf corr dice f iou kappa map mcc miou precision psnr recall "
    "reward rouge score spearman ssim top"
)


@dataclass(frozen=True)
class Snapshot:
    """The weights of a run at one time.

    Attributes:
        name: `best`, `last`, `final`, `average`, `epoch 3`, `step 500`, or the name of the file.
        model: Its files.
        kind: `best`, `last`, `final` or `average` by the name of the file, else "".
        epoch: Epoch in the name of the file.
        step: Step in the name of the file.
        order: Sort key of the snapshots of a run, by time.
        metrics: Metrics in the name of the file, or beside it.
    """

    name: str
    model: Model
    kind: str = ""
    epoch: int | None = None
    step: int | None = None
    order: tuple[Any, ...] = ()
    metrics: tuple[tuple[str, float], ...] = ()

    @property
    def path(self) -> Path:
        """Path of the model's file or folder."""
        return self.model.path


@dataclass(frozen=True)
class Choice:
    """The snapshot that represents a run, and the reason."""

    snapshot: Snapshot
    reason: str


@dataclass(frozen=True)
class Run:
    """A run of a training tool, or a single file of weights.

    Attributes:
        place: Its folder, or its main file.
        tool: The tool that wrote it; None if unknown.
        snapshots: Its snapshots, by time; empty if it holds no weights.
        folders: Folders in which its weights were searched for, its own first.
        others: Weights in a training state, which are not opened.
    """

    place: Path
    tool: Tool | None
    snapshots: tuple[Snapshot, ...]
    folders: tuple[Path, ...] = ()
    others: tuple[Model, ...] = ()

    @property
    def files(self) -> Iterator[Path]:
        """All files of weights."""
        for model in (*(snapshot.model for snapshot in self.snapshots), *self.others):
            yield from model.files

    @cached_property
    def chosen(self) -> Choice | None:
        """The snapshot that represents the run by the rule of its tool; None if it is unclear."""
        if len(self.snapshots) == 1:
            return Choice(self.snapshots[0], "it is the only one")
        if self.tool is None:
            if any(not (s.kind or s.order[1:]) for s in self.snapshots):
                return None
            for kind in SHARED.takes:
                of_kind = [s for s in self.snapshots if s.kind == kind]
                if len(of_kind) == 1:
                    return Choice(of_kind[0], _BY_NAME)
            return None
        choices = (self.named(kind) for kind in self.tool.takes)
        choice = next((choice for choice in choices if choice is not None), None)
        if choice is None:
            return None
        rule = f"the rule for runs of {self.tool.name}: {', '.join(self.tool.takes)}"
        return replace(choice, reason=f"{rule}; {choice.reason}")

    def named(self, wanted: str) -> Choice | None:
        """Return a snapshot by `best`, `last`, `final`, its name or its file, or None.

        Args:
            wanted: A kind or name of a snapshot, or a file relative to the run's folder.
        """
        if wanted == "best":
            return self._best
        if wanted == "last":
            return self._last
        for snapshot in reversed(self.snapshots):
            if wanted in (snapshot.name, snapshot.kind):
                return Choice(snapshot, _BY_NAME)
        for snapshot in self.snapshots:
            for file in snapshot.model.files:
                inside = file.relative_to(self.folders[0]).as_posix() if self.folders else ""
                if wanted in (clean(file.name), clean(inside)):
                    is_main = file == snapshot.path or snapshot.path not in snapshot.model.files
                    model = snapshot.model if is_main else Model(file.name, file, (file,))
                    return Choice(replace(snapshot, model=model), "its file was named")
        return None

    @cached_property
    def _newest(self) -> list[Snapshot]:
        """The snapshots of the newest version of the run."""
        newest = max((s.order[0] for s in self.snapshots), default=0)
        return [s for s in self.snapshots if s.order[0] == newest]

    @cached_property
    def _last(self) -> Choice | None:
        named = [s for s in self._newest if s.kind == "last"]
        if named:
            return Choice(named[-1], _BY_NAME)
        numbered = [s for s in self._newest if s.order[1:]]
        return Choice(numbered[-1], "the last one saved") if numbered else None

    @cached_property
    def _best(self) -> Choice | None:
        named = [s for s in self._newest if s.kind == "best"]
        if len(named) == 1:
            return Choice(named[0], _BY_NAME)
        candidates = named or self._newest
        if choice := _best_of_trainer(self.place, candidates) or _best_by_metric(candidates):
            return choice
        others = [s for s in candidates if not s.kind]
        is_of_lightning = self.tool is not None and self.tool.name in ("Lightning", "NeMo")
        if is_of_lightning and len(others) == 1 and len(candidates) > 1:
            return Choice(others[0], "the only one kept beside last.ckpt")
        return None


def read_run(folder: Path) -> Run:
    """Return the run in a folder, recognised by the names of its files.

    Raises:
        OSError: The folder cannot be read.
    """
    folders = _folders_of_run(folder)
    found = []
    for inner in folders:
        prefix = "" if inner == folder else f"{inner.relative_to(folder).as_posix()}/"
        if _UNCONSOLIDATED.fullmatch(inner.name):
            if files := weight_files(inner):
                model = Model("model", inner, tuple(files), trouble=_NOT_CONSOLIDATED)
                found.append((f"{prefix}model", model))
            continue
        found += [(prefix + model.name, model) for model in models_in(inner, weight_files(inner))]
    found = [
        (path, model)
        for path, model in found
        if model.trouble != _NOT_CONSOLIDATED or not _is_consolidated(model.path.parent, found)
    ]
    tool = next((tool for tool in TOOLS if _is_of(tool, folder, found)), None)
    return _with_names(folder, tool, found, tuple(folders))


def run_of_file(model: Model) -> Run:
    """Return the run of a model whose files are directly in the folder of a sweep."""
    snapshot = Snapshot(clean(model.name), model, order=(0,))
    return Run(model.path, None, (snapshot,))


def is_lower_better(metric: str) -> bool | None:
    """Return whether lower values of a metric are better, by its name; None if it is unclear."""
    words = {*_WORD.findall(metric.lower())}
    if words & _LOWER:
        return True
    return False if words & _HIGHER else None


def _folders_of_run(folder: Path) -> list[Path]:
    """Return a folder and its subfolders in which tools save the weights of a run, sorted."""

    def below(at: Path, prefix: str) -> Iterator[Path]:
        entries = [entry for entry in at.iterdir() if _FOLDERS.fullmatch(prefix + entry.name)]
        for entry in natsorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                yield entry
                yield from below(entry, f"{prefix}{entry.name}/")

    return [folder, *below(folder, "")]


def _is_consolidated(folder: Path, found: Iterable[tuple[str, Model]]) -> bool:
    return any(
        model.trouble != _NOT_CONSOLIDATED and folder in (model.path, model.path.parent)
        for _, model in found
    )


def _is_of(tool: Tool, folder: Path, found: Iterable[tuple[str, Model]]) -> bool:
    """Return whether the names of all weights are those of a tool."""
    found = list(found)
    is_marked = not tool.marks or any(any(folder.glob(mark)) for mark in tool.marks)
    return bool(found and is_marked) and all(
        _FILES[tool].fullmatch(path)
        and (not tool.suffixes or model.trouble or _suffix(model) in tool.suffixes)
        for path, model in found
    )


def _suffix(model: Model) -> str:
    return suffix_of(model.files[0]).removesuffix(".index.json")


def _with_names(
    folder: Path,
    tool: Tool | None,
    found: Iterable[tuple[str, Model]],
    folders: tuple[Path, ...],
) -> Run:
    snapshots, others = [], []
    for path, model in found:
        match = _FILES[tool or SHARED].fullmatch(path)
        groups = {name: text for name, text in (match.groupdict() if match else {}).items() if text}
        if "state" in groups:
            others.append(model)
        else:
            snapshots.append(_snapshot(path, model, groups))
    snapshots.sort(key=_by_time)
    if not snapshots:  # there are only training states
        snapshots, others = [_snapshot(m.name, m, {}) for m in others], []
    versions = {snapshot.order[0] for snapshot in snapshots}
    counts = Counter(snapshot.name for snapshot in snapshots)
    named = []
    for snapshot in snapshots:
        name = snapshot.name
        if counts[name] > 1:
            step = snapshot.step
            name = clean(snapshot.model.name) if step is None else f"step {step}"
        if len(versions) > 1:
            name = f"version {snapshot.order[0]} {name}"
        named.append(replace(snapshot, name=name))
    return Run(folder, tool, tuple(_unique(named)), folders, tuple(others))


def _snapshot(path: str, model: Model, groups: dict[str, str]) -> Snapshot:
    kind = next((kind for kind in _NAMED if kind in groups), "")
    numbers = {name: int(groups[name]) for name in _NUMBERS if name in groups}
    name = kind or next((f"{unit} {number}" for unit, number in numbers.items()), "")
    name = name or clean(groups.get("date", "") or model.name)
    order = (int(groups.get("version", 0)), *numbers.values(), *filter(None, [groups.get("date")]))
    return Snapshot(
        name,
        model,
        kind,
        numbers.get("epoch"),
        numbers.get("step"),
        order,
        _metrics_of(path.rpartition("/")[2], model),
    )


def _by_time(snapshot: Snapshot) -> tuple[Any, ...]:
    # Snapshots with a number come first: of two copies, `epoch 9` is kept, not `last`.
    version, *numbers = snapshot.order
    return (
        version,
        bool(snapshot.kind),
        [_natural(str(n)) for n in numbers],
        _natural(snapshot.name),
    )


_natural = natsort_keygen()


def _unique(snapshots: Iterable[Snapshot]) -> Iterator[Snapshot]:
    """Yield the snapshots with numbers added to duplicate names."""
    taken: set[str] = set()
    for snapshot in snapshots:
        name, count = snapshot.name, 1
        while name in taken:
            count += 1
            name = f"{snapshot.name} ({count})"
        taken.add(name)
        yield replace(snapshot, name=name)


def _metrics_of(stem: str, model: Model) -> tuple[tuple[str, float], ...]:
    """Return the metrics in the name of a file, or in the CKPT.yaml beside it (SpeechBrain)."""
    found = _METRIC.findall(stem)
    if not found and model.path.parent.name.startswith("CKPT+"):
        text = _text(model.path.with_name("CKPT.yaml"))
        found = _YAML_NUMBER.findall(text)
    return tuple((name, float(text)) for name, text in found if name not in _NO_METRICS)


def _best_by_metric(snapshots: Iterable[Snapshot]) -> Choice | None:
    measured = [s for s in snapshots if s.metrics]
    for metric in dict.fromkeys(name for s in measured for name, _ in s.metrics):
        lower = is_lower_better(metric)
        values = [(dict(s.metrics)[metric], s) for s in measured if metric in dict(s.metrics)]
        if lower is None or not values or len(values) < len(measured):
            continue
        value, best = (min if lower else max)(values, key=lambda pair: pair[0])
        extreme = "lowest" if lower else "highest"
        return Choice(best, f"it has the {extreme} {metric} ({value:g})")
    return None


def _best_of_trainer(folder: Path, snapshots: Iterable[Snapshot]) -> Choice | None:
    """Return the snapshot that the newest trainer_state.json names as the best."""
    by_step = {s.path.parent.name: s for s in snapshots if s.path.parent != folder}
    states = [folder, *(s.path.parent for s in reversed([*by_step.values()]))]
    for place in states:
        text = _text(place / "trainer_state.json")
        try:
            state = json.loads(text) if text else None
        except (ValueError, RecursionError):  # reported when the logged metrics are read
            continue
        best = state.get("best_model_checkpoint") if isinstance(state, dict) else None
        if isinstance(best, str):
            name = best.replace("\\", "/").rstrip("/").rpartition("/")[2]
            if name in by_step:
                return Choice(by_step[name], "best_model_checkpoint in trainer_state.json")
    return None


def _text(path: Path) -> str:
    """Return a small text file; "" if there is none, a large one, or a link."""
    if path.is_symlink():  # it may point to a file outside of the folders that may be read
        return ""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_STATE + 1)
    except OSError:
        return ""
    return content.decode("utf-8", "replace") if len(content) <= _LARGEST_STATE else ""
