"""Hyperparameters and logged metrics of a run, from the files of training tools.

`soupcore.checkpoints.tools` lists the files of each tool. They are searched for beside the
snapshot and in the folders above it, up to the folder of the run. Logged metrics are those of the
snapshot: the rows of its epoch or step.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soupcore.checkpoints.contents import values_in
from soupcore.checkpoints.names import clean
from soupcore.checkpoints.run_folders import Run, Snapshot, read_run
from soupcore.checkpoints.tools import HYPERPARAMETERS, LOGGED
from soupcore.errors import CheckpointError
from soupcore.safe_torch.names import SCORE, role_of
from soupcore.sweeps.findings import Finding
from soupcore.sweeps.tables import (
    Problems,
    Row,
    Scalar,
    TableError,
    read_lines,
    read_log,
    read_object,
    read_rows,
    read_yaml,
)

Values = Mapping[str, Scalar]

# Fields of a model's config.json that describe the run, not the architecture.
_OF_CONFIG = ("_name_or_path", "model_type", "problem_type", "transformers_version")
_EPOCHS = ("epoch", "epochs", "train/epoch")
_STEPS = ("step", "global_step", "trainer/global_step", "_step", "iteration")
_NO_SCORE = {
    "batch", "decay", "fraction", "lr", "per", "ratio", "runtime", "scale", "seconds", "size",
    "smoothing", "split", "time", "weight",
}  # fmt: skip
_CLOSE = 1e-4  # relative difference of a metric between a checkpoint and a log, which rounds
_WAY_OUT = "Fix or remove it. The checkpoint is used without these values."


@dataclass(frozen=True)
class RunDetails:
    """Hyperparameters and logged metrics of an ingredient.

    Attributes:
        hyperparameters: `{name: value}`.
        logged_metrics: `{name: value}` that the tool logged for these weights.
        origins: `{name: file}` of both, relative to the sweep's folder.
    """

    hyperparameters: dict[str, Scalar] = field(default_factory=dict)
    logged_metrics: dict[str, Scalar] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def add(self, values: Values, logged: Values, origin: str) -> None:
        """Add the values whose names are not known yet, with the file that they come from."""
        for name, value in values.items():
            if name not in self.hyperparameters and name not in self.logged_metrics:
                self.hyperparameters[name] = value
                self.origins[name] = origin
        for name, value in logged.items():
            if name in self.logged_metrics or self.hyperparameters.get(name) == value:
                continue
            column = f"{name} (logged)" if name in self.hyperparameters else name
            if column not in self.logged_metrics:
                self.logged_metrics[column] = value
                self.origins[column] = origin


def split_scores(values: Values) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Split values of unknown kind into hyperparameters and metrics, by their names."""
    scores = {name: value for name, value in values.items() if _is_score(name, value)}
    return {name: value for name, value in values.items() if name not in scores}, scores


