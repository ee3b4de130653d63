"""Check that checkpoints have tensors of the same names, except for wrappers, and shapes.

The checks read only headers, so checkpoints that cannot fit the others need not be downloaded.
"""

from collections.abc import Mapping
from math import prod

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.checkpoints.names import weight_names
from soupcore.checkpoints.renamed import named_like
from soupcore.sweeps.adapters import is_lora
from soupcore.sweeps.findings import Finding, and_more, some, tensors, without_misfits

# Names of packed weights, and of the scales that belong to a weight of one byte: appended to its
# name (bitsandbytes, FP8, compressed-tensors), or in place of the end of it (bitsandbytes in 8
# bits, ComfyUI, MXFP4).
_PACKED = ("qweight", "weight_packed")
_SCALES_AFTER = (".absmax", ".quant_map", "_scale", "_scale_inv")
_SCALES_INSTEAD = (("weight", "SCB"), ("weight", "scale_weight"), ("_blocks", "_scales"))
_PARAMETRIZATIONS = "parametrizations."


def quantized_findings(name: str, checkpoint: Checkpoint) -> list[Finding]:
    """Find quantized weights: packed or with separate scales, or only integers."""
    packed = [tensor for tensor in checkpoint.tensors if _is_quantized(tensor, checkpoint.tensors)]
    if not packed:
        return _integers_only(name, checkpoint)
    return [
        Finding(
            "misfit",
            name,
            packed[0],
            "is quantized: its values need separate scales, and the mean of such values is not the "
            "mean of the weights" + and_more(len(packed) - 1),
            "Average the original checkpoints, or dequantize it and save it again.",
        )
    ]


def _integers_only(name: str, checkpoint: Checkpoint) -> list[Finding]:
    dtypes = {info.dtype for info in checkpoint.tensors.values()}
    if any(dtype.is_floating_point or dtype.is_complex for dtype in dtypes):
        return []
    kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    return [
        Finding(
            "misfit",
            name,
            "",
            f"has only integer tensors ({kinds}), but only floating-point weights can be averaged",
            "Exclude it, or average the checkpoints that it was converted from.",
        )
    ]


def renamed_findings(name: str, checkpoint: Checkpoint) -> list[Finding]:
    """Note parametrized layers that are read under other names; see `parametrized_names`."""
    renamed = [
        (there, here)
        for here, there in checkpoint.original_names.items()
        if (_PARAMETRIZATIONS in here) != (_PARAMETRIZATIONS in there)
    ]
    if not renamed:
        return []
    there, here = renamed[0]
    problem = f"{there} is read as {here}: torch versions name it differently"
    return [Finding("note", name, there, problem + and_more(len(renamed) - 1), "Nothing to do.")]


def layout_findings(
    name: str, checkpoint: Checkpoint, reference: Checkpoint, model: str
) -> list[Finding]:
    """Compare names and shapes with those of the reference.

    Args:
        name: Name of the ingredient.
        checkpoint: The ingredient, with the tensor names of the reference.
        reference: The checkpoint to compare with.
        model: Display name of the reference.
    """

    def misfit(tensor: str, problem: str) -> Finding:
        return Finding(
            "misfit",
            name,
            tensor,
            problem,
            "Exclude it, or save it again with the architecture of the others.",
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
                f"has shape {list(found[tensor])}, but {list(expected[tensor])} in {model}"
                + and_more(len(differing) - 1),
            )
        )
    return findings


def header_findings(opened: Mapping[str, Checkpoint], base_name: str) -> list[Finding]:
    """Find checkpoints that cannot fit the others, given their headers, before a download.

    Checkpoints are misfits if they have different matrices, as the full check finds too
    (`soupcore.sweeps.fit`). Differences that may be constants or counters are left to that check,
    which reads the values.

    The base determines the layout if an ingredient may fit it, and otherwise the most common
    layout does, or the first of several. The base itself is never a misfit.

    Args:
        opened: `{name: checkpoint}`.
        base_name: Name of the shared initialisation, if there is one.
    """
    findings = [f for name, c in opened.items() for f in quantized_findings(name, c)]
    compared = {
        name: checkpoint
        for name, checkpoint in without_misfits(opened, findings).items()
        if name != base_name and not is_lora(checkpoint)
    }
    if not compared:
        return findings
    base = opened.get(base_name)
    reference, model = _commonest(compared), "most of the sweep"
    if base is not None and any(_may_fit(checkpoint, base) for checkpoint in compared.values()):
        reference, model = base, "the base"
    for name, checkpoint in compared.items():
        if not _may_fit(checkpoint, reference):
            named = _named_like(checkpoint, reference)
            findings += layout_findings(name, named, reference, model)
    return findings


def _is_quantized(tensor: str, tensors: Mapping[str, TensorInfo]) -> bool:
    dtype = tensors[tensor].dtype
    if tensor.endswith(_PACKED) and not dtype.is_floating_point:
        return True
    if dtype.itemsize > 1 or dtype is torch.bool:
        return False  # a tensor named like a scale may be a learned one
    scales = {tensor + scale for scale in _SCALES_AFTER}
    scales |= {
        tensor.removesuffix(end) + scale for end, scale in _SCALES_INSTEAD if tensor.endswith(end)
    }
    return not scales.isdisjoint(tensors)


def _named_like(checkpoint: Checkpoint, reference: Checkpoint) -> Checkpoint:
    return named_like(checkpoint, weight_names(reference.tensors), reference.ties)


def _may_fit(checkpoint: Checkpoint, reference: Checkpoint) -> bool:
    named = _named_like(checkpoint, reference)
    wanted = {name: reference.tensors[name] for name in weight_names(reference.tensors)}
    differing = [
        (named.tensors.get(name), wanted.get(name), name)
        for name in named.tensors.keys() | wanted.keys()
    ]
    return not any(
        (one is None or other is None or one.shape != other.shape)
        and name.endswith("weight")
        and any(
            info is not None
            and info.dtype.is_floating_point
            and sum(side > 1 for side in info.shape) > 1
            for info in (one, other)
        )
        for one, other, name in differing
    )


def _commonest(checkpoints: Mapping[str, Checkpoint]) -> Checkpoint:
    families: list[list[Checkpoint]] = []
    for checkpoint in checkpoints.values():
        family = next((known for known in families if _may_fit(checkpoint, known[0])), None)
        if family is None:
            families.append([checkpoint])
        else:
            family.append(checkpoint)
    return max(families, key=len)[0]
