"""What a task is: how to judge weights."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from soupcore.checkpoints.dtypes import DTYPE_NAMES, raw_bytes
from soupcore.errors import TaskError
from soupcore.tasks.decoding import Decoding, rows_on_disk

Role = Literal["train", "select", "report", "shift"]


class Split:
    """A named part of the data.

    Args:
        role: `train`, `select` (held-out validation: the only one a recipe may use to choose),
            `report` (test) or `shift` (a distribution shift of the test data).
        inputs: What the network is given, one example a row: shape [n, ...].
        targets: What it should say, one a row: shape [n, ...].

    Raises:
        TaskError: The role is none of these, or inputs and targets differ in length.
    """

    def __init__(self, role: Role, inputs: Tensor, targets: Tensor) -> None:
        if role not in get_args(Role):
            raise TaskError(f"A split's role is one of {', '.join(get_args(Role))}, not {role!r}.")
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise TaskError(
                f"A split needs as many targets as inputs and at least one; "
                f"it was given {len(inputs)} inputs and {len(targets)} targets."
            )
        self.role = role
        #: Applied to each batch of inputs, on the device that computes.
        self.prepare: Callable[[Tensor], Tensor] | None = None
        self._tensors: tuple[Tensor, Tensor] | None = (inputs, targets)
        self._decoding: Decoding | None = None

    @classmethod
    def from_dataset(
        cls,
        role: Role,
        dataset: Dataset[Any],
        *,
        version: str = "",
        workers: int = 0,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> "Split":
        """Make a split of a data set that is decoded once, into the workspace.

        Args:
            role: As for a split of tensors.
            dataset: Map-style: `dataset[i]` is a pair of input and target, each a tensor, an array
                or a number, of one shape and dtype for all i, and the same each time.
            version: Change it when the data changes in a way that the rest of its identity may not
                show: its length, 64 examples spread over it, and all of what it holds in memory,
                which are the tensors of a `TensorDataset` and the numbers that a data set has as
                `targets` or `labels`, each also through a `Subset`.
            workers: Processes that decode; 0 to decode in the one that evaluates.
            prepare: Makes what the network is given of a batch of inputs, on the device that
                computes. With it images can be kept as bytes: `lambda x: x / 255`. It is done in
                each pass, so it has to be quick, and to treat each example by itself.

        Raises:
            TaskError: The role is none of the four, or the data set has no examples or does not
                give them by their number, as a loader of one does not.
        """
        split = cls(role, torch.zeros(1), torch.zeros(1))
        split.prepare = prepare
        split._tensors = None
        split._decoding = Decoding(dataset, version, workers)
        return split

    def load(
        self, on_examples: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, decoding them first where that was not done yet.

        Args:
            on_examples: Called with examples decoded and in all; raise in it to stop.

        Raises:
            TaskError: The data set gives no pairs of one shape, or the disk is too small.
        """
        if self._tensors is None:
            assert self._decoding is not None  # noqa: S101 - it has the one or the other
            self._tensors = self._decoding.load(on_examples)
        return self._tensors

    @property
    def is_loaded(self) -> bool:
        """Whether `load` has nothing to decode."""
        return self._decoding is None or self._tensors is not None or self._decoding.is_done

    @property
    def is_on_disk(self) -> bool:
        """Whether it is mapped into memory from there, as it may be larger than that."""
        return self._decoding is not None

    @property
    def inputs(self) -> Tensor:
        """What the network is given, before `prepare`: shape [n, ...]. Decodes them if need be."""
        return self.load()[0]

    @property
    def targets(self) -> Tensor:
        """What it should say: shape [n, ...]. Decodes them if need be."""
        return self.load()[1]

    def __len__(self) -> int:
        return len(self.inputs) if self._decoding is None else len(self._decoding)

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over dtype, shape and bytes.

        For a data set see `from_dataset`.
        """
        if self._decoding is not None:
            return self._decoding.digest
        sha = hashlib.sha256()
        for tensor in (self.inputs, self.targets):
            sha.update(f"{DTYPE_NAMES[tensor.dtype]} {list(tensor.shape)}".encode())
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
    ) -> tuple[Tensor, Tensor]:
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
    def _chosen(self) -> tuple[Tensor, Tensor]:
        inputs, targets = self._whole.load()
        rows = self.rows.to(targets.device)
        return rows_on_disk(inputs, rows) if self.is_on_disk else inputs[rows], targets[rows]

    @cached_property
    def rows(self) -> Tensor:
        """Which examples of the whole these are, ascending, int64, shape [n]."""
        _, targets = self._whole.load()
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(self._seed))
        if targets.ndim == 1 and not targets.is_floating_point():
            order = order[targets.cpu()[order].argsort(stable=True)]
        # Evenly spaced over the examples in the order of their classes: proportional by itself.
        places = (torch.arange(self._n) * 2 + 1) * len(targets) // (2 * self._n)
        return order[places].sort().values

    def __len__(self) -> int:
        return self._n

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over the whole's and which part of it this is."""
        text = f"part {self._n} {self._seed} {self._whole.digest}"
        return hashlib.sha256(text.encode()).hexdigest()