class RunFiles:
    """Reads the files of runs, each once.

    Args:
        folders: The sweep's folder, and that of its remote runs if there are any.
        is_allowed: Whether a file may be read, as links may leave the allowed folders.

    Attributes:
        findings: Files that could not be read, or only in part.
    """

    def __init__(self, folders: Sequence[Path], is_allowed: Callable[[Path], bool]) -> None:
        self.findings: list[Finding] = []
        self._folders = folders
        self._is_allowed = is_allowed
        self._read: dict[Path, _File] = {}
        # The folder may itself be a run, whose snapshots are the ingredients.
        own = read_run(folders[0])
        is_run = own.tool is not None and len(own.snapshots) > 1
        self._own = {s.path: (own, s) for s in own.snapshots} if is_run else {}

    @property
    def files(self) -> set[str]:
        """The files that were read, relative to their folder."""
        return {file.origin for file in self._read.values()}

    def describe(
        self, into: RunDetails, name: str, run: Run, snapshot: Snapshot, details: Values
    ) -> None:
        """Add the values for a snapshot in the files of its run.

        Args:
            into: Receives the values.
            name: The ingredient, for findings.
            run: Its run.
            snapshot: Its snapshot.
            details: Plain values in the checkpoint, which may include its epoch.
        """
        run, snapshot = self._own.get(snapshot.path, (run, snapshot))
        places = list(_places(run, snapshot))
        for path in _found(places, _first(run, "hyperparameters", HYPERPARAMETERS)):
            file = self._file(path, name)
            into.add(file.values, {}, file.origin)
        is_last = snapshot.kind in ("last", "final")
        if snapshot.kind == "final":  # the Trainer's log of a final model is in its last checkpoint
            places += [inner for inner in reversed(run.folders) if inner not in places]
        for path in _found(places, _first(run, "logged", LOGGED)):
            file = self._file(path, name)
            epoch, step = _time_of(run, snapshot, details, file.rows, into.hyperparameters)
            row = _row_at(file.rows, epoch, step, is_last) or _row_like(file.rows, details)
            time = next((f", epoch {row[key]:g}" for key in _EPOCHS if key in row), "")
            into.add({}, row, file.origin + (time if len(file.rows) > 1 else ""))

    def _file(self, path: Path, name: str) -> "_File":
        if path not in self._read:
            folder = next(each for each in self._folders if path.is_relative_to(each))
            origin = clean(path.relative_to(folder).as_posix())
            problems = Problems()
            file = _File(origin)
            if not self._is_allowed(path):
                problems.append("is a link that leads out of the allowed folders")
            else:
                try:
                    file = _read_file(path, origin, problems)
                except (CheckpointError, TableError) as error:
                    problems.append(_predicate(error, path))
            self._read[path] = file
            self.findings += [
                Finding("warning", name, "", f"{origin} {problem}", _WAY_OUT)
                for problem in problems
            ]
        return self._read[path]


@dataclass(frozen=True)
class _File:
    """A file of a run: hyperparameters, or rows of logged metrics."""

    origin: str
    values: dict[str, Scalar] = field(default_factory=dict)
    rows: Sequence[dict[str, Scalar]] = ()


def _predicate(error: CheckpointError | TableError, path: Path) -> str:
    text = error.problem if isinstance(error, CheckpointError) else str(error)
    return text.removeprefix(str(path)).strip().rstrip(".")


def _read_file(path: Path, origin: str, problems: Problems) -> _File:
    name = path.name
    if name == "training_args.bin":
        return _File(origin, {clean(key): value for key, value in values_in(path).items()})
    if name == "trainer_state.json":
        return _File(origin, rows=_measured(read_log(path, "log_history", problems)))
    if path.suffix in (".csv", ".jsonl"):
        return _File(origin, rows=_measured(read_rows(path, problems)))
    if name == "config.json":
        values = read_object(path, problems)
        kept = {key: value for key, value in values.items() if key in _OF_CONFIG}
        return _File(origin, kept | {key: v for key, v in values.items() if "dropout" in key})
    if name == "params.txt":
        return _File(origin, read_lines(path, problems))
    is_yaml = path.suffix in (".yaml", ".yml")
    values = read_yaml(path, problems) if is_yaml else read_object(path, problems)
    values = {key: value for key, value in values.items() if not key.startswith("_wandb")}
    is_log = name in {Path(file).name for file in LOGGED}
    return _File(origin, rows=_measured([Row(values, values)])) if is_log else _File(origin, values)


def _measured(rows: Iterable[Row]) -> list[dict[str, Scalar]]:
    """Return the numbers of each row."""
    numbers = (
        {key.strip(): v for key, v in row.values.items() if type(v) in (int, float)} for row in rows
    )
    return [row for row in numbers if row]


def _first(run: Run, kind: str, every: Sequence[str]) -> Iterator[str]:
    """Yield the files of the run's tool, then those of other tools that log to its folder."""
    own: tuple[str, ...] = getattr(run.tool, kind, ())
    yield from dict.fromkeys((*own, *every))


