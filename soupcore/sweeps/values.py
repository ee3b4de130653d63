"""Check whether the values of checkpoints with the same layout can be averaged."""

from collections import defaultdict
from collections.abc import Collection, Mapping

import torch

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.dtypes import common_dtype
from soupcore.sweeps.findings import Finding, and_more, some

# These differ between runs and are not averaged.
_COUNTERS = ("num_batches_tracked", "rng_state")


def held_alike(checkpoints: Collection[Checkpoint]) -> set[str]:
    """Return the tensors with the same bytes in all checkpoints; none for a single checkpoint."""
    if len(checkpoints) < 2:
        return set()
    first, *others = checkpoints
    return {
        tensor
        for tensor in first.tensors
        if all(_same_bytes(tensor, first, other) for other in others)
    }


def nonfinite_findings(name: str, checkpoint: Checkpoint, alike: set[str]) -> list[Finding]:
    """Find NaN and infinities.

    Args:
        name: Name of the ingredient.
        checkpoint: The ingredient.
        alike: Tensors that are the same in all checkpoints. They are copied and not averaged, so
            the −inf of an attention mask is harmless there.
    """
    bad = [tensor for tensor in checkpoint.nonfinite if tensor not in alike]
    if not bad:
        return []
    count, numel = checkpoint.nonfinite[bad[0]], checkpoint.tensors[bad[0]].numel
    return [
        Finding(
            "misfit",
            name,
            bad[0],
            f"has NaN or infinite values ({count} of {numel})" + and_more(len(bad) - 1),
            "Exclude it: any average with it would be NaN. The run probably diverged; use an "
            "earlier checkpoint of it.",
        )
    ]


def dtype_findings(
    name: str, checkpoint: Checkpoint, reference: Checkpoint, model: str
) -> list[Finding]:
    """Find tensors with another dtype than in the reference; one finding per pair of dtypes."""
    pairs: dict[tuple[torch.dtype, torch.dtype], str] = {}
    for tensor, info in checkpoint.tensors.items():
        other = reference.tensors[tensor].dtype
        if info.dtype != other:
            first = pairs.setdefault((info.dtype, other), tensor)
            if checkpoint.tensors[first].numel == 1:  # prefer a weight to a counter as example
                pairs[info.dtype, other] = tensor
    findings = []
    for (found, expected), tensor in pairs.items():
        problem = f"is stored as {_short(found)}, but as {_short(expected)} in {model}"
        # Counters may be integers in one version of a tool and floats in another. Weights stored as
        # integers were quantized or truncated.
        is_cast = checkpoint.tensors[tensor].numel > 1 and _is_real(found) != _is_real(expected)
        if is_cast or common_dtype(found, expected) is None:
            way_out = "Exclude it, or save it in the dtype of the others."
            findings.append(Finding("misfit", name, tensor, problem, way_out))
        else:
            way_out = (
                "Nothing to do: they are averaged in the wider dtype, and written in that of the "
                "soup's first ingredient unless you choose another."
            )
            findings.append(Finding("warning", name, tensor, problem, way_out))
    return findings


def integer_findings(
    name: str, checkpoint: Checkpoint, reference: Checkpoint, model: str
) -> list[Finding]:
    """Find integer tensors, such as masks and ids, that differ from the reference's.

    Counters are ignored.
    """
    differing: dict[torch.dtype, list[str]] = defaultdict(list)
    for tensor, info in checkpoint.tensors.items():
        if info.dtype.is_floating_point or info.dtype.is_complex or tensor.endswith(_COUNTERS):
            continue
        same_dtype = reference.tensors[tensor].dtype == info.dtype
        if same_dtype and not _same_bytes(tensor, checkpoint, reference):
            differing[info.dtype].append(tensor)
    return [
        Finding(
            "warning",
            name,
            tensors[0],
            f"has {_short(dtype)} values that differ from {model}" + and_more(len(tensors) - 1),
            "They are not averaged: a soup copies them from the ingredient with the largest "
            "coefficient. Exclude the ingredient if they are a mask or a vocabulary.",
        )
        for dtype, tensors in differing.items()
    ]


def duplicate_findings(checkpoints: Mapping[str, Checkpoint]) -> list[Finding]:
    """Find ingredients with the same weights as another one."""
    same: dict[str, list[str]] = defaultdict(list)
    for name, checkpoint in checkpoints.items():
        same[checkpoint.digest].append(name)
    return [
        Finding(
            "warning",
            name,
            "",
            f"has the same weights as {names[0]}",
            "Exclude one of them unless it should count twice in an average.",
        )
        for names in same.values()
        for name in names[1:]
    ]


def tie_findings(checkpoints: Mapping[str, Checkpoint]) -> list[Finding]:
    """Find ingredients in which tensors differ that are tied in another ingredient."""
    tied: dict[frozenset[str], str] = {}
    for name, checkpoint in checkpoints.items():
        for tie in checkpoint.ties:
            tied.setdefault(frozenset(tie), name)
    return [
        Finding(
            "warning",
            name,
            min(tie),
            f"has different values in {some(sorted(tie))}, which are tied in {owner}",
            "Their averages differ too, so they are not tied in a soup. Exclude it if the network "
            "needs them tied.",
        )
        for tie, owner in tied.items()
        for name, checkpoint in checkpoints.items()
        if tie <= checkpoint.tensors.keys()
        and len({checkpoint.scan()[tensor].digest for tensor in tie}) > 1
    ]


def _same_bytes(tensor: str, one: Checkpoint, other: Checkpoint) -> bool:
    return (
        one.tensors[tensor] == other.tensors[tensor]
        and one.scan()[tensor].digest == other.scan()[tensor].digest
    )


def _is_real(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
