"""What a network is given: examples of any structure, and of different lengths.

Inputs may be a tensor, or dicts, tuples and lists of tensors, nested as the network wants them.
Examples of different lengths lie one behind the other in one tensor (`Ragged`) and are padded batch
by batch.
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
Structure = Any  # the same with the number of each tensor in its place
Collate = Callable[[list[Any]], Batch]
Rows = slice | Tensor

_IGNORED = -100  # the class that cross-entropy ignores, in torch and transformers


class Ragged:
    """Tensors that differ in their first dimension, one an example.

    Args:
        values: All of them one behind the other, shape [total, ...].
        offsets: Where each begins, and where the last ends: int64, shape [n + 1].
    """

    def __init__(self, values: Tensor, offsets: Tensor) -> None:
        self.values = values
        self.offsets = offsets

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Self:
        """Make it of one tensor an example; they are alike but for their first dimension."""
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
    """What a network is given of each example: tensors in any structure.

    Args:
        leaves: The tensors, each with a row for each example.
        structure: Where they belong: dicts and tuples, nested in any way, with the number of a leaf
            in its place.
        collate: Makes a batch of a list of examples; without it, tensors that differ in length are
            padded at their end.
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
        """Make it of inputs as a split takes them.

        Args:
            inputs: A tensor of shape [n, ...]; a dict or a tuple of such tensors, nested in any
                way; or, in place of a tensor, a list with a tensor, an array or a list of numbers
                for each example, which may differ in length.
            n: Number of examples. A list with another number of entries is a tuple of inputs.
            collate: As for the class.

        Raises:
            TaskError: Something in it is no tensor, or the number of examples differs.
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
        """Make it of targets: a tensor of shape [n, ...], or a list with one for each example."""
        leaves: list[Leaf] = []
        found = cls(leaves, _walk(targets, len(targets), "targets", leaves))
        found.leaves = leaves
        found._padding = _IGNORED
        return found

    def __len__(self) -> int:
        return len(self.leaves[0])

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors, of those that have a row for each example."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(leaf.nbytes for leaf in self.leaves)

    @property
    def is_one_tensor(self) -> bool:
        """Whether there is nothing but one tensor, of shape [n, ...]."""
        return isinstance(self.structure, int) and isinstance(self.leaves[0], Tensor)

    @property
    def is_rectangular(self) -> bool:
        """Whether a batch is made of rows of tensors, without collating."""
        return self.collate is None and not any(isinstance(leaf, Ragged) for leaf in self.leaves)

    @property
    def by_length(self) -> Tensor | None:
        """The order of the examples by length, in which little is padded: int64, shape [n].

        None where they do not differ in length.
        """
        ragged = [leaf for leaf in self.leaves if isinstance(leaf, Ragged)]
        if not ragged:
            return None
        longest = torch.stack([leaf.lengths for leaf in ragged]).amax(0)
        # The longest first: memory runs out at once or not at all.
        return longest.argsort(stable=True, descending=True)

    def named(self, name: str) -> Leaf:
        """Return the tensor under a key, or the first one where there is none."""
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
        """Return some examples as the network is given them."""
        if self.collate is not None:
            return self.collate(self.each(rows))
        found = [
            take(leaf, rows)
            if isinstance(leaf, Tensor)
            else leaf.padded(rows, _IGNORED if name == "labels" else self._padding)
            for name, leaf in zip(self._names, self.leaves, strict=True)
        ]
        batch = _filled(self.structure, found)
        if self._lacks_mask:
            ids = self.leaves[self._names.index("input_ids")]
            assert isinstance(ids, Ragged)  # noqa: S101 - what lacks a mask is padded
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
            rows: Which.
            of_tensor: Copies rows of a tensor.
        """
        leaves = [
            of_tensor(leaf, rows) if isinstance(leaf, Tensor) else leaf.select(rows)
            for leaf in self.leaves
        ]
        return self._with(leaves)

    def to(self, device: torch.device) -> "Examples":
        """Return the same with its tensors on a device; those of different lengths stay."""
        leaves = [leaf.to(device) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return self._with(leaves)

    def _with(self, leaves: Sequence[Leaf]) -> "Examples":
        found = Examples(leaves, self.structure, self.collate)
        found._padding = self._padding
        return found

    @property
    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors with their names, offsets too: what the identity of the data is made of."""
        for name, leaf in zip(self._names, self.leaves, strict=True):
            if isinstance(leaf, Tensor):
                yield name, leaf
            else:
                yield f"{name} values", leaf.values
                yield f"{name} offsets", leaf.offsets

    @property
    def _names(self) -> list[str]:
        """The last key on the way to each tensor; "" where it is none of a dict."""
        return list(_keys(self.structure))

    @property
    def _lacks_mask(self) -> bool:
        """Whether tokens are padded of which the network has to be told which are padding."""
        if not isinstance(self.structure, dict) or "attention_mask" in self._names:
            return False
        ids = dict(zip(self._names, self.leaves, strict=True)).get("input_ids")
        return isinstance(ids, Ragged)

    def check_padding(self) -> None:
        """Check that the network is told which part of a batch is padding.

        Raises:
            TaskError: It is not, and padded examples would be other inputs.
        """
        if self.collate is not None or self.is_rectangular:
            return
        names = self._names
        if self._lacks_mask or "attention_mask" in names:
            return
        raise TaskError(
            "The examples differ in length, and padded they would be other inputs to the network. "
            "Give the split a `collate` that makes a batch of a list of examples, a mask with it, "
            "or name the inputs as transformers does: a dict with `input_ids`, to which an "
            "`attention_mask` is added."
        )


def call(model: Callable[..., Any], batch: Batch) -> Any:
    """Call a network as its inputs say: `model(**dict)`, `model(*tuple)` or `model(tensor)`.

    A dict goes in as one argument where `forward` has no arguments of its names.
    """
    if isinstance(batch, Mapping):
        return model(**batch) if takes_by_name(model, batch) else model(batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    return model(batch)


def takes_by_name(model: Callable[..., Any], batch: Mapping[str, Any]) -> bool:
    """Return whether a network takes the entries of a dict as arguments.

    Raises:
        TaskError: It takes some of them only.
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
        f"The network takes {', '.join(parameters) or 'nothing'}, and the split's inputs have "
        f"{', '.join(map(repr, unknown))} beside. Leave that out of the inputs, or have "
        "`build_model` return a module that takes it."
    )