def _places(run: Run, snapshot: Snapshot) -> Iterator[Path]:
    """Yield the folders of a snapshot, from its own up to that of the run."""
    if not run.folders:  # in the sweep's own folder, whose files belong to no single run
        return
    at = snapshot.path if snapshot.path.is_dir() else snapshot.path.parent
    while at != run.place and run.place in at.parents:
        yield at
        at = at.parent
    yield run.place


def _found(places: Sequence[Path], names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        for place in places:
            if (place / name).is_file():
                yield place / name
                break


def _time_of(
    run: Run,
    snapshot: Snapshot,
    details: Values,
    rows: Sequence[Values],
    hyperparameters: Values,
) -> tuple[int | None, int | None]:
    """Return the epoch, as counted in the log, and the step of a snapshot, if known."""
    epoch, step = snapshot.epoch, snapshot.step
    if snapshot.kind == "average":
        return None, None
    if snapshot.kind == "final" and hyperparameters.get("load_best_model_at_end") is True:
        best = run.named("best")
        return None, best.snapshot.step if best else None
    if epoch is None and step is None:
        epoch, step = _whole(details, ("epoch",)), _whole(details, ("global_step", "step"))
    if epoch is not None and run.tool is not None and run.tool.counts_from is not None:
        first = min((e for row in rows if (e := _whole(row, _EPOCHS)) is not None), default=0)
        epoch += min(first, 1) - run.tool.counts_from
    return epoch, step


def _whole(values: Values, names: Iterable[str]) -> int | None:
    """Return the first of these values that is an integer >= 0."""
    for name in names:
        value = values.get(name)
        if isinstance(value, int | float) and value >= 0 and value == int(value):
            return int(value)
    return None


def _row_at(
    rows: Sequence[dict[str, Scalar]], epoch: int | None, step: int | None, is_last: bool
) -> dict[str, Scalar]:
    """Return the metrics logged at a step or else epoch; merged if there are several rows."""
    if step is not None:
        for at in (step, step - 1):  # Lightning counts steps in its log from 0
            if found := [row for row in rows if _whole(row, _STEPS) == at]:
                return _merged(found)
    if epoch is not None and (found := [row for row in rows if _whole(row, _EPOCHS) == epoch]):
        return _merged(found)
    if len(rows) == 1 and (epoch is step is None or _whole(rows[0], (*_EPOCHS, *_STEPS)) is None):
        return rows[0]
    if not is_last or not rows:
        return {}
    key = next((key for key in (*_EPOCHS, *_STEPS) if key in rows[-1]), None)
    return _merged([row for row in rows if key and row.get(key) == rows[-1][key]] or rows[-1:])


def _row_like(rows: Sequence[dict[str, Scalar]], details: Values) -> dict[str, Scalar]:
    """Return the row with the same scores as in the checkpoint (Ultralytics)."""
    scores = {name: v for name, v in details.items() if _is_score(name, v)}
    for row in reversed(rows):
        shared = [(row[name], scores[name]) for name in scores if name in row]
        if len(shared) > 1 and all(_are_close(one, other) for one, other in shared):
            return row
    return {}


def _are_close(one: Scalar, other: Scalar) -> bool:
    both = isinstance(one, int | float) and isinstance(other, int | float)
    return both and math.isclose(float(one or 0), float(other or 0), rel_tol=_CLOSE, abs_tol=1e-5)


def _merged(rows: Iterable[Mapping[str, Scalar]]) -> dict[str, Scalar]:
    merged: dict[str, Scalar] = {}
    for row in rows:
        merged |= row
    return merged


def _is_score(name: str, value: Scalar) -> bool:
    if type(value) not in (int, float):
        return False
    words = {part for part in name.lower().replace("/", "_").replace(".", "_").split("_") if part}
    return not words & _NO_SCORE and role_of(name, value, beside=False) == SCORE
