r"""Tasks that run a command of the user, described by a TOML file.

    run = "python eval.py --weights {checkpoint} --split {split}"
    form = "ingredient"       # as the first ingredient's file; or "safetensors"; or "folder", for
                              # `from_pretrained`, of ingredients in Hugging Face folders
    time_limit = 3600         # seconds for one run of the command
    at_once = 1               # maximum number of concurrent runs of the command

    [splits]
    val = "select"            # name = role
    test = "report"

    [metrics.accuracy]        # the first metric is primary
    range = [0, 1]

    [metrics.loss]
    higher_is_better = false
    key = "val_loss"          # the key in the JSON, unless it is the metric's name

The command runs in the folder of the file, without a shell, once for each point and split. It gets
the path of a checkpoint with the weights of the point, and prints its metrics as a JSON object at
the end of its output. Instead, it may write them to a file (`result = "metrics.json"`), or
`pattern = 'top-1: ([0-9.]+)'` of a metric may find them in the output.

A metric is one number per split, so there are no intervals, no ensembles and no gradients.
`percent = true` divides a metric by 100: it is a share, written as a percentage.

    # validate.py of timm, which ends with JSON
    run = "python validate.py data/{split} --model resnet18 --checkpoint {checkpoint}"
    [metrics.top1]
    percent = true

For harnesses that do not end with JSON, a pattern finds the number:

    # Ultralytics
    run = "yolo val model={checkpoint} data=data.yaml split={split}"
    [metrics.mAP]
    range = [0, 1]
    pattern = 'all +\d+ +\d+ +\S+ +\S+ +\S+ +(\S+)'

    # lm-evaluation-harness, which takes a folder
    form = "folder"
    run = "lm_eval --model hf --model_args pretrained={checkpoint} --tasks {split}"
    [metrics.acc]
    range = [0, 1]
    pattern = 'acc *\| *↑ *\| *([0-9.]+)'
"""

import hashlib
import json
import math
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast, get_args

import torch
from torch import Tensor, nn

from soupcore.errors import TaskError
from soupcore.new_files import create_private
from soupcore.processes import has_exited, kill_group
from soupcore.tasks.description import Role
from soupcore.tasks.metrics import Metric
from soupcore.tasks.splits import Split
from soupcore.tasks.task import Task
from soupcore.tasks.toml_file import TomlFile
from soupcore.workspace import private_folder, workspace_folder

_KEYS = {
    "run", "form", "time_limit", "at_once", "result", "splits", "metrics", "name", "version",
}  # fmt: skip
_METRIC_KEYS = {"higher_is_better", "range", "unit", "percent", "key", "pattern"}
_FORMS = ("ingredient", "safetensors", "folder")
_POLL = 0.05  # seconds
_LAST_LINES = 8
_MOST_BYTES = 1 << 20  # read from the output, or from a file for the identity


class CommandSplit(Split):
    """A split that is read only by the command. It counts as one example."""

    def __init__(self, role: Role, digest: str) -> None:
        super().__init__(role, torch.zeros(1, 1), torch.zeros(1))
        self.digest = digest