class Task(ABC):
    """How to judge weights: an architecture, splits of data, a loss and a score per example.

    Subclass it for regression or anything else; for classification there is
    `ClassificationTask`.

    Args:
        build_model: Makes the network; its own initial weights do not matter.
        splits: `{name: Split}`, among them exactly one with the role `select`. Shifts are named
            `shift/...`.
        name: What people call it.
        version: Change it when the meaning of the task changes in a way that neither the data nor
            the task's file shows, so that evaluations of before are not taken for it.

    Raises:
        TaskError: There is not exactly one `select` split.
    """

    #: What the score is called, and the loss.
    score_name = "score"
    loss_name = "loss"

    #: Between what the score of one example lies, where it does. With it a recipe need not take
    #: all examples through a candidate that can no longer win.
    score_range: tuple[float, float] | None = None

    def __init__(
        self,
        build_model: Callable[[], nn.Module],
        splits: Mapping[str, Split],
        *,
        name: str = "task",
        version: str = "",
    ) -> None:
        self.name = name
        self.build_model = build_model
        self.splits = dict(splits)
        self.version = version
        #: SHA-256 of the file it was loaded from, where it was.
        self.source_digest: str | None = None
        self._parts: dict[str, Part] = {}
        self._wholes: dict[str, str] = {}  # by the names of their parts
        if len(self.splits_with_role("select")) != 1:
            raise TaskError(
                f"The task {name!r} needs exactly one split with the role 'select'; "
                f"its splits are {', '.join(self.splits) or 'none'}."
            )

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each example, shape [n]; lower is better."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the score of each example, shape [n]; higher is better."""

    def predict(self, outputs: Tensor) -> Tensor:
        """Return what the network says of each example, shape [n, ...]."""
        return outputs

    def split(self, name: str) -> Split:
        """Return the split, or the part of one, called `name`.

        Raises:
            TaskError: There is none.
        """
        found = self.splits.get(name) or self._parts.get(name)
        if found is None:
            raise TaskError(
                f"The task {self.name!r} has no split {name!r}; it has {', '.join(self.splits)}."
            )
        return found

    def part(self, name: str, n: int) -> str:
        """Return the name of a part of a split, for a cheap first look: n examples of it.

        What is evaluated on a part is kept apart from what is evaluated on the whole, and no part
        is among `splits`. The same n always gives the same examples (see `Part`).

        Raises:
            TaskError: There is no such split.
            ValueError: n is not positive.
        """
        if n < 1:
            raise ValueError(f"A part needs at least one example, not {n}.")
        whole = self.split(name)
        if n >= len(whole):
            return name
        part = f"{name}, n={n}"
        if part not in self._parts:
            self._parts[part] = Part(whole, n)
            self._wholes[part] = name
        return part

    def whole_of(self, name: str) -> str:
        """Return the name of the split that a part is of; any other is the whole itself."""
        return self._wholes.get(name, name)

    def rows_of(self, part: str) -> Tensor:
        """Return which examples of its split are in a part, ascending, int64, shape [n]."""
        return self._parts[part].rows

    def splits_with_role(self, role: Role) -> list[str]:
        """Return the names of the splits with a role, in the task's order."""
        return [name for name, split in self.splits.items() if split.role == role]

    @property
    def select(self) -> str:
        """Name of the split that recipes choose on."""
        return self.splits_with_role("select")[0]

    @property
    def reported(self) -> list[str]:
        """Names of the splits that results are shown on: select, report, then the shifts."""
        return [
            name for role in ("select", "report", "shift") for name in self.splits_with_role(role)
        ]

    @cached_property
    def key(self) -> str:
        """Identity of what is measured, without the data: 64 hex digits.

        It covers the task's file where it was loaded from one, else the network as printed; and
        the class, its module and `version`.
        """
        parts = [
            type(self).__module__ if self.source_digest is None else "",
            type(self).__qualname__,
            self.version,
            self.source_digest or repr(self.build_model()),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
