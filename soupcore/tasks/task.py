"""Tasks, which say how to evaluate weights."""

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
    "Give each split `groups`, one for each example; in a TOML file, name their column as `group`."
)


class Split:
    """A named part of the data.

    The network is called as the inputs say: `model(x)` for a tensor, `model(**x)` for a dict,
    `model(*x)` for a tuple.

    Args:
        role: `train`, `select` (held-out validation: the only one a recipe may use to choose),
            `report` (test) or `shift` (a distribution shift of the test data).
        inputs: A tensor with one example a row, shape [n, ...]; or dicts and tuples of such
            tensors, nested in any way. In place of a tensor there may be a list with a tensor (or
            a list of numbers) for each example. Where these differ in length, each batch is padded
            with zeros at the end, `labels` with -100, and a dict with `input_ids` gets an
            `attention_mask`.
        targets: The true answers, one a row: shape [n, ...]; or a list with a tensor for each
            example, for tasks whose `record` takes them batch by batch, padded with -100.
        collate: Function that makes a batch of inputs of a list of examples, in place of padding.
        prepare: Function that is applied to each batch of inputs on the device that computes.
        groups: The group of each example, a text or a number, n of them, for metrics such as
            `worst-group accuracy`.
        weights: How much each example counts, n numbers, as scikit-learn's `sample_weight`: in the
            mean loss and score, in metrics and in learned soups. Or how much each token counts,
            shape [n, tokens] or a list with a tensor for each example, for tasks whose `record`
            takes weights, such as language models. They are finite and not negative.

    Attributes:
        groups: The names of the groups; None without groups.
        weights: The weights of examples, float64, shape [n]; None where all count alike.
        token_weights: The weights of tokens, float32; None where all count alike.

    Raises:
        TaskError: The role is none of these, inputs, targets, groups and weights differ in length,
            or weights are not as described.
    """

    groups: tuple[str, ...] | None = None
    weights: Tensor | None = None
    token_weights: Leaf | None = None

    #: The classes, where they are known without decoding the data: int64, shape [n].
    labels: Tensor | None = None

    def __init__(
        self,
        role: Role,
        inputs: Any,
        targets: Any,
        *,
        collate: Any = None,  # no narrower, so that `Split(role, **tensors)` passes type checkers
        prepare: Any = None,
        groups: Any = None,
        weights: Any = None,
    ) -> None:
        if role not in get_args(Role):
            raise TaskError(f"A split's role is one of {', '.join(get_args(Role))}, not {role!r}.")
        examples = Examples.of(inputs, len(targets), collate)
        if len(examples) != len(targets) or len(examples) == 0:
            raise TaskError(
                f"A split needs as many targets as inputs and at least one; "
                f"it was given {len(examples)} inputs and {len(targets)} targets."
            )
        self.role = role
        #: Applied to each batch of inputs, on the device that computes.
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
        """Make a split of a data set that is decoded once, into the workspace.

        Args:
            role: As for a split of tensors.
            dataset: Map-style: `dataset[i]` is a pair of input and target, or a dict with both, as
                in a `datasets.Dataset`. Inputs are tensors, arrays, numbers or lists of numbers,
                or dicts and tuples of these; all examples have one structure, and tensors differ
                in their first dimension only. Each example is the same each time.
            target: The key of the target where examples are dicts; `label` or `labels` unless
                given. Entries that are texts are left out.
            version: Change it when the data changes in a way that the rest of its identity may not
                show: its length, 64 examples spread over it, and all of what it holds in memory,
                which are the tensors of a `TensorDataset` and the numbers that a data set has as
                `targets` or `labels`, each also through a `Subset`.
            workers: Processes that decode; 0 to decode in the one that evaluates.
            collate: As for a split of tensors.
            prepare: Makes what the network is given of a batch of inputs, on the device that
                computes. With it images can be kept as bytes: `lambda x: x / 255`. It is done in
                each pass, so it has to be quick, and to treat each example by itself.
            groups: As for a split of tensors.
            weights: As for a split of tensors.

        Raises:
            TaskError: The role is none of the four, or the data set has no examples or does not
                give them by their number, as a loader of one does not.
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
                "A split with the role 'train' takes no weights: only BatchNorm statistics are "
                "estimated on it, in which all examples count alike."
            )
        self.weights, self.token_weights = checked_weights(weights, n)

    def load(
        self, on_examples: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[Examples, Examples]:
        """Return inputs and targets, decoding them first where that was not done yet.

        Args:
            on_examples: Called with examples decoded and in all; raise in it to stop.

        Raises:
            TaskError: The data set gives no pairs of one structure, or the disk is too small.
        """
        if self._data is None:
            assert self._decoding is not None  # noqa: S101 - it has the one or the other
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
        """Whether it is mapped into memory from there, as it may be larger than that."""
        return self._decoding is not None

    @property
    def inputs(self) -> Any:
        """The inputs, before `prepare`: tensors of shape [n, ...]. Decodes them if need be.

        In place of a tensor there is a list of tensors where examples differ in length.
        """
        return self.load()[0].whole()

    @property
    def targets(self) -> Any:
        """The true answers: shape [n, ...], or a list. Decodes them if need be."""
        return self.load()[1].whole()

    def classes(self) -> Tensor | None:
        """Return the targets where they are classes: one integer an example, on the CPU."""
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

        It is the share of the weights where examples have weights.
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

        Groups and weights are part of it where there are some.

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
    """Some examples of a split, chosen at random when they are first needed.

    Where targets are classes (one integer an example), the part has of each class the share that
    the whole has, to within one example, and so of each group within a class; else the examples
    are drawn from all alike.

    Args:
        whole: The split.
        n: How many of its examples, fewer than all.
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
        """Return inputs and targets of the examples chosen, in the order of the whole.

        Args:
            on_examples: As for the whole, which is decoded first where that was not done yet.
        """
        self.whole.load(on_examples)
        return self._chosen

    @property
    def is_loaded(self) -> bool:
        """Whether `load` has nothing to decode."""
        return self.whole.is_loaded

    @property
    def is_on_disk(self) -> bool:
        """Whether it is mapped into memory from there, as the whole is."""
        return self.whole.is_on_disk

    @cached_property
    def _chosen(self) -> tuple[Examples, Examples]:
        inputs, targets = self.whole.load()
        copied = rows_on_disk if self.is_on_disk else take
        return inputs.select(self.rows, copied), targets.select(self.rows, take)

    @cached_property
    def rows(self) -> Tensor:
        """Which examples of the whole these are, ascending, int64, shape [n]."""
        order = torch.randperm(len(self.whole), generator=torch.Generator().manual_seed(self._seed))
        if self.whole.groups is not None:
            groups = torch.from_numpy(np.unique(self.whole.groups, return_inverse=True)[1])
            order = order[groups[order].argsort(stable=True)]
        classes = self.whole.classes()
        if classes is not None:
            order = order[classes[order].argsort(stable=True)]
        # Evenly spaced over the examples in the order of their classes, and groups within these:
        # proportional by itself.
        places = (torch.arange(self._n) * 2 + 1) * len(order) // (2 * self._n)
        return order[places].sort().values

    @cached_property
    def groups(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The groups of the examples chosen."""
        whole = self.whole.groups
        return None if whole is None else tuple(whole[row] for row in self.rows.tolist())

    @cached_property
    def weights(self) -> Tensor | None:  # type: ignore[override]
        """The weights of the examples chosen.

        Raises:
            TaskError: All are zero.
        """
        found = None if self.whole.weights is None else self.whole.weights[self.rows]
        if found is not None and not found.any():
            raise TaskError(
                f"All {len(self)} examples that were drawn of {len(self.whole)} have the weight "
                "zero. Draw more, or leave examples of weight zero out of the split."
            )
        return found

    @property
    def is_weighted(self) -> bool:
        """Whether examples have weights."""
        return self.whole.is_weighted

    @cached_property
    def token_weights(self) -> Leaf | None:  # type: ignore[override]
        """The weights of the tokens of the examples chosen."""
        whole = self.whole.token_weights
        if whole is None:
            return None
        return whole[self.rows] if isinstance(whole, Tensor) else whole.select(self.rows)

    def classes(self) -> Tensor | None:
        """Return the targets where they are classes: one integer an example, on the CPU."""
        classes = self.whole.classes()
        return None if classes is None else classes[self.rows]

    @property
    def labels(self) -> Tensor | None:  # type: ignore[override]
        """The classes of the examples chosen, as far as those of the whole are known."""
        return None if self.whole.labels is None else self.whole.labels[self.rows]

    def __len__(self) -> int:
        return self._n

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over the whole's and which part of it this is."""
        return part_digest(self.whole.digest, self._n, self._seed)


class Task(TaskInfo[Split]):
    """How to evaluate weights: an architecture, splits of data, a loss and a score per example.

    Attributes:
        metrics: What is measured; empty for the mean of `score` alone.
        groups: The names of the groups of examples, sorted; empty without groups.

    Subclass it for regression or anything else; for classification there is
    `ClassificationTask`.

    Args:
        build_model: Makes the network; its own initial weights do not matter.
        splits: `{name: Split}`, among them exactly one with the role `select`. Shifts are named
            `shift/...`.
        name: What people call it.
        metrics: What is measured: names of metrics that are built in (see
            `soupcore.tasks.metrics.METRICS`), `Metric`s, or objects of torchmetrics (see
            `soupcore.tasks.from_torchmetrics`). The first is primary: it ranks, and
            recipes choose by it. The mean of `score` unless given. Where splits have groups,
            `worst-group SCORE` is the lowest mean score of a group, and `SCORE by group` the mean
            score of each, with the name of the score, such as `worst-group accuracy`.
        precision: In which the network is evaluated: `float32` leaves it as `build_model` makes it;
            `bfloat16` and `float16` cast its weights, buffers and floating-point inputs after
            mixing; `bfloat16 autocast` and `float16 autocast` compute by `torch.autocast`. Losses
            and scores are computed in float32. Below float32, shortcuts and early rejection are
            off, since results may depend on the batch. Gradients, as for learned soups, are always
            those of the network as it is made.
        version: Change it when the meaning of the task changes in a way that neither the data nor
            the task's file shows, so that evaluations of before are not taken for it.

    Raises:
        TaskError: There is not exactly one `select` split, a metric needs groups that the splits
            `select` and `report` do not have both, or examples have weights that a metric or
            `record` does not take.
    """

    metrics: tuple[Metric, ...]

    #: Most bytes that the records of one evaluation may take (see `record`).
    record_budget: int = 4 << 30

    #: Examples a forward pass where the evaluator is not told; None for its default.
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
        self.shows_examples = type(self).show is not Task.show
        #: SHA-256 of the file it was loaded from, where it was.
        self.source_digest: str | None = None
        #: Where it was loaded from, as `load_task` takes it; "" for a task made in Python.
        self.spec = ""
        if any(metric.against == "groups" for metric in self.metrics):
            self._check_groups()
        self._check_weights()

    def _metrics(self, metric: Any) -> list[Metric]:
        """Return metrics by their name: the mean of `score`, of its groups, or one built in."""
        if isinstance(metric, Metric):
            return [metric]
        if is_torchmetric(metric):
            return [from_torchmetrics(metric, of_classes=self.is_classification)]
        if not isinstance(metric, str):
            raise TaskError(
                f"The task was given {metric!r} as a metric. Give the name of one that is built "
                "in, a soupcore.Metric, or an object of torchmetrics."
            )
        mean = Metric(self.score_name, range=self.score_range)
        of_groups = metrics_of_groups(mean, self.groups)
        if metric in of_groups and not self.groups:
            raise TaskError(f"The metric {metric!r} needs groups. {_GIVE_GROUPS}")
        known = {mean.name: [mean], **of_groups}
        return known[metric] if metric in known else [metric_named(metric, known)]

    def _check_groups(self) -> None:
        """Make sure that there are groups, and the same in `select` and `report` splits."""
        counts = {
            name: Counter(split.groups or ())
            for name, split in self.splits.items()
            if split.role in ("select", "report", "shift")
        }
        lacking = [name for name, found in counts.items() if not found]
        if lacking:
            raise TaskError(
                f"A metric of the task {self.name!r} needs groups, and the split {lacking[0]!r} "
                f"has none. {_GIVE_GROUPS}"
            )
        # A shift may be another group.
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
                    f"{missing[0]!r}, so its worst group cannot be compared with that of another "
                    f"split. Examples per group: {sizes}. Join groups, or move examples between "
                    "the splits."
                )

    def _check_weights(self) -> None:
        """Make sure that all that is measured respects the weights of examples and tokens."""
        for name, split in self.splits.items():
            unable = next((m for m in self.metrics if not m.is_mean and not m.takes_weights), None)
            if split.is_weighted and unable is not None:
                raise TaskError(
                    f"The split {name!r} of the task {self.name!r} has weights, and the metric "
                    f"{unable.name!r} takes none. Leave out the metric or the weights, or give a "
                    "Metric with `takes_weights=True`, whose `compute` takes `weights`."
                )
            if split.token_weights is not None and not _takes_weights(self.record):
                raise TaskError(
                    f"The split {name!r} of the task {self.name!r} has weights of tokens, and "
                    f"`record` of {type(self).__name__} takes none. Weigh whole examples, shape "
                    "[n], or give `record` an argument `weights=None`."
                )

    @property
    def mean_score(self) -> MetricInfo:
        """The mean of `score`, whether it is among the metrics or not."""
        name = type(self).score_name if self.metrics else self.score_name
        return MetricInfo(name, range=self.score_range)

    def groups_of(self, split: str) -> Tensor | None:
        """Return the number of each example's group in `groups`, int64, shape [n].

        None where the split, or the part of one, has no groups.
        """
        names = self.split(split).groups
        if names is None:
            return None
        if split not in self._numbers:
            numbers = {group: number for number, group in enumerate(self.groups)}
            self._numbers[split] = torch.tensor([numbers[name] for name in names])
        return self._numbers[split]

    def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        """Return what `loss` and `score` need of a batch of outputs, shape [m, ...].

        It is what is kept of each example where outputs are kept, and takes the place of the
        outputs in `loss`, `score`, `predict` and `check`. Here it is the network's outputs
        themselves: the tensor, or the one called `logits`. Override it where they are large, or
        differ in shape from batch to batch: a language model needs the summed loss and the number
        of tokens of each example, and not a number for each word of its vocabulary. Where splits
        have weights of tokens, it takes a further argument `weights`, shape [m, tokens], zero where
        inputs are padded.

        Args:
            outputs: What the network returned.
            inputs: The batch that it was given, after `prepare`.
            targets: The targets of the batch, shape [m, ...]; padded with -100 where they differ
                in length.

        Raises:
            TaskError: The network returned no such tensor.
        """
        return tensor_of(outputs)

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each example, shape [n]; lower is better.

        It may depend on the output and target of its own example only: examples are scored in
        pieces of any size. NaN says that it is undefined (see `undefined`).
        """

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the score of each example, shape [n]; higher is better. Else as for `loss`.

        Here it is minus the loss. A task that has metrics with a `compute` needs no other.
        """
        return -self.loss(outputs, targets)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return what the network says of each example, shape [n, ...]."""
        return outputs

    def show(self, split: str, index: int) -> Shown:
        """Return an example as people see it; optional.

        The Compare page shows the examples that one network gets right and another one wrong.

        Args:
            split: Name of the split.
            index: Index of the example in it, from 0.
        """
        raise TaskError(
            f"The task {self.name!r} has no `show(split, index)`, so its examples are not shown."
        )

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Make sure that outputs and targets are of the kind that `loss` and `score` take.

        Called once for each split, before the first loss. Here: that no example is undefined
        because its target is NaN, unless such examples are to be excluded.

        Args:
            outputs: Those of a few examples, shape [m, ...].
            targets: All targets of the split, shape [n, ...].

        Raises:
            TaskError: They are not. The message says what they are and what to do.
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
                    f"{len(rows)} of {len(targets)} targets contain NaN, the first that of example "
                    f"{int(rows[0])}, and the {what} is NaN there. Leave these examples out of the "
                    f'split, have `{what}` ignore them, or set `undefined = "exclude"` on the task.'
                )

    def new_model(self) -> nn.Module:
        """Return a new network from `build_model`.

        Raises:
            TaskError: It fails, or returns something else.
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
                "return a torch.nn.Module, built but without weights of a checkpoint."
            )
        return model

    def rows_of(self, part: str) -> Tensor:
        """Return which examples of its split are in a part, ascending, int64, shape [n]."""
        found = self.split(part)
        if not isinstance(found, Part):
            raise TaskError(f"{part!r} is a whole split.")
        return found.rows

    def _part_of(self, name: str, n: int) -> "Part":
        return Part(self.split(name), n)

    @cached_property
    def has_batchnorm(self) -> bool:
        """Whether the network normalises by statistics of the training data.

        Raises:
            TaskError: The network cannot be built.
        """
        return bool(norms_of(self.new_model()))

    @cached_property
    def key(self) -> str:
        """Identity of what is measured, without the data: 64 hex digits.

        It covers the task's file where it was loaded from one, else the network as printed; and
        the class, its module, `version`, `undefined`, `precision` and the metrics.
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
        raise TaskError("A split needs one group for each example, and some have none.")
    return tuple(map(str, found))


def _all_groups(splits: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the groups of all splits but those of training data, sorted."""
    evaluated = [split.groups for split in splits.values() if split.role != "train"]
    return tuple(sorted({group for groups in evaluated for group in groups or ()}))


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers of a network that normalise by statistics of the training data."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
