"""`Task`, the base class of tasks, and the lines of users' code that failed."""

import hashlib
import inspect
import site
import traceback
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from soupcore.errors import Cancelled, StockpotError, TaskError
from soupcore.tasks.description import TaskInfo
from soupcore.tasks.metrics import Metric, MetricInfo, metric_named, metrics_of_groups
from soupcore.tasks.networks import Precision, check_precision, norms_of, tensor_of
from soupcore.tasks.parts import Part
from soupcore.tasks.splits import Shown, Split
from soupcore.tasks.torchmetrics_metric import from_torchmetrics, is_torchmetric

_GIVE_GROUPS = (
    "Give each split `groups`, one per example; in a TOML file, `group` names their column."
)


class Task(TaskInfo[Split]):
    """An architecture, splits of data, and a loss and a score per example, to evaluate weights.

    Attributes:
        metrics: The metrics; empty for the mean of `score` alone.
        groups: The names of the groups of examples, sorted; empty without groups.

    Subclass it, for example for regression; for classification, use `ClassificationTask`.

    Args:
        build_model: Returns the network; its initial weights are not used.
        splits: `{name: Split}`, exactly one with the role `select`. Shifts are named `shift/...`.
        name: Name for display.
        metrics: The metrics: names of built-in metrics (see `soupcore.tasks.metrics.METRICS`),
            `Metric`s, or objects of torchmetrics (see `soupcore.tasks.from_torchmetrics`). The
            first is primary: rankings and recipes use it. The default is the mean of `score`. If
            splits have groups, `worst-group SCORE` is the lowest mean score of a group, and `SCORE
            by group` the mean score of each, with the name of the score, such as `worst-group
            accuracy`.
        precision: Precision of evaluation: `float32` leaves the network as `build_model` returns
            it; `bfloat16` and `float16` cast its weights, buffers and floating-point inputs after
            mixing; `bfloat16 autocast` and `float16 autocast` compute by `torch.autocast`. Losses
            and scores are computed in float32. Below float32, shortcuts and early rejection are
            off, since results may depend on the batch. Gradients, as for learned soups, are always
            those of the network as returned.
        version: Change it after changes of the task outside of its data and file, so that earlier
            evaluations are not reused.

    Raises:
        TaskError: Not exactly one split has the role `select`, a metric needs groups but a
            `select`, `report` or `shift` split lacks them, or a metric or `record` does not take
            weights.
    """

    metrics: tuple[Metric, ...]

    #: Maximum size of the records of one evaluation, in bytes (see `record`).
    record_budget: int = 4 << 30

    #: Default batch size; None for the evaluator's.
    batch_size: int | None = None

    def __init__(
        self,
        build_model: Callable[[], nn.Module],
        splits: Mapping[str, Split],
        *,
        name: str = "task",
        metrics: Sequence[Any] = (),
        version: str = "",
        precision: Precision = "float32",
    ) -> None:
        self.groups = _all_groups(splits)
        self.has_groups = bool(self.groups)
        self._numbers: dict[str, Tensor] = {}  # of the groups, by split
        known = [each for metric in metrics for each in self._metrics(metric)]
        super().__init__(name, splits, known)
        check_precision(precision, f"the task {name!r}")
        self.precision = precision
        self.build_model = build_model
        self.version = version
        self.shows_examples = type(self).show is not Task.show or all(
            split.shown is not None for split in splits.values()
        )
        #: SHA-256 of the file it was loaded from, if any.
        self.source_digest: str | None = None
        #: The argument of `load_task`; "" for a task made in Python.
        self.spec = ""
        if any(metric.against == "groups" for metric in self.metrics):
            self._check_groups()
        self._check_weights()

    def _metrics(self, metric: Any) -> list[Metric]:
        """Return the metrics for a name or an object of torchmetrics."""
        if isinstance(metric, Metric):
            return [metric]
        if is_torchmetric(metric):
            return [from_torchmetrics(metric, of_classes=self.is_classification)]
        if not isinstance(metric, str):
            raise TaskError(
                f"{metric!r} is not a metric. Pass the name of a built-in metric, a "
                "soupcore.Metric, or an object of torchmetrics."
            )
        mean = Metric(self.score_name, range=self.score_range)
        of_groups = metrics_of_groups(mean, self.groups)
        if metric in of_groups and not self.groups:
            raise TaskError(f"The metric {metric!r} needs groups. {_GIVE_GROUPS}")
        known = {mean.name: [mean], **of_groups}
        return known[metric] if metric in known else [metric_named(metric, known)]

    def _check_groups(self) -> None:
        """Check that there are groups, the same in the `select` and `report` splits."""
        counts = {
            name: Counter(split.groups or ())
            for name, split in self.splits.items()
            if split.role in ("select", "report", "shift")
        }
        lacking = [name for name, found in counts.items() if not found]
        if lacking:
            raise TaskError(
                f"A metric of the task {self.name!r} needs groups, but the split {lacking[0]!r} "
                f"has none. {_GIVE_GROUPS}"
            )
        # A shift may have other groups.
        alike = {name: own for name, own in counts.items() if self.splits[name].role != "shift"}
        groups = [group for group in self.groups if any(own[group] for own in alike.values())]
        for name, own in alike.items():
            missing = [group for group in groups if not own[group]]
            if missing:
                sizes = "; ".join(
                    f"{split}: {', '.join(f'{group} {of[group]}' for group in groups)}"
                    for split, of in alike.items()
                )
                raise TaskError(
                    f"The split {name!r} of the task {self.name!r} has no example of the group "
                    f"{missing[0]!r}, so its worst-group metrics are not comparable with those of "
                    f"other splits. Examples per group: {sizes}. Join groups, or move examples "
                    "between the splits."
                )

    def _check_weights(self) -> None:
        """Check that metrics and `record` take the weights of examples and tokens."""
        for name, split in self.splits.items():
            unable = next((m for m in self.metrics if not m.is_mean and not m.takes_weights), None)
            if split.is_weighted and unable is not None:
                raise TaskError(
                    f"The split {name!r} of the task {self.name!r} has weights, but the metric "
                    f"{unable.name!r} takes none. Leave out the metric or the weights, or pass a "
                    "Metric with `takes_weights=True`, whose `compute` takes `weights`."
                )
            if split.token_weights is not None and not _takes_weights(self.record):
                raise TaskError(
                    f"The split {name!r} of the task {self.name!r} has weights of tokens, but "
                    f"`record` of {type(self).__name__} takes none. Weigh whole examples, shape "
                    "[n], or give `record` an argument `weights=None`."
                )

    @property
    def mean_score(self) -> MetricInfo:
        """The mean of `score` as a metric."""
        name = type(self).score_name if self.metrics else self.score_name
        return MetricInfo(name, range=self.score_range)

    def groups_of(self, split: str) -> Tensor | None:
        """Return the index of each example's group in `groups`, int64, shape [n].

        None if the split, or the part of one, has no groups.
        """
        names = self.split(split).groups
        if names is None:
            return None
        if split not in self._numbers:
            numbers = {group: number for number, group in enumerate(self.groups)}
            self._numbers[split] = torch.tensor([numbers[name] for name in names])
        return self._numbers[split]

    def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        """Reduce a batch of outputs to the record of each example, shape [m, ...].

        Stored for each example in place of the network's output, and passed as the outputs to
        `loss`, `score`, `predict` and `check`. The default is the output itself: the tensor, or the
        one called `logits`. Override it if outputs are large or differ in shape between batches: a
        language model needs the summed loss and the number of tokens of each example, not its
        logits. If splits have weights of tokens, it takes a further argument `weights`, shape [m,
        tokens], zero for padding.

        Args:
            outputs: The return value of the network.
            inputs: The batch of network inputs, after `prepare`.
            targets: The targets of the batch, shape [m, ...]; padded with -100 if they differ in
                length.

        Raises:
            TaskError: The network returned no such tensor.
        """
        return tensor_of(outputs)

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each example, shape [n]; lower is better.

        Each loss depends on the output and target of its own example only: batches may have any
        size. NaN means undefined (see `undefined`).
        """

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the score of each example, shape [n]; higher is better. See `loss` for the rules.

        The default is minus the loss, which suffices for metrics with a `compute`.
        """
        return -self.loss(outputs, targets)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the prediction for each example, shape [n, ...]."""
        return outputs

    def show(self, split: str, index: int) -> Shown:
        """Return an example for display; optional.

        The Compare page shows examples that one network predicts correctly and another one does
        not. By default, the split shows them, as those of image folders and of texts of Hugging
        Face tasks can.

        Args:
            split: Name of the split.
            index: Index of the example in it, from 0.

        Raises:
            TaskError: The split cannot show examples.
        """
        if (shown := self.split(split).shown) is not None:
            return shown(index)
        raise TaskError(
            f"The task {self.name!r} has no `show(split, index)`, so its examples are not shown."
        )

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Check that outputs and targets are valid for `loss` and `score`.

        Called once for each split, before the first loss. The default checks that no target is NaN
        and makes an example undefined, unless such examples are excluded.

        Args:
            outputs: Outputs of a few examples, shape [m, ...].
            targets: All targets of the split, shape [n, ...].

        Raises:
            TaskError: The outputs or targets are invalid.
        """
        if self.undefined == "exclude" or not targets.is_floating_point():
            return
        rows = targets.reshape(len(targets), -1).isnan().any(1).nonzero().flatten()
        if not len(rows) or not outputs[:1].isfinite().all():
            return
        without_target = targets[rows[:1]]
        for name, function in (("loss", self.loss), ("score", self.score)):
            if function(outputs[:1], without_target).isnan().any():
                raise TaskError(
                    f"{len(rows)} of {len(targets)} targets contain NaN, first at example "
                    f"{int(rows[0])}, which makes its {name} NaN. Leave these examples out of the "
                    f'split, have `{name}` ignore them, or set `undefined = "exclude"` on the task.'
                )

    def new_model(self) -> nn.Module:
        """Return a new network from `build_model`.

        Raises:
            TaskError: `build_model` fails, or does not return a module.
        """
        try:
            model = self.build_model()
        except (StockpotError, Cancelled, MemoryError):
            raise
        except Exception as error:
            raise TaskError(
                f"`build_model` of the task {self.name!r} raised {type(error).__name__}: {error}. "
                f"{place_of(error)}"
            ) from error
        if not isinstance(model, nn.Module):
            raise TaskError(
                f"`build_model` of the task {self.name!r} returned a {type(model).__name__}; "
                "return a torch.nn.Module, without loading a checkpoint."
            )
        return model

    def rows_of(self, part: str) -> Tensor:
        """Return the indices of a part's examples in its split, ascending, int64, shape [n]."""
        found = self.split(part)
        if not isinstance(found, Part):
            raise TaskError(f"{part!r} is a whole split.")
        return found.rows

    def _part_of(self, name: str, n: int) -> Part:
        return Part(self.split(name), n)

    @cached_property
    def has_batchnorm(self) -> bool:
        """Whether the network has layers with running statistics, such as BatchNorm.

        Raises:
            TaskError: The network cannot be built.
        """
        return bool(norms_of(self.new_model()))

    @cached_property
    def key(self) -> str:
        """Identity of the measurement, without the data: 64 hex digits.

        It covers the task's file if loaded from one, else the printed network; and the class, its
        module, `version`, `undefined`, `precision` and the metrics.
        """
        parts = [
            type(self).__module__ if self.source_digest is None else "",
            type(self).__qualname__,
            self.version,
            self.source_digest or repr(self.new_model()),
        ]
        if self.undefined != "refuse":
            parts.append(self.undefined)
        if self.precision != "float32":
            parts.append(self.precision)
        parts += [str(metric.to_json()) for metric in self.metrics]
        parts += [metric.definition for metric in self.metrics if metric.definition]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def place_of(error: BaseException) -> str:
    """Return the line of a task's code that failed, as a sentence; "" if unknown.

    It is the innermost line outside of Stockpot and installed packages.
    """
    found = None
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        found = error.filename, error.lineno, error.text or ""
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.lineno and _is_the_users(frame.filename):
                found = frame.filename, frame.lineno, frame.line or ""
    if found is None:
        return ""
    file, line, text = found
    return f"It failed at {file}:{line}" + (f": {text.strip()}" if text.strip() else ".")


def _takes_weights(record: Callable[..., Any]) -> bool:
    return "weights" in inspect.signature(record).parameters


def _all_groups(splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the groups of all splits except `train`, sorted."""
    evaluated = [split.groups for split in splits.values() if split.role != "train"]
    return tuple(sorted({group for groups in evaluated for group in groups or ()}))


def _is_the_users(file: str) -> bool:
    path = Path(file)
    return path.is_file() and not any(path.is_relative_to(folder) for folder in _installed())


@cache
def _installed() -> list[Path]:
    """Return the folders of Stockpot, of installed packages, and of Python's own modules."""
    folders = [Path(__file__).parents[1], Path(site.__file__).parent]
    folders += [Path(folder) for folder in site.getsitepackages()]
    return [*folders, *(folder.resolve() for folder in folders)]
