"""Detection of tensors that are not trained, by their values.

Library versions differ in the buffers that they save beside the weights: position ids, causal
masks, frequencies of rotary embeddings, BatchNorm's counter, a profiler's counts, class weights of
a loss. torch's and Hugging Face's loaders tolerate most of them. A name alone is not sufficient,
because a network may train a parameter called `inv_freq`, so each rule checks the values too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo

_LARGEST = 1 << 26  # elements; masks and position tables have fewer
_BEGINNING = 64  # values that suffice to recognise most weights
_MASKS = -100.0  # Swin's masks hold −100, others −10⁴ or −∞
_NEVER_LEARNED = -1e4
_BASE = 10_000.0  # base of the sinusoids in all networks that save them
_LOSS = re.compile(r"(?:^|_)(?:criterion|criteria|loss|losses|metric|metrics)(?:_|$)")

LOSS = "the weights of a loss"

Read = Callable[[int, int], Tensor]


class _Floats(NamedTuple):
    """A tensor of floats: the last part of its name, its shape, and all its values, flattened."""

    leaf: str
    shape: Sequence[int]
    values: Tensor


def _is_range(tensor: _Floats) -> bool:
    count = tensor.values.numel()
    in_one_row = count >= 4 and count == tensor.shape[-1]
    return in_one_row and bool((tensor.values == torch.arange(count)).all())


def _are_rotary_frequencies(tensor: _Floats) -> bool:
    """Return whether x[i] = base^(−i/n), for any base."""
    count = tensor.values.numel()
    if len(tensor.shape) != 1 or count < 2 or tensor.values[0] != 1:
        return False
    ratio = tensor.values[1]
    expected = ratio ** torch.arange(count)
    close = bool(((tensor.values - expected).abs() <= 0.02 * expected + 1e-12).all())
    # Two or three values may follow a power law by chance.
    return bool(0 < ratio < 1) and close and (count > 3 or tensor.leaf == "inv_freq")


def _is_mask(tensor: _Floats) -> bool:
    """Return whether it is a triangle of ones, or holds only 0 and one large negative value."""
    values = tensor.values
    if values.numel() == 1:
        return bool(values <= _NEVER_LEARNED)
    if len(tensor.shape) < 2 or tensor.shape[-1] != tensor.shape[-2]:
        return False
    lowest = values.min()
    if lowest <= _MASKS:
        return bool(((values == 0) | (values == lowest)).all()) and bool((values == 0).any())
    squares = values.view(-1, *tensor.shape[-2:])
    return bool((squares == torch.ones_like(squares[0]).tril()).all())


def _are_sinusoids(tensor: _Floats) -> bool:
    """Return whether row p holds sin and cos of p·base^(−i/n). Rows of zeros are padding."""
    sides = [side for side in tensor.shape if side > 1]
    if len(sides) != 2 or sides[1] % 2 or sides[1] < 4:
        return False
    table, half = tensor.values.view(sides), sides[1] // 2
    used = table.any(dim=1)
    if used.sum() < 2:
        return False
    positions = torch.arange(sides[0], dtype=torch.float64)[:, None]
    for last in (half, half - 1):
        angles = positions * _BASE ** -(torch.arange(half, dtype=torch.float64) / last)
        sin, cos = angles.sin(), angles.cos()
        pairs = ((sin, cos), (cos, sin), (cos, cos), (sin, sin))
        laid_out = [torch.cat(pair, dim=1) for pair in pairs]
        laid_out += [torch.stack(pair, dim=2).flatten(1) for pair in pairs]
        if any(bool(((table - one)[used].abs() < 0.02).all()) for one in laid_out):
            return True
    return False


def _is_profilers(tensor: _Floats) -> bool:
    value = tensor.values[0]
    named = tensor.leaf in ("total_ops", "total_params")
    return (
        named and tensor.values.numel() == 1 and bool(value >= 0) and bool(value == value.round())
    )


# A description of the tensors that each rule detects. (thop is the profiler.)
_RULES: tuple[tuple[str, Callable[[_Floats], bool]], ...] = (
    ("positions counted from 0", _is_range),
    ("frequencies of a rotary embedding", _are_rotary_frequencies),
    ("a mask", _is_mask),
    ("sinusoids of positions", _are_sinusoids),
    ("a number of the profiler thop", _is_profilers),
)


def why_no_weight(name: str, tensors: Mapping[str, TensorInfo], read: Read) -> str:
    """Return a description of a tensor that is not trained, or "" if it may be trained.

    Args:
        name: Name of the tensor.
        tensors: All tensors of the checkpoint or network. Weights of a loss are recognised by the
            other tensors of their module.
        read: `read(start, stop)` returns elements of the flattened tensor.
    """
    reason = _reason_by_values(name, tensors[name], read)
    if not reason and _is_in_loss(name, tensors):
        values = read(0, tensors[name].numel)
        if bool((values.isfinite() & (values >= 0)).all()):
            return LOSS
    return reason


def _reason_by_values(name: str, info: TensorInfo, read: Read) -> str:
    if info.dtype.is_complex:
        return ""
    if not info.dtype.is_floating_point:
        return "whole numbers" if info.dtype is not torch.bool else "a mask"
    if not 0 < info.numel <= _LARGEST or info.dtype.itemsize == 1:
        return ""
    beginning = read(0, min(info.numel, _BEGINNING)).double()
    if not _may_be_no_weight(beginning, info):
        return ""
    tensor = _Floats(name.rpartition(".")[2], info.shape, read(0, info.numel).double())
    return next((reason for reason, holds in _RULES if holds(tensor)), "")


def why_no_weight_in(checkpoint: Checkpoint, name: str) -> str:
    """Return a description of a checkpoint's tensor if it is not trained; see `why_no_weight`."""

    def read(start: int, stop: int) -> Tensor:
        return checkpoint.read_elements(name, start, stop)

    return why_no_weight(name, checkpoint.tensors, read)


def _may_be_no_weight(beginning: Tensor, info: TensorInfo) -> bool:
    """Return whether the first values may belong to a buffer. A trained matrix fails this test."""
    if info.numel == 1 or (len(info.shape) == 1 and beginning[0] == 1):
        return True
    row = beginning[: info.shape[-1]]
    binary = (row == 0) | (row == 1) | (row <= _MASKS)
    return bool(binary.all()) or bool((beginning == torch.arange(len(beginning))).all())


def _is_in_loss(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Return whether a tensor belongs to a module that has a loss's name and no matrices."""
    modules = name.split(".")[:-1]
    info = tensors[name]
    depth = next((i for i, module in enumerate(modules, 1) if _LOSS.search(module)), 0)
    if not depth or not info.numel or not info.dtype.is_floating_point:
        return False
    prefix = "".join(f"{module}." for module in modules[:depth])
    inside = [other for n, other in tensors.items() if n.startswith(prefix)]
    return len(inside) < len(tensors) and all(
        sum(side > 1 for side in other.shape) <= 1 for other in inside
    )
