"""Splits: named parts of the data of a task, with groups and weights of their examples."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from soupcore.checkpoints.dtypes import DTYPE_NAMES, raw_bytes
from soupcore.errors import TaskError
from soupcore.tasks.decoding import Decoding
from soupcore.tasks.description import Role
from soupcore.tasks.examples import Collate, Examples, Leaf, Ragged, column

_LARGEST = 1 << 20  # bytes of an image that is shown
_LONGEST = 2000  # characters of a text that is shown


@dataclass(frozen=True)
class Shown:
    """An example for display: a text, an image, or both.

    Attributes:
        text: The example as text, or a caption such as its class; cut off after 2,000 characters.
        image: uint8, shape [height, width] (grey) or [height, width, 3] (RGB), at most 1 MiB.

    Raises:
        TaskError: The image has another dtype or shape, or is too large.
    """

    text: str = ""
    image: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the image."""
        image = self.image
        if image is None:
            return
        if image.dtype != torch.uint8 or not (
            image.dim() == 2 or (image.dim() == 3 and image.shape[2] == 3)
        ):
            raise TaskError(
                "`show` returned an image of dtype "
                f"{image.dtype} and shape {list(image.shape)}. Return uint8 of shape [height, "
                "width] or [height, width, 3]."
            )
        if image.numel() > _LARGEST:
            raise TaskError(
                f"`show` returned an image of {list(image.shape)}, which is more than 1 MiB. "
                "Return a smaller one."
            )

    def to_json(self) -> dict[str, Any]:
        """Return the example as JSON, the inverse of `Shown.from_json`."""
        cut = self.text[:_LONGEST]
        body: dict[str, Any] = {"text": cut + "…" if len(self.text) > _LONGEST else cut}
        if self.image is not None:
            body["shape"] = list(self.image.shape)
            body["pixels"] = b64encode(self.image.cpu().contiguous().numpy().tobytes()).decode()
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Shown":
        """Return the example from its JSON."""
        if "pixels" not in body:
            return cls(body["text"])
        pixels = np.frombuffer(b64decode(body["pixels"]), dtype=np.uint8)
        image: npt.NDArray[np.uint8] = pixels.reshape(body["shape"]).copy()
        return cls(body["text"], torch.from_numpy(image))


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
            as language models. Weights are finite and not negative. They are relative: multiplying
            all by one number changes no score. An example of weight zero is left out. They are not
            counts: intervals assume n examples.

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

    #: Returns an example for display, by its index; None if the split cannot display examples.
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
            _check_tokens(self.token_weights, examples)

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
        self.weights, self.token_weights = _checked_weights(weights, n)

    def load(
        self, on_examples: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[Examples, Examples]:
        """Return inputs and targets; decode them first if needed.

        Args:
            on_examples: Called with the examples decoded so far and their total; raise in it to
                stop.

        Raises:
            TaskError: Examples are not pairs of one structure, or weights of tokens do not fit.
            FullDiskError: The disk is too small.
        """
        if self._data is None:
            assert self._decoding is not None  # noqa: S101 - exactly one of the two is set
            data = self._decoding.load(on_examples)
            if self.token_weights is not None:
                _check_tokens(self.token_weights, data[0])
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

        Groups and weights are part of it, if there are any. For a data set, see `from_dataset`.
        """
        data = self._data_digest if self._decoding is None else self._decoding.digest
        if self.groups is not None:
            data = hashlib.sha256(json.dumps([data, self.groups]).encode()).hexdigest()
        if self.weights is None and self.token_weights is None:
            return data
        sha = hashlib.sha256(f"weights {data}".encode())
        for part in _tensors_of(self.weights, self.token_weights):
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


def _checked_weights(weights: Any, n: int) -> tuple[Tensor | None, Leaf | None]:
    """Validate and convert weights of examples or tokens.

    Args:
        weights: A number for each of n examples, shape [n]; or one for each token, shape
            [n, tokens] or a list with a tensor for each example; or None.
        n: Number of examples.

    Returns:
        Weights of examples, float64, shape [n], or None; and weights of tokens, float32, or None.

    Raises:
        TaskError: The number of weights is wrong, one is negative or not finite, or all weights of
            the examples, or of the tokens of one example, are zero.
    """
    if weights is None:
        return None, None
    leaf = _leaf(weights)
    if isinstance(leaf, Tensor) and leaf.ndim == 0:
        raise TaskError("A split needs one weight for each example, not one number.")
    if len(leaf) != n:
        raise TaskError(f"A split needs one weight for each example: {n}, not {len(leaf)}.")
    values = leaf if isinstance(leaf, Tensor) else leaf.values
    if values.is_complex() or values.ndim > (2 if values is leaf else 1):
        raise TaskError(
            "A split needs one weight for each example, shape [n], or for each token, shape "
            f"[n, tokens]; its weights have shape {list(values.shape)}."
        )
    of_tokens = isinstance(leaf, Ragged) or leaf.ndim == 2
    values = values.detach().cpu().to(torch.float32 if of_tokens else torch.float64)
    wrong = (~values.isfinite() | (values < 0)).nonzero()
    if len(wrong):
        value = float(values[tuple(wrong[0])])
        raise TaskError(
            f"Weights must be finite and not negative; the split has the weight {value:g}."
        )
    if not of_tokens:
        if not values.any():
            raise TaskError("All weights of the split are zero, so its scores would be undefined.")
        return values, None
    leaf = values if isinstance(leaf, Tensor) else Ragged(values, leaf.offsets)
    rows = leaf if isinstance(leaf, Tensor) else leaf.tensors(slice(None))
    without = next((row for row, each in enumerate(rows) if not each.any()), None)
    if without is not None:
        raise TaskError(
            f"All tokens of example {without} have the weight zero, so its loss is undefined. "
            "Leave the example out of the split."
        )
    return None, leaf


def _leaf(weights: Any) -> Leaf:
    try:
        if isinstance(weights, Tensor):
            return weights
        if hasattr(weights, "shape"):  # an array, or a column of a table
            return torch.as_tensor(np.asarray(weights))
        return column([torch.as_tensor(each, dtype=torch.float64) for each in weights], "weights")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(f"The weights of a split must be numbers: {error}") from None


def _check_tokens(weights: Leaf, inputs: Examples) -> None:
    """Check that there is a weight for each token of the inputs.

    The tokens are those of `input_ids`, or of the first tensor of the inputs.

    Raises:
        TaskError: Their shapes differ, or batches are made by a `collate`, which takes no weights.
    """
    if inputs.collate is not None:
        raise TaskError(
            "Weights of tokens need inputs that Stockpot pads, but this split has a `collate`. "
            "Leave it out, or give weights of whole examples."
        )
    tokens = inputs.named("input_ids")
    if isinstance(weights, Tensor) and isinstance(tokens, Tensor):
        fits = weights.shape == tokens.shape[:2]
    else:
        fits = torch.equal(_lengths(weights), _lengths(tokens))
    if not fits:
        raise TaskError(
            "A split needs one weight for each token of its inputs, in the same shape: a tensor of "
            "shape [n, tokens], or a list with one tensor for each example."
        )


def _tensors_of(*weights: Leaf | None) -> Iterator[Tensor]:
    """Yield the tensors of the weights."""
    for leaf in weights:
        if isinstance(leaf, Ragged):
            yield from (leaf.values, leaf.offsets)
        elif leaf is not None:
            yield leaf


def _lengths(leaf: Leaf) -> Tensor:
    if isinstance(leaf, Ragged):
        return leaf.lengths
    return torch.full((len(leaf),), leaf.shape[1] if leaf.ndim > 1 else 0)
