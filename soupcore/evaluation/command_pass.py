"""Evaluation of a point by the command of a task, in place of forward passes."""

import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import torch
from torch import Tensor

from soupcore.checkpoints import Checkpoint
from soupcore.errors import Cancelled, CheckpointError
from soupcore.evaluation.scoring import ExampleRecords
from soupcore.merges import Derived
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress
from soupcore.tasks.command import CommandTask
from soupcore.workspace import private_folder, workspace_folder
from soupcore.writers import Output
from soupcore.writers.hub_files import CONFIG, copy_file, hub_files

_POLL = 0.05  # seconds


class CommandPass:
    """Evaluates points by the command of a task, with the interface of `ForwardPass`.

    Args:
        task: The task.

    Attributes:
        notes: Always empty.
    """

    def __init__(self, task: CommandTask) -> None:
        self._task = task
        self._writing = threading.Lock()  # weights are written one after the other
        self.notes: list[str] = []

    def run(
        self,
        mixture: Mixture,
        split: str,
        *,
        on_progress: Progress = no_progress,
        **ignored: object,
    ) -> ExampleRecords:
        """Write the weights of a point, run the command, and return its metrics as one example.

        Args:
            mixture: The point.
            split: Name of the split.
            on_progress: Called with 0 of 1 while the command runs. Raise in it to cancel.
            ignored: The other options of `ForwardPass.run`, which do not apply to a command.

        Raises:
            TaskError: The command fails.
            CheckpointError: The weights cannot be written in the form that the command reads.
        """
        folder = private_folder(workspace_folder() / "commands")
        with tempfile.TemporaryDirectory(prefix="weights-", dir=folder) as scratch:
            with self._writing:
                file = self._file(mixture, Path(scratch))
            metrics = self._task.measure(file, split, lambda: on_progress(0, 1))
        on_progress(1, 1)
        targets = torch.zeros(1)
        # Copies: arrays that share memory cannot be written to one file.
        loss, score = self._task.loss(metrics, targets), self._task.score(metrics, targets)
        return ExampleRecords(loss.clone(), score.clone(), metrics.clone(), metrics)

    def run_all(
        self, points: Mapping[str, Mixture], split: str, on_wait: Callable[[int], None]
    ) -> Generator[tuple[str, ExampleRecords, float]]:
        """Evaluate several points, as many at the same time as the task allows.

        Args:
            points: The points, by any key.
            split: Name of the split.
            on_wait: Called in this thread with the number of points that are done, while commands
                run. Raise in it to end all of them.

        Yields:
            The key of each point, its metrics as one example, and the seconds that it took, in the
            order in which the commands end.

        Raises:
            TaskError, CheckpointError: As for `run`; the other commands are ended.
        """
        is_stopped = threading.Event()

        def check(done: int, total: int) -> None:
            if is_stopped.is_set():
                raise Cancelled

        def one(mixture: Mixture) -> tuple[ExampleRecords, float]:
            check(0, 1)
            started = time.perf_counter()
            return self.run(mixture, split, on_progress=check), time.perf_counter() - started

        with ThreadPoolExecutor(self._task.at_once) as pool:
            waiting = {pool.submit(one, mixture): key for key, mixture in points.items()}
            try:
                while waiting:
                    on_wait(len(points) - len(waiting))
                    ended, _ = wait(waiting, _POLL, FIRST_COMPLETED)
                    for future in ended:
                        yield waiting.pop(future), *future.result()
                on_wait(len(points))
            finally:
                is_stopped.set()

    def targets(self, split: str) -> Tensor:
        """Return the targets of a split, placeholders for its single example."""
        targets: Tensor = self._task.split(split).targets
        return targets

    def _file(self, mixture: Mixture, folder: Path) -> Path:
        """Return a file with the weights of a point: the ingredient's own, or a new one."""
        first, *_ = mixture.sources.values()
        form = _file_of(first)
        as_ingredient = self._task.form == "ingredient"
        if self._task.form == "folder":
            return self._folder(mixture, form, folder / "model")
        is_alone = [*mixture.coefficients.values()] == [1] and not isinstance(first, Derived)
        if is_alone and as_ingredient and not form.weight_sets and form.path.is_file():
            return form.path
        output = Output(mixture, form)
        suffix = output.pt_suffix if as_ingredient and output.why_no_pt is None else ".safetensors"
        path = folder / f"model{suffix}"
        output.save(path, {"task": self._task.name})
        return path

    def _folder(self, mixture: Mixture, form: Checkpoint, folder: Path) -> Path:
        """Write the weights of a point, its configuration and its tokenizer; return the folder."""
        place = form.files[0].parent if form.files else form.path.parent
        root = place.parent.parent if place.name.startswith("checkpoint-") else place.parent
        known = hub_files({form.path.name: form}, root)
        if known is None:
            raise CheckpointError(
                f"{form.path} is not in a Hugging Face folder: there is no config.json beside it.",
                'Leave out `form = "folder"`.',
            )
        folder.mkdir()
        (folder / CONFIG).write_text(known.config_text(None))
        for name, source in known.copied.items():
            with (folder / name).open("wb") as file:
                copy_file(source, file)
        Output(mixture, form).save(folder / f"{known.stem}.safetensors", {"task": self._task.name})
        return folder


def _file_of(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint that is a file: itself, or the first source of a merge."""
    return _file_of(checkpoint.sources[0]) if isinstance(checkpoint, Derived) else checkpoint
