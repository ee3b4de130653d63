"""Whether checkpoints hold the same tensors: names, wrappers aside, and shapes."""

import re
from collections import Counter
from collections.abc import Mapping
from math import prod

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.checkpoints.names import canonical_names, weight_names
from soupcore.sweeps.findings import Finding, and_more, some, tensors

_ADAPTER = re.compile(r"(^|\.)lora_(embedding_)?(A|B|up|down)\b", re.IGNORECASE)


# What quantizers call packed numbers, and the scales that they put beside a weight of one byte:
# after its name (bitsandbytes, FP8, compressed-tensors), or instead of the end of it (bitsandbytes
# in 8 bits, ComfyUI, MXFP4).
_PACKED = ("qweight", "weight_packed")
_SCALES_AFTER = (".absmax", ".quant_map", "_scale", "_scale_inv")
_SCALES_INSTEAD = (("weight", "SCB"), ("weight", "scale_weight"), ("_blocks", "_scales"))


def commonest(checkpoints: Mapping[str, Checkpoint]) -> tuple[Checkpoint, int]:
    """Return a checkpoint whose layout most have, and how many have it.

    Of those that have it, it is the first one with the names that most of them give the tensors.
    """
    layouts = {name: _layout(checkpoint) for name, checkpoint in checkpoints.items()}
    ((layout, count),) = Counter(layouts.values()).most_common(1)
    alike = [checkpoint for name, checkpoint in checkpoints.items() if layouts[name] == layout]
    ((names, _),) = Counter(frozenset(one.tensors) for one in alike).most_common(1)
    return next(one for one in alike if one.tensors.keys() == names), count


def adapter_findings(name: str, checkpoint: Checkpoint) -> list[Finding]:
    """Find the factors of a low-rank adapter among the tensors."""
    factors = [tensor for tensor in checkpoint.tensors if _ADAPTER.search(tensor)]
    if not factors:
        return []
    return [
        Finding(
            "misfit",
            name,
            factors[0],
            f"holds the factors of a low-rank adapter ({some(factors)}): an adapter changes the "
            "weights by the product B·A, and the mean of products is not the product of means",
            "Merge the adapter into the weights first (PEFT: model.merge_and_unload()) and save "
            "those.",
        )
    ]


def quantized_findings(name: str, checkpoint: Checkpoint) -> list[Finding]:
    """Find weights that are packed numbers, with their scales beside them."""
    packed = [tensor for tensor in checkpoint.tensors if _is_quantized(tensor, checkpoint.tensors)]
    if not packed:
        return []
    return [
        Finding(
            "misfit",
            name,
            packed[0],
            "quantized: the numbers stand for weights by scales that lie beside them, and the mean "
            "of such numbers is not the mean of the weights" + and_more(len(packed) - 1),
            "Average the checkpoints it was quantized from, or dequantize it and save it again.",
        )
    ]


def layout_findings(
    name: str, checkpoint: Checkpoint, reference: Checkpoint, model: str
) -> list[Finding]:
    """Compare names and shapes with those of the reference.

    Args:
        name: The ingredient.
        checkpoint: It, under the names of the reference.
        reference: What it should look like.
        model: What the reference is, for people.
    """

    def misfit(tensor: str, problem: str) -> Finding:
        return Finding(
            "misfit",
            name,
            tensor,
            problem,
            "Leave it out, or save it again from the architecture that the others have.",
        )

    found = {tensor: info.shape for tensor, info in checkpoint.tensors.items()}
    wanted = weight_names(reference.tensors)
    expected = {tensor: reference.tensors[tensor].shape for tensor in wanted}
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    differing = sorted(t for t in found.keys() & expected.keys() if found[t] != expected[t])
    findings = []
    if missing:
        findings.append(
            misfit(missing[0], f"lacks {tensors(len(missing))} of {model}: {some(missing)}")
        )
    if extra:
        findings.append(
            misfit(extra[0], f"has {tensors(len(extra))} that {model} lacks: {some(extra)}")
        )
    if differing:
        tensor = max(differing, key=lambda tensor: prod(expected[tensor]))
        findings.append(
            misfit(
                tensor,
                f"shape {list(found[tensor])}, in {model} it is {list(expected[tensor])}"
                + and_more(len(differing) - 1),
            )
        )
    return findings


def _layout(checkpoint: Checkpoint) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset(
        (canonical, checkpoint.tensors[name].shape)
        for name, canonical in canonical_names(checkpoint.tensors).items()
    )


def _is_quantized(tensor: str, tensors: Mapping[str, TensorInfo]) -> bool:
    dtype = tensors[tensor].dtype
    if tensor.endswith(_PACKED) and not dtype.is_floating_point:
        return True
    if dtype.itemsize > 1 or dtype is torch.bool:
        return False  # what is called a scale beside it may be one that the network learns
    scales = {tensor + scale for scale in _SCALES_AFTER}
    scales |= {
        tensor.removesuffix(end) + scale for end, scale in _SCALES_INSTEAD if tensor.endswith(end)
    }
    return not scales.isdisjoint(tensors)
