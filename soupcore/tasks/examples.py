"""Inputs of a network: examples of any structure and of different lengths.

Inputs may be a tensor, or nested dicts, tuples and lists of tensors. Examples of different lengths
are concatenated in one tensor (`Ragged`) and padded batch by batch.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from soupcore.errors import TaskError

Batch = Any  # a tensor, or dicts and tuples of tensors
Structure = Any  # the same with the index of each tensor in its place
Collate = Callable[[list[Any]], Batch]
Rows = slice | Tensor

#: The class that cross-entropy ignores, in torch and transformers.
IGNORED = -100


class Ragged:
    """Tensors that differ in their first dimension, one per example.

    Args:
        values: All tensors, concatenated, shape [total, ...].
        offsets: Start of each tensor, and the end of the last: int64, shape [n + 1].
    """

    def __init__(self, values: Tensor, offsets: Tensor) -> None:
        self.values = values
        self.offsets = offsets

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Self:
        """Concatenate one tensor per example; they differ in their first dimension only."""
        lengths = torch.tensor([len(tensor) for tensor in tensors])
        return cls(torch.cat(list(tensors)), _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """The length of each example, int64, shape [n]."""
        return self.offsets.diff()

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.values.nbytes

    def tensors(self, rows: Rows) -> list[Tensor]:
        """Return some examples, each without a copy."""
        starts, stops = self.offsets[:-1][rows].tolist(), self.offsets[1:][rows].tolist()
        return [self.values[start:stop] for start, stop in zip(starts, stops, strict=True)]

    def padded(self, rows: Rows, value: float = 0) -> Tensor:
        """Return some examples as one tensor, padded at the end to the length of the longest."""
        return pad_sequence(self.tensors(rows), batch_first=True, padding_value=value)

    def select(self, rows: Tensor) -> "Ragged":
        """Return a copy of some examples."""
        return Ragged.of(self.tensors(rows))


Leaf = Tensor | Ragged


class Examples:
    """Inputs of a network: tensors in any structure, with a row per example.

    Args:
        leaves: The tensors, each with a row for each example.
        structure: Nested dicts and tuples with the index of a leaf in its place.
        collate: Makes a batch from a list of examples. Without it, tensors that differ in length
            are padded at the end.
    """

    def __init__(
        self, leaves: Sequence[Leaf], structure: Structure, collate: Collate | None = None
    ) -> None:
        self.leaves: list[Leaf] = list(leaves)
        self.structure = structure
        self.collate = collate
        self._padding = 0

    @classmethod
    def of(cls, inputs: Any, n: int, collate: Collate | None = None) -> Self:
        """Convert the inputs of a split.

        Args:
            inputs: A tensor of shape [n, ...]; a dict or a tuple of such tensors, nested in any
                way; or, in place of a tensor, a list with a tensor, an array or a list of numbers
                for each example, which may differ in length.
            n: Number of examples. A list with another number of entries is a tuple of inputs.
            collate: As for the class.

        Raises:
            TaskError: `inputs` contain something other than tensors, or numbers of examples differ.
        """
        leaves: list[Leaf] = []
        structure = _walk(inputs, n, "inputs", leaves)
        found = cls(leaves, structure, collate)
        lengths = {len(leaf) for leaf in leaves}
        if len(lengths) != 1:
            raise TaskError(
                "The inputs of a split need one row for each example; they have "
                f"{', '.join(map(str, sorted(lengths))) or 'no'} rows."
            )
        found.check_padding()
        return found

    @classmethod
    def of_targets(cls, targets: Any) -> Self:
        """Convert targets: a tensor of shape [n, ...], or a list with one per example."""
        leaves: list[Leaf] = []
        structure = _walk(targets, len(targets), "targets", leaves)
        found = cls(leaves, structure)
        found._padding = IGNORED
        return found

    def __len__(self) -> int:
        return len(self.leaves[0])

    @property
    def tensors(self) -> list[Tensor]:
        """The rectangular tensors, with a row for each example."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(leaf.nbytes for leaf in self.leaves)

    @property
    def is_one_tensor(self) -> bool:
        """Whether the structure is one tensor, of shape [n, ...]."""
        return isinstance(self.structure, int) and isinstance(self.leaves[0], Tensor)

    @property
    def is_rectangular(self) -> bool:
        """Whether a batch consists of rows of tensors, without collating or padding."""
        return self.collate is None and not any(isinstance(leaf, Ragged) for leaf in self.leaves)

    @property
    def by_length(self) -> Tensor | None:
        """The order of the examples by length, which needs little padding: int64, shape [n].

        None if all have one length.
        """
        ragged = [leaf for leaf in self.leaves if isinstance(leaf, Ragged)]
        if not ragged:
            return None
        longest = torch.stack([leaf.lengths for leaf in ragged]).amax(0)
        # The longest first: memory runs out at once or not at all.
        return longest.argsort(stable=True, descending=True)

    def named(self, name: str) -> Leaf:
        """Return the tensor under a key, or the first tensor if there is no such key."""
        names = self._names
        return self.leaves[names.index(name) if name in names else 0]

    @property
    def structured(self) -> Any:
        """The tensors in their structure."""
        return _filled(self.structure, self.leaves)

    def whole(self) -> Any:
        """Return all examples in their structure; tensors of different lengths as lists."""
        found = [
            leaf if isinstance(leaf, Tensor) else leaf.tensors(slice(None)) for leaf in self.leaves
        ]
        return _filled(self.structure, found)

    def batch(self, rows: Rows) -> Batch:
        """Return some examples as a batch of network inputs."""
        if self.collate is not None:
            return self.collate(self.each(rows))
        found = [
            take(leaf, rows)
            if isinstance(leaf, Tensor)
            else leaf.padded(rows, IGNORED if name == "labels" else self._padding)
            for name, leaf in zip(self._names, self.leaves, strict=True)
        ]
        batch = _filled(self.structure, found)
        if self._lacks_mask:
            ids = self.leaves[self._names.index("input_ids")]
            assert isinstance(ids, Ragged)  # noqa: S101 - a mask is lacking only if padded
            lengths = ids.lengths[rows]
            longest = int(lengths.max())
            batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
        return batch

    def each(self, rows: Rows) -> list[Any]:
        """Return some examples, each in its structure and without the dimension of the batch."""
        columns = [
            list(take(leaf, rows)) if isinstance(leaf, Tensor) else leaf.tensors(rows)
            for leaf in self.leaves
        ]
        return [_filled(self.structure, list(row)) for row in zip(*columns, strict=True)]

    def select(self, rows: Tensor, of_tensor: Callable[[Tensor, Tensor], Tensor]) -> "Examples":
        """Return a copy of some examples.

        Args:
            rows: Indices of the examples.
            of_tensor: Copies rows of a tensor.
        """
        leaves = [
            of_tensor(leaf, rows) if isinstance(leaf, Tensor) else leaf.select(rows)
            for leaf in self.leaves
        ]
        return self._with(leaves)

    def to(self, device: torch.device) -> "Examples":
        """Return the same with its tensors on a device; `Ragged` ones stay where they are."""
        leaves = [leaf.to(device) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return self._with(leaves)

    def _with(self, leaves: Sequence[Leaf]) -> "Examples":
        found = Examples(leaves, self.structure, self.collate)
        found._padding = self._padding
        return found

    @property
    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors with their names, including offsets, for the identity of the data."""
        for name, leaf in zip(self._names, self.leaves, strict=True):
            if isinstance(leaf, Tensor):
                yield name, leaf
            else:
                yield f"{name} values", leaf.values
                yield f"{name} offsets", leaf.offsets

    @property
    def _names(self) -> list[str]:
        """The last key on the way to each tensor; "" outside of dicts."""
        return list(_keys(self.structure))

    @property
    def _lacks_mask(self) -> bool:
        """Whether `input_ids` are padded and need an attention mask."""
        if not isinstance(self.structure, dict) or "attention_mask" in self._names:
            return False
        ids = dict(zip(self._names, self.leaves, strict=True)).get("input_ids")
        return isinstance(ids, Ragged)

    def check_padding(self) -> None:
        """Check that padded inputs have a mask.

        Raises:
            TaskError: They have none, so padding would change the inputs of the network.
        """
        if self.collate is not None or self.is_rectangular:
            return
        names = self._names
        if self._lacks_mask or "attention_mask" in names:
            return
        raise TaskError(
            "The examples differ in length, and padding would change the inputs of the network. "
            "Give the split a `collate` that makes a batch and a mask from a list of examples, or "
            "name the inputs as transformers does: Stockpot adds an `attention_mask` to a dict "
            "with `input_ids`."
        )


def call(model: Callable[..., Any], batch: Batch) -> Any:
    """Call a network on its inputs: `model(**dict)`, `model(*tuple)` or `model(tensor)`.

    A dict is passed as one argument if no argument of `forward` has the name of a key.
    """
    if isinstance(batch, Mapping):
        return model(**batch) if takes_by_name(model, batch) else model(batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    return model(batch)


def takes_by_name(model: Callable[..., Any], batch: Mapping[str, Any]) -> bool:
    """Return whether `forward` takes the entries of a dict as keyword arguments.

    Raises:
        TaskError: It takes only some of them.
    """
    forward = model.forward if isinstance(model, nn.Module) else model
    parameters = inspect.signature(forward).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return True
    unknown = [name for name in batch if name not in parameters]
    if not unknown:
        return True
    if len(unknown) == len(batch) and len(parameters) == 1:
        return False
    raise TaskError(
        f"The network takes {', '.join(parameters) or 'nothing'}, but the split's inputs also have "
        f"{', '.join(map(repr, unknown))}. Leave that out of the inputs, or have `build_model` "
        "return a module that takes it."
    )


def map_leaves(function: Callable[[Any], Any], batch: Batch, kind: type = Tensor) -> Any:
    """Apply a function to each tensor in a structure; other values are returned unchanged."""
    if isinstance(batch, kind):
        return function(batch)
    if isinstance(batch, Mapping):
        return {name: map_leaves(function, part, kind) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(map_leaves(function, part, kind) for part in batch)
    return batch


def take(tensor: Tensor, rows: Rows) -> Tensor:
    """Return some rows of a tensor, on its device."""
    return tensor[rows if isinstance(rows, slice) else rows.to(tensor.device)]


def described(batch: Batch) -> str:
    """Describe the dtype and shape of each tensor in a structure, for messages."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {list(batch.shape)}"
    if isinstance(batch, Ragged):
        return f"{described(batch.values)} in {len(batch)} examples"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{name}: {described(part)}" for name, part in batch.items()) + "}"
    if isinstance(batch, tuple | list):
        return "(" + ", ".join(described(part) for part in batch) + ")"
    return type(batch).__name__


