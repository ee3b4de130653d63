"""What a task is: how to judge weights."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from soupcore.checkpoints.dtypes import DTYPE_NAMES, raw_bytes
from soupcore.errors import Cancelled, StockpotError, TaskError
from soupcore.tasks.decoding import Decoding, rows_on_disk
from soupcore.tasks.description import Role, TaskInfo, part_digest
from soupcore.tasks.examples import Collate, Examples, take
from soupcore.tasks.failures import place_of
from soupcore.tasks.metrics import Metric, metric_named
from soupcore.tasks.outputs import tensor_of


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

    Raises:
        TaskError: The role is none of these, or inputs and targets differ in length.
    """

    def __init__(
        self,
        role: Role,
        inputs: Any,
        targets: Any,
        *,
        collate: Any = None,  # no narrower, so that `Split(role, **tensors)` passes type checkers
        prepare: Any = None,
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

        Raises:
            TaskError: The role is none of the four, or the data set has no examples or does not
                give them by their number, as a loader of one does not.
        """
        split = cls(role, torch.zeros(1), torch.zeros(1), prepare=prepare)
        split._data = None
        split._decoding = Decoding(dataset, version, workers, target, collate)
        return split

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
            self._data = self._decoding.load(on_examples)
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
        targets = self.load()[1]
        if not targets.is_one_tensor:
            return None
        (found,) = targets.tensors
        return found.cpu() if found.ndim == 1 and not found.is_floating_point() else None

    def __len__(self) -> int:
        return len(self.load()[0]) if self._decoding is None else len(self._decoding)

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over names, dtype, shape and bytes.

        For a data set see `from_dataset`.
        """
        if self._decoding is not None:
            return self._decoding.digest
        sha = hashlib.sha256()
        for examples in self.load():
            for name, tensor in examples.parts:
                sha.update(f"{name}{DTYPE_NAMES[tensor.dtype]} {list(tensor.shape)}".encode())
                sha.update(raw_bytes(tensor.detach().cpu().contiguous()))
        return sha.hexdigest()


class Part(Split):
    """Some examples of a split, chosen at random when they are first needed.

    Where targets are classes (one integer an example), the part has of each class the share that
    the whole has, to within one example; else the examples are drawn from all alike.

    Args:
        whole: The split.
        n: How many of its examples, fewer than all.
        seed: The same seed chooses the same examples.
    """

    def __init__(self, whole: Split, n: int, seed: int = 0) -> None:
        self.role = whole.role
        self.prepare = whole.prepare
        self._whole = whole
        self._n = n
        self._seed = seed

    def load(
        self, on_examples: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[Examples, Examples]:
        """Return inputs and targets of the examples chosen, in the order of the whole.

        Args:
            on_examples: As for the whole, which is decoded first where that was not done yet.
        """
        self._whole.load(on_examples)
        return self._chosen

    @property
    def is_loaded(self) -> bool:
        """Whether `load` has nothing to decode."""
        return self._whole.is_loaded

    @property
    def is_on_disk(self) -> bool:
        """Whether it is mapped into memory from there, as the whole is."""
        return self._whole.is_on_disk

    @cached_property
    def _chosen(self) -> tuple[Examples, Examples]:
        inputs, targets = self._whole.load()
        copied = rows_on_disk if self.is_on_disk else take
        return inputs.select(self.rows, copied), targets.select(self.rows, take)

    @cached_property
    def rows(self) -> Tensor:
        """Which examples of the whole these are, ascending, int64, shape [n]."""
        order = torch.randperm(
            len(self._whole), generator=torch.Generator().manual_seed(self._seed)
        )
        classes = self._whole.classes()
        if classes is not None:
            order = order[classes[order].argsort(stable=True)]
        # Evenly spaced over the examples in the order of their classes: proportional by itself.
        places = (torch.arange(self._n) * 2 + 1) * len(order) // (2 * self._n)
        return order[places].sort().values

    def __len__(self) -> int:
        return self._n

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over the whole's and which part of it this is."""
        return part_digest(self._whole.digest, self._n, self._seed)


class Task(TaskInfo[Split]):
    """How to judge weights: an architecture, splits of data, a loss and a score per example.

    Attributes:
        metrics: What is measured; empty for the mean of `score` alone.

    Subclass it for regression or anything else; for classification there is
    `ClassificationTask`.

    Args:
        build_model: Makes the network; its own initial weights do not matter.
        splits: `{name: Split}`, among them exactly one with the role `select`. Shifts are named
            `shift/...`.
        name: What people call it.
        metrics: What is measured: names of metrics that are built in (see
            `soupcore.tasks.metrics.METRICS`), or `Metric`s. The first is primary: it ranks, and
            recipes choose by it. The mean of `score` unless given.
        version: Change it when the meaning of the task changes in a way that neither the data nor
            the task's file shows, so that evaluations of before are not taken for it.

    Raises:
        TaskError: There is not exactly one `select` split.
    """

    metrics: tuple[Metric, ...]

    #: Examples a forward pass where the evaluator is not told; None for its default.
    batch_size: int | None = None

    def __init__(
        self,
        build_model: Callable[[], nn.Module],
        splits: Mapping[str, Split],
        *,
        name: str = "task",
        metrics: Sequence["Metric | str"] = (),
        version: str = "",
    ) -> None:
        super().__init__(name, splits, [self._metric(metric) for metric in metrics])
        self.build_model = build_model
        self.version = version
        #: SHA-256 of the file it was loaded from, where it was.
        self.source_digest: str | None = None

    def _metric(self, metric: "Metric | str") -> Metric:
        """Return a metric, by its name where it is the mean of `score` or one built in."""
        if metric == self.score_name:
            return Metric(self.score_name, range=self.score_range)
        return metric_named(metric) if isinstance(metric, str) else metric

    def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        """Return what `loss` and `score` need of a batch of outputs, shape [m, ...].

        It is what is kept of each example where outputs are kept, and takes the place of the
        outputs in `loss`, `score`, `predict` and `check`. Here it is the network's outputs
        themselves: the tensor, or the one called `logits`. Override it where they are large, or
        differ in shape from batch to batch: a language model needs the summed loss and the number
        of tokens of each example, and not a number for each word of its vocabulary.

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
        the class, its module, `version` and `undefined`.
        """
        parts = [
            type(self).__module__ if self.source_digest is None else "",
            type(self).__qualname__,
            self.version,
            self.source_digest or repr(self.new_model()),
        ]
        if self.undefined != "refuse":
            parts.append(self.undefined)
        parts += [str(metric.to_json()) for metric in self.metrics]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers of a network that normalise by statistics of the training data."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