class CommandTask(Task):
    """A task whose metrics a command reports.

    Args:
        path: The TOML file.

    Attributes:
        form: The form of the checkpoint that the command takes: `ingredient`, `safetensors`, or
            `folder`, with its configuration and tokenizer.
        at_once: Maximum number of concurrent runs of the command.

    Raises:
        TaskError: The file is invalid.
    """

    loss_name = "loss"
    has_gradients = False

    def __init__(self, path: Path) -> None:
        file = TomlFile(path, _KEYS)
        settings = file.settings
        self._folder = path.resolve().parent
        self._command = _command(file)
        self._time_limit = settings.get("time_limit", math.inf)
        if type(self._time_limit) not in (int, float) or self._time_limit <= 0:
            raise TaskError(f"{path}: `time_limit` must be a number > 0, not {self._time_limit!r}.")
        self.at_once: int = file.number("at_once", 1) or 1
        self._result = file.text("result") if "result" in settings else None
        if self._result is not None and self.at_once > 1 and "{folder}" not in self._result:
            raise TaskError(
                f"{path}: concurrent runs would overwrite the same `result`. Put it into "
                "{folder}, which differs for each run, and pass {folder} to the command."
            )
        self.form: str = settings.get("form", "ingredient")
        if self.form not in _FORMS:
            raise TaskError(f"{path}: `form` is one of {', '.join(_FORMS)}, not {self.form!r}.")
        if not any("{checkpoint}" in part for part in self._command):
            raise TaskError(f"{path}: `run` needs {{checkpoint}}, the path of the weights.")
        self._read_by, metrics = _metrics(file)
        digest = _digest(file)
        splits = {
            name: CommandSplit(role, hashlib.sha256(f"{digest} {name}".encode()).hexdigest())
            for name, role in _splits(file).items()
        }
        super().__init__(_no_network, splits, name=file.name, metrics=metrics)
        self.source_digest = digest

    has_batchnorm = False

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the metric called `loss`; without one, minus the primary score."""
        names = [metric.name for metric in self.metrics]
        if "loss" in names:
            return outputs[:, names.index("loss")]
        return -self.default_metric.sign * outputs[:, 0]

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the metrics."""
        return outputs

    def measure(self, checkpoint: Path, split: str, on_wait: Callable[[], None]) -> Tensor:
        """Run the command and return its metrics, in the order of the file.

        Args:
            checkpoint: The file with the weights.
            split: Name of the split.
            on_wait: Called while the command runs; raise in it to stop the command.

        Returns:
            Values of the metrics, float32, shape [1, metrics].

        Raises:
            TaskError: The command fails, takes too long, or does not report a metric. The message
                has the end of its output and the path of the log file.
        """
        with tempfile.TemporaryDirectory(prefix="stockpot-") as scratch:
            result = self._result and self._result.replace("{folder}", scratch)
            places = {"{checkpoint}": str(checkpoint), "{split}": split, "{folder}": scratch}
            command = [_filled(part, places) for part in self._command]
            output = self._run(command, on_wait)
            text = output.text
            if result is not None:
                try:
                    text = (self._folder / result).read_text()
                except OSError as error:
                    output.fail(f"did not write {result} ({error.strerror})")
            found = [read(text, output) for read in self._read_by]
        return torch.tensor([found])

    def _run(self, command: list[str], on_wait: Callable[[], None]) -> "_Output":
        folder = private_folder(workspace_folder() / "commands")
        log = folder / f"{hashlib.sha256(shlex.join(command).encode()).hexdigest()[:16]}.log"
        log.unlink(missing_ok=True)
        create_private(log)
        output = _Output(command, log)
        started = time.monotonic()
        with log.open("wb") as file:
            try:
                process = subprocess.Popen(  # noqa: S603 - named when the program was started
                    command,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                output.fail(f"cannot be started: {error.strerror}")
            try:
                while not has_exited(process):
                    if time.monotonic() - started > self._time_limit:
                        output.fail(f"took longer than {self._time_limit:g} s and was stopped")
                    on_wait()
                    time.sleep(_POLL)
            finally:
                kill_group(process.pid)  # with its child processes
                process.wait()
        if process.returncode < 0:
            output.fail(f"was killed by {signal.Signals(-process.returncode).name}")
        if process.returncode:
            output.fail(f"ended with exit code {process.returncode}")
        return output


@dataclass(frozen=True)
class _Output:
    """The output of a command."""

    command: list[str]
    log: Path

    @property
    def text(self) -> str:
        """The end of the output."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _MOST_BYTES))
            return file.read().decode(errors="backslashreplace")

    def fail(self, problem: str) -> NoReturn:
        """Raise an error that names the command and shows the end of its output."""
        lines = "\n".join(self.text.strip().splitlines()[-_LAST_LINES:])
        end = f"\nThe last lines that it printed:\n{lines}" if lines else ""
        raise TaskError(
            f"The command {shlex.join(self.command)} {problem}. Its output is in {self.log}.{end}"
        )


Read = Callable[[str, _Output], float]


def load(path: Path) -> CommandTask:
    """Return the task of a TOML file; see `CommandTask`."""
    return CommandTask(path)


def signature(path: Path) -> str:
    """Return the identity of a description and of the files that its command names.

    Raises:
        TaskError: The file is invalid.
    """
    return _digest(TomlFile(path, _KEYS))


def _command(file: TomlFile) -> list[str]:
    """Return the words of the command."""
    try:
        return shlex.split(file.text("run"))
    except ValueError as error:
        raise TaskError(f"{file.path}: `run` is not a valid command ({error}).") from None


def _splits(file: TomlFile) -> dict[str, Role]:
    found = file.settings.get("splits")
    if not isinstance(found, dict) or not found:
        raise TaskError(f'{file.path} needs a table [splits], such as val = "select".')
    for name, role in found.items():
        if role not in get_args(Role):
            raise TaskError(
                f"{file.path}: the role of the split {name!r} is one of "
                f"{', '.join(get_args(Role))}, not {role!r}."
            )
    return cast("dict[str, Role]", found)


def _metrics(file: TomlFile) -> tuple[list[Read], list[Metric]]:
    """Return a reader for each metric, and the metrics."""
    found = file.settings.get("metrics")
    if not isinstance(found, dict) or not found:
        raise TaskError(f"{file.path} needs a table for each metric, such as [metrics.accuracy].")
    reads: list[Read] = []
    metrics = []
    for place, (name, of) in enumerate(found.items()):
        if not isinstance(of, dict):
            raise TaskError(f"{file.path}: `{name}` in [metrics] must be a table [metrics.{name}].")
        file.check_keys(of, _METRIC_KEYS)
        is_percent = of.get("percent", False)
        metrics.append(
            Metric(
                name,
                of.get("higher_is_better", True),
                (0.0, 1.0) if is_percent else _limits(file, name, of.get("range")),
                of.get("unit", ""),
                compute=partial(_column, place),
                source="outputs",
            )
        )
        if "pattern" in of:
            read: Read = partial(_by_pattern, _compiled(file, name, of["pattern"]), name)
        else:
            read = partial(_by_key, str(of.get("key", name)))
        reads.append(partial(_share, read) if is_percent else read)
    return reads, metrics


def _limits(file: TomlFile, name: str, limits: Any) -> tuple[float, float] | None:
    """Return the range of a metric; None without one."""
    match limits:
        case None:
            return None
        case [int() | float() as low, int() | float() as high]:
            return float(low), float(high)
    raise TaskError(f"{file.path}: `range` of the metric {name!r} must be a list of two numbers.")


def _compiled(file: TomlFile, name: str, pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise TaskError(
            f"{file.path}: `pattern` of the metric {name!r} must be a regular expression: {error}."
        ) from None


def _column(place: int, outputs: Tensor, targets: Tensor) -> float:
    return float(outputs[0, place])


def _share(read: Read, text: str, output: _Output) -> float:
    """Return a percentage as a share."""
    return read(text, output) / 100


def _by_key(key: str, text: str, output: _Output) -> float:
    """Return a number from the JSON object in the text or in its last lines."""
    found = _object_in(text)
    if found is None:
        example = json.dumps({key: 0.9})
        output.fail(f"does not end its output with JSON such as {example}")
    value = found.get(key)
    if not isinstance(value, int | float):
        output.fail(f"reports no number {key!r}; it reports {', '.join(map(str, found))}")
    return float(value)


def _object_in(text: str) -> dict[str, Any] | None:
    end = text.rstrip()
    if not end.endswith("}"):
        return None
    for begin in reversed([match.start() for match in re.finditer(r"^\s*{", end, re.MULTILINE)]):
        try:
            return cast("dict[str, Any]", json.loads(end[begin:]))
        except (ValueError, RecursionError):
            continue  # a line of the object, or one printed before it
    return None


def _by_pattern(pattern: re.Pattern[str], name: str, text: str, output: _Output) -> float:
    """Return the number in the last match of a pattern."""
    found = [*pattern.finditer(text)]
    try:
        return float(found[-1].group(1))
    except (IndexError, ValueError):
        output.fail(f"reports no {name}: nothing in its output matches {pattern.pattern!r}")


def _digest(file: TomlFile) -> str:
    """Return a digest of the file and of the files that the command names."""
    version = str(file.settings.get("version", ""))
    sha = hashlib.sha256(file.path.read_bytes() + version.encode())
    for part in _command(file):
        named = file.path.resolve().parent / part
        if named.is_file() and named.stat().st_size <= _MOST_BYTES:
            sha.update(named.read_bytes())
    return sha.hexdigest()


def _filled(part: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        part = part.replace(name, value)
    return part


def _no_network() -> nn.Module:
    raise TaskError(
        "This task is evaluated by a command, so Stockpot has no network to compute gradients "
        "with. Choose a recipe that does not learn, such as greedy."
    )