def map_leaves(function: Callable[[Any], Any], batch: Batch, kind: type = Tensor) -> Any:
    """Return a structure with a function applied to the tensors in it; the rest stays."""
    if isinstance(batch, kind):
        return function(batch)
    if isinstance(batch, Mapping):
        return {name: map_leaves(function, part, kind) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(map_leaves(function, part, kind) for part in batch)
    return batch


def take(tensor: Tensor, rows: Rows) -> Tensor:
    """Return some rows of a tensor, where it lies."""
    return tensor[rows if isinstance(rows, slice) else rows.to(tensor.device)]


def described(batch: Batch) -> str:
    """Return the dtype and shape of a tensor, or of each in a structure, for people."""
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
    """Return one tensor of the values of all examples, which may differ in length.

    Args:
        values: A tensor, an array, a number or a list of numbers for each example.
        where: What they are called, for errors.

    Raises:
        TaskError: They are no tensors, or differ in more than their first dimension.
    """
    try:
        tensors = [torch.as_tensor(value) for value in values]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(
            f"`{where}` holds something that is no tensor of numbers: {error}"
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
    """Return a structure with the leaves in their places."""
    return map_leaves(leaves.__getitem__, structure, int)


def _keys(structure: Structure, key: str = "") -> Iterator[str]:
    """Return the last key on the way to each leaf; "" where it is none of a dict."""
    if isinstance(structure, int):
        yield key
    elif isinstance(structure, dict):
        for name, part in structure.items():
            yield from _keys(part, str(name))
    else:
        for part in structure:
            yield from _keys(part)