def _walk(inputs: Any, n: int, where: str, leaves: list[Leaf]) -> Structure:
    """Collect the tensors of inputs, and return their structure."""
    if isinstance(inputs, Ragged):
        leaves.append(inputs)
        return len(leaves) - 1
    if isinstance(inputs, list) and len(inputs) == n:
        leaves.append(column(inputs, where))
        return len(leaves) - 1
    if isinstance(inputs, Tensor | np.ndarray):
        leaves.append(torch.as_tensor(inputs))
        if leaves[-1].ndim == 0:  # type: ignore[union-attr]
            raise TaskError(f"`{where}` is one number; it needs a row for each example.")
        return len(leaves) - 1
    if isinstance(inputs, Mapping):
        return {name: _walk(part, n, f"{where}[{name!r}]", leaves) for name, part in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(
            _walk(part, n, f"{where}[{index}]", leaves) for index, part in enumerate(inputs)
        )
    raise TaskError(
        f"`{where}` is a {type(inputs).__name__}; the inputs of a split are tensors, or dicts, "
        "tuples and lists of tensors."
    )


def column(values: Sequence[Any], where: str) -> Leaf:
    """Join the values of all examples, which may differ in length.

    Args:
        values: A tensor, an array, a number or a list of numbers for each example.
        where: Their name in errors.

    Raises:
        TaskError: They are not numeric, or differ in more than their first dimension.
    """
    try:
        tensors = [torch.as_tensor(value) for value in values]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(
            f"`{where}` contains values that are not numeric tensors: {error}"
        ) from None
    if not tensors:
        raise TaskError(f"`{where}` is empty.")
    shapes, dtypes = {tensor.shape[1:] for tensor in tensors}, {tensor.dtype for tensor in tensors}
    if len({tensor.ndim for tensor in tensors}) > 1 or len(shapes) > 1 or len(dtypes) > 1:
        raise TaskError(
            f"`{where}` holds tensors that differ in more than their first dimension: "
            f"{', '.join(sorted({described(tensor) for tensor in tensors})[:4])}."
        )
    if len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(tensors)
    return Ragged.of(tensors)


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def _filled(structure: Structure, leaves: Sequence[Any]) -> Any:
    """Return a structure with its leaves in place of their indices."""
    return map_leaves(leaves.__getitem__, structure, int)


def _keys(structure: Structure, key: str = "") -> Iterator[str]:
    """Return the last key on the way to each leaf; "" outside of dicts."""
    if isinstance(structure, int):
        yield key
    elif isinstance(structure, dict):
        for name, part in structure.items():
            yield from _keys(part, str(name))
    else:
        for part in structure:
            yield from _keys(part)
