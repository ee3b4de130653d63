"""Whether the values of checkpoints of one layout can be averaged."""

from collections import defaultdict
from collections.abc import Collection, Mapping

import torch

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.dtypes import common_dtype
from soupcore.sweeps.findings import Finding, and_more, some

# These are expected to differ, and no one averages them.
_COUNTERS = ("num_batches_tracked", "rng_state")


def held_alike(checkpoints: Collection[Checkpoint]) -> set[str]:
    """Return the tensors whose bytes all checkpoints share, where there is more than one."""
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
        name: The ingredient.
        checkpoint: It.
        alike: Tensors that are the same everywhere. They are copied, not averaged, so the −inf of
            an attention mask does no harm there.
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
            f"{count} of {numel} values are NaN or infinite" + and_more(len(bad) - 1),
            "Leave it out: every average with it would be NaN. The run probably diverged; "
            "take an earlier checkpoint of it.",
        )
    ]


def dtype_findings(
    name: str, checkpoint: Checkpoint, reference: Checkpoint, model: str
) -> list[Finding]:
    """Find tensors that are stored in another dtype than in the reference, each pair once."""
    pairs: dict[tuple[torch.dtype, torch.dtype], str] = {}
    for tensor, info in checkpoint.tensors.items():
        other = reference.tensors[tensor].dtype
        if info.dtype != other:
            pairs.setdefault((info.dtype, other), tensor)
    findings = []
    for (found, expected), tensor in pairs.items():
        problem = f"stored as {_short(found)}, in {model} as {_short(expected)}"
        if common_dtype(found, expected) is None:
            way_out = "Leave it out, or save it in the dtype that the others have."
            findings.append(Finding("misfit", name, tensor, problem, way_out))
        else:
            way_out = (
                "It can be averaged: mixed in the wider of the two, and written as the soup's "
                "first ingredient is unless you choose a dtype."
            )
            findings.append(Finding("warning", name, tensor, problem, way_out))
    return findings


def integer_findings(
    name: str, checkpoint: Checkpoint, reference: Checkpoint, model: str
) -> list[Finding]:
    """Find masks and ids that are not those of the reference; counters may differ."""
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
            f"these {_short(dtype)} values are not those of {model}" + and_more(len(tensors) - 1),
            "They are not averaged: a soup takes them from the ingredient with the largest "
            "coefficient. Leave the ingredient out if they are a mask or a vocabulary.",
        )
        for dtype, tensors in differing.items()
    ]


def duplicate_findings(checkpoints: Mapping[str, Checkpoint]) -> list[Finding]:
    """Find ingredients that are the same weights twice."""
    same: dict[str, list[str]] = defaultdict(list)
    for name, checkpoint in checkpoints.items():
        same[checkpoint.digest].append(name)
    return [
        Finding(
            "warning",
            name,
            "",
            f"the same weights as {names[0]}",
            "Leave one of them out, unless it should count twice in an average.",
        )
        for names in same.values()
        for name in names[1:]
    ]


def tie_findings(checkpoints: Mapping[str, Checkpoint]) -> list[Finding]:
    """Find ingredients in which tensors differ that are one and the same in another."""
    tied: dict[frozenset[str], str] = {}
    for name, checkpoint in checkpoints.items():
        for tie in checkpoint.ties:
            tied.setdefault(frozenset(tie), name)
    return [
        Finding(
            "warning",
            name,
            min(tie),
            f"{some(sorted(tie))} are one tensor in {owner}, and differ here",
            "Their averages differ too, so the soup has both. Leave it out where the network is "
            "to share one.",
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


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
