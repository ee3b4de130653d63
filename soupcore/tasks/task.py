"""Tasks: how to evaluate weights."""

import hashlib
import inspect
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from soupcore.checkpoints.dtypes import DTYPE_NAMES, raw_bytes
from soupcore.errors import Cancelled, StockpotError, TaskError
from soupcore.tasks.decoding import Decoding, rows_on_disk
from soupcore.tasks.description import Role, TaskInfo, part_digest
from soupcore.tasks.examples import Collate, Examples, Leaf, take
from soupcore.tasks.failures import place_of
from soupcore.tasks.metrics import Metric, MetricInfo, metric_named, metrics_of_groups
from soupcore.tasks.outputs import tensor_of
from soupcore.tasks.precision import Precision, check_precision
from soupcore.tasks.shown import Shown
from soupcore.tasks.torchmetrics_metric import from_torchmetrics, is_torchmetric
from soupcore.tasks.weights import check_tokens, checked_weights, tensors_of

_GIVE_GROUPS = (
    "Give each split `groups`, one per example; in a TOML file, `group` names their column."
)


class Split:
    """A named part of the data.

    The type of the inputs selects the call: `model(x)` for a tensor, `model(**x)` for a dict,
    `model(*x)` for a tuple.

    Args:
        role: `train`, `select` (validation: the only one that recipes use for selection), `report`
            (test) or `shift` (a distribution shift of the test data).
        inputs: A tensor with one example per row, shape [n, ...]; or nested dicts and tuples of
            such tensors. In place of a tensor, a list may have a tensor (or a list of numbers) for
            each example. If these differ in length, each batch is padded with zeros at the end,
            `labels` with -100, and a dict with `input_ids` gets an `attention_mask`.
        targets: The targets, one per row: shape [n, ...]; or a list with a tensor for each example,
            padded with -100, for tasks whose `record` takes batches of targets.
        collate: Function that makes a batch from a list of inputs, in place of padding.
        prepare: Function applied to each batch of inputs, on the device.
        groups: The group of each example, n texts or numbers, for metrics such as `worst-group
            accuracy`.
        weights: Weights of examples, n numbers, like scikit-learn's `sample_weight`: they enter the
            mean loss and score, metrics and learned soups. Or weights of tokens, shape [n, tokens]
            or a list with a tensor for each example, for tasks whose `record` takes weights, such
            as language models. Weights are finite and not negative.

    Attributes:
        groups: The names of the groups; None without groups.
        weights: The weights of examples, float64, shape [n]; None for equal weights.
        token_weights: The weights of tokens, float32; None for equal weights.

    Raises:
        TaskError: The role is unknown, inputs, targets, groups and weights differ in length, or
            weights are invalid.
    """

    groups: tuple[str, ...] | None = None
    weights: Tensor | None = None
    token_weights: Leaf | None = None

    #: The classes, if known without decoding the data: int64, shape [n].
    labels: Tensor | None = None

    #: Returns an example by its index as people see it; None where the split cannot.
    shown: Callable[[int], Shown] | None = None

    def __init__(
        self,
        role: Role,
        inputs: Any,
        targets: Any,
        *,
        collate: Any = None,  # Any, so that `Split(role, **tensors)` passes type checkers
        prepare: Any = None,
        groups: Any = None,
        weights: Any = None,
    ) -> None:
        if role not in get_args(Role):
            raise TaskError(
                f"A split's role must be one of {', '.join(get_args(Role))}, not {role!r}."
            )
        examples = Examples.of(inputs, len(targets), collate)
        if len(examples) != len(targets) or len(examples) == 0:
            raise TaskError(
                "A split needs as many targets as inputs, at least one; got "
                f"{len(examples)} inputs and {len(targets)} targets."
            )
        self.role = role
        #: Applied to each batch of inputs, on the device.
        self.prepare: Callable[[Any], Any] | None = prepare
        self._data: tuple[Examples, Examples] | None = (examples, Examples.of_targets(targets))
        self._decoding: Decoding | None = None
        self.groups = _groups(groups, len(examples))
        self._weigh(weights, len(examples))
        if self.token_weights is not None:
            check_tokens(self.token_weights, examples)

    @classmethod
    def from_dataset(
        cls,
        role: Role,
        dataset: Dataset[Any],
        *,
        target: str | None = None,
        version: str = "",
        workers: int = 0,
        collate: Collate | None = None,
        prepare: Callable[[Any], Any] | None = None,
        groups: Sequence[Any] | Tensor | None = None,
        weights: Sequence[Any] | Tensor | None = None,
    ) -> "Split":
        """Make a split of a data set, which is decoded once and stored in the workspace.

        Args:
            role: As for a split of tensors.
            dataset: Map-style: `dataset[i]` is a pair of input and target, or a dict with both, as
                in a `datasets.Dataset`. Inputs are tensors, arrays, numbers or lists of numbers,
                or dicts and tuples of these; all examples have one structure, and tensors differ in
                their first dimension only. Each example is the same at every access.
            target: The key of the target if examples are dicts; `label` or `labels` by default.
                Entries that are texts are dropped.
            version: Part of the identity of the data; change it after changes that the rest may
                miss. The rest is the length, 64 evenly spaced examples, and all data in memory: the
                tensors of a `TensorDataset` and numeric attributes `targets` or `labels`, each also
                through a `Subset`.
            workers: Number of processes that decode; 0 decodes in this process.
            collate: As for a split of tensors.
            prepare: Converts a batch of inputs into network inputs, on the device. With it, images
                can be stored as bytes: `lambda x: x / 255`. It runs in every pass, so it must be
                fast, and must treat each example independently.
            groups: As for a split of tensors.
            weights: As for a split of tensors.

        Raises:
            TaskError: The role is unknown, or the data set is empty or not map-style, such as a
                DataLoader.
        """
        split = cls(role, torch.zeros(1), torch.zeros(1), prepare=prepare)
        split._data = None
        split._decoding = Decoding(dataset, version, workers, target, collate)
        split.groups = _groups(groups, len(split._decoding))
        split._weigh(weights, len(split._decoding))
        return split

    def _weigh(self, weights: Any, n: int) -> None:
        """Set the weights of n examples, or of their tokens."""
        if weights is not None and self.role == "train":
            raise TaskError(
                "A split with the role 'train' takes no weights: it is used only to estimate "
                "BatchNorm statistics, which ignores weights."
            )
        self.weights, self.token_weights = checked_weights(weights, n)

    def load(
        self, on_examples: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[Examples, Examples]:
        """Return inputs and targets; decode them first if needed.

        Args:
            on_examples: Called with the examples decoded so far and their total; raise in it to
                stop.

        Raises:
            TaskError: Examples are not pairs of one structure, or the disk is full.
        """
        if self._data is None:
            assert self._decoding is not None  # noqa: S101 - exactly one of the two is set
            data = self._decoding.load(on_examples)
            if self.token_weights is not None:
                check_tokens(self.token_weights, data[0])
            self._data = data
        return self._data

    @property
    def is_loaded(self) -> bool:
        """Whether `load` has nothing to decode."""
        return self._decoding is None or self._data is not None or self._decoding.is_done

    @property
    def is_on_disk(self) -> bool:
        """Whether the data is mapped from disk, so it may exceed the memory."""
        return self._decoding is not None

    @property
    def inputs(self) -> Any:
        """The inputs, before `prepare`: tensors of shape [n, ...]. Decodes them if needed.

        If examples differ in length, a list of tensors takes the place of a tensor.
        """
        return self.load()[0].whole()

    @property
    def targets(self) -> Any:
        """The targets: shape [n, ...], or a list. Decodes them if needed."""
        return self.load()[1].whole()

    def classes(self) -> Tensor | None:
        """Return the targets on the CPU if they are classes (one integer each), else None."""
        if self.labels is not None:
            return self.labels
        targets = self.load()[1]
        if not targets.is_one_tensor:
            return None
        (found,) = targets.tensors
        return found.cpu() if found.ndim == 1 and not found.is_floating_point() else None

    @property
    def majority(self) -> float | None:
        """The share of the most frequent class; None without classes, or before decoding.

        If examples have weights, it is the share of their weight.
        """
        classes = self.classes() if self.is_loaded or self.labels is not None else None
        if classes is None:
            return None
        if self.weights is not None:
            of_classes = torch.bincount(
                torch.unique(classes, return_inverse=True)[1], weights=self.weights
            )
            return float(of_classes.max() / self.weights.sum())
        return int(torch.unique(classes, return_counts=True)[1].max()) / len(classes)

    @property
    def is_weighted(self) -> bool:
        """Whether examples have weights."""
        return self.weights is not None

    def __len__(self) -> int:
        return len(self.load()[0]) if self._decoding is None else len(self._decoding)

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over names, dtype, shape and bytes.

        Groups and weights are part of it, if any.

        For a data set see `from_dataset`.
        """
        data = self._data_digest if self._decoding is None else self._decoding.digest
        if self.groups is not None:
            data = hashlib.sha256(json.dumps([data, self.groups]).encode()).hexdigest()
        if self.weights is None and self.token_weights is None:
            return data
        sha = hashlib.sha256(f"weights {data}".encode())
        for part in tensors_of(self.weights, self.token_weights):
            sha.update(f"{DTYPE_NAMES[part.dtype]} {list(part.shape)}".encode())
            sha.update(raw_bytes(part.contiguous()))
        return sha.hexdigest()

    @property
    def _data_digest(self) -> str:
        sha = hashlib.sha256()
        for examples in self.load():
            for name, tensor in examples.parts:
                sha.update(f"{name}{DTYPE_NAMES[tensor.dtype]} {list(tensor.shape)}".encode())
                sha.update(raw_bytes(tensor.detach().cpu().contiguous()))
        return sha.hexdigest()


class Part(Split):
    """Some examples of a split, drawn at random when first needed.

    If targets are classes (one integer per example), the part is stratified: each class, and each
    group within a class, has its share of the whole, to within one example. Otherwise all examples
    are equally likely.

    Args:
        whole: The split.
        n: Number of examples, fewer than all.
        seed: The same seed chooses the same examples.

    Attributes:
        whole: The split.
    """

    def __init__(self, whole: Split, n: int, seed: int = 0) -> None:
        self.role = whole.role
        self.prepare = whole.prepare
        self.whole = whole
        self._n = n
        self._seed = seed

    def load(
        self, on_examples: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[Examples, Examples]:
        """Return inputs and targets of the part, in the order of the whole.

        Args:
            on_examples: As for the whole, which is decoded first if needed.
        """
        self.whole.load(on_examples)
        return self._chosen

    @property
    def is_loaded(self) -> bool:
        """Whether `load` has nothing to decode."""
        return self.whole.is_loaded

    @property
    def is_on_disk(self) -> bool:
        """Whether the data is mapped from disk, as for the whole."""
        return self.whole.is_on_disk

    @cached_property
    def _chosen(self) -> tuple[Examples, Examples]:
        inputs, targets = self.whole.load()
        copied = rows_on_disk if self.is_on_disk else take
        return inputs.select(self.rows, copied), targets.select(self.rows, take)

    @cached_property
    def rows(self) -> Tensor:
        """Indices of the examples in the whole, ascending, int64, shape [n]."""
        order = torch.randperm(len(self.whole), generator=torch.Generator().manual_seed(self._seed))
        if self.whole.groups is not None:
            groups = torch.from_numpy(np.unique(self.whole.groups, return_inverse=True)[1])
            order = order[groups[order].argsort(stable=True)]
        classes = self.whole.classes()
        if classes is not None:
            order = order[classes[order].argsort(stable=True)]
        # Evenly spaced examples, sorted by class and by group within these, are stratified.
        places = (torch.arange(self._n) * 2 + 1) * len(order) // (2 * self._n)
        return order[places].sort().values

    @cached_property
    def groups(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The groups of the chosen examples."""
        whole = self.whole.groups
        return None if whole is None else tuple(whole[row] for row in self.rows.tolist())

    @cached_property
    def weights(self) -> Tensor | None:  # type: ignore[override]
        """The weights of the chosen examples.

        Raises:
            TaskError: All weights are zero.
        """
        found = None if self.whole.weights is None else self.whole.weights[self.rows]
        if found is not None and not found.any():
            raise TaskError(
                f"All {len(self)} examples drawn from {len(self.whole)} have the weight zero. Draw "
                "more, or leave examples of weight zero out of the split."
            )
        return found

    @property
    def is_weighted(self) -> bool:
        """Whether examples have weights."""
        return self.whole.is_weighted

    @cached_property
    def token_weights(self) -> Leaf | None:  # type: ignore[override]
        """The weights of the tokens of the chosen examples."""
        whole = self.whole.token_weights
        if whole is None:
            return None
        return whole[self.rows] if isinstance(whole, Tensor) else whole.select(self.rows)

    def classes(self) -> Tensor | None:
        """Return the targets on the CPU if they are classes (one integer each), else None."""
        classes = self.whole.classes()
        return None if classes is None else classes[self.rows]

    @property
    def labels(self) -> Tensor | None:  # type: ignore[override]
        """The classes of the chosen examples, if those of the whole are known."""
        return None if self.whole.labels is None else self.whole.labels[self.rows]

    @property
    def shown(self) -> Callable[[int], Shown] | None:  # type: ignore[override]
        """Returns an example by its index in the part as people see it."""
        of_whole = self.whole.shown
        return None if of_whole is None else lambda index: of_whole(int(self.rows[index]))

    def __len__(self) -> int:
        return self._n

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over the whole, n and the seed."""
        return part_digest(self.whole.digest, self._n, self._seed)


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
        TaskError: Not exactly one split has the role `select`, a metric needs groups but the
            `select` or `report` split lacks them, or a metric or `record` does not take the weights
            of examples.
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
            TaskError: The split cannot.
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
        for what, ask in (("loss", self.loss), ("score", self.score)):
            if ask(outputs[:1], without_target).isnan().any():
                raise TaskError(
                    f"{len(rows)} of {len(targets)} targets contain NaN, first at example "
                    f"{int(rows[0])}, which makes its {what} NaN. Leave these examples out of the "
                    f'split, have `{what}` ignore them, or set `undefined = "exclude"` on the task.'
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

    def _part_of(self, name: str, n: int) -> "Part":
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


def _takes_weights(record: Callable[..., Any]) -> bool:
    return "weights" in inspect.signature(record).parameters


def _groups(groups: Any, n: int) -> tuple[str, ...] | None:
    """Return the group of each of n examples as a text."""
    if groups is None:
        return None
    found = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(found) != n:
        raise TaskError(f"A split needs one group for each example: {n}, not {len(found)}.")
    if any(group is None or group != group for group in found):
        raise TaskError("A split needs one group for each example, but some have none.")
    return tuple(map(str, found))


def _all_groups(splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the groups of all splits except `train`, sorted."""
    evaluated = [split.groups for split in splits.values() if split.role != "train"]
    return tuple(sorted({group for groups in evaluated for group in groups or ()}))


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers of a network that have running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
