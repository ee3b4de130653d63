"""Check whether the ingredients of a sweep can be averaged, before any work starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.names import weight_names
from soupcore.checkpoints.renamed import named_like, without
from soupcore.errors import CheckpointError
from soupcore.sweeps.adapters import adapter_findings, is_lora, merged
from soupcore.sweeps.averages import average_findings
from soupcore.sweeps.findings import Finding, tensors, without_misfits
from soupcore.sweeps.heads import complete, head_findings, partial_base
from soupcore.sweeps.layout import layout_findings, quantized_findings, renamed_findings
from soupcore.sweeps.set_aside import commonest, no_weights, set_aside_findings
from soupcore.sweeps.values import (
    dtype_findings,
    duplicate_findings,
    held_alike,
    integer_findings,
    nonfinite_findings,
    tie_findings,
)


@dataclass(frozen=True)
class Fit:
    """The checkpoints that can be averaged with each other, and all findings.

    Attributes:
        checkpoints: `{name: checkpoint}`, all with the same tensor names.
        base: The base with those names, a `Fixed` if it fits in part; None if there is no usable
            base.
        findings: All findings.
        reference: Display name of the checkpoint that values were compared with.
    """

    checkpoints: dict[str, Checkpoint]
    base: Checkpoint | None
    findings: list[Finding]
    reference: str


def check_fit(opened: Mapping[str, Checkpoint], base_name: str = "") -> Fit:
    """Compare all ingredients with a reference, tensor by tensor, and with each other.

    The base determines the layout. Without a base, the most common layout does, or the first of
    several equally common ones. If no ingredient fits the base, the most common layout does too,
    and the base is completed with tensors of the ingredients if it has most of them (see
    `soupcore.sweeps.heads`), or excluded. Tensors that are not weights are set aside unless
    all ingredients have them (see `soupcore.sweeps.set_aside`). Values are compared with those of
    the base or, without one that fits completely, of the first ingredient that fits.

    Args:
        opened: `{name: checkpoint}`. Checkpoints that were not scanned are scanned here.
        base_name: Name of the shared initialisation, if there is one.
    """
    opened, findings = _with_merged_adapters(opened, base_name)
    opened = without_misfits(opened, findings)
    findings += _of_each(opened, adapter_findings) + _of_each(opened, quantized_findings)
    opened = without_misfits(opened, findings)
    in_part = partial_base(opened, base_name)
    if in_part is None:
        findings += _reasons_against_base(opened, base_name)
        opened = without_misfits(opened, findings)
    else:
        opened = {name: c for name, c in opened.items() if name != base_name}
    if not opened:
        return Fit({}, None, findings, "")
    has_base = base_name in opened
    reference = opened[base_name] if has_base else commonest(opened)[0]
    model = "the base" if has_base else "most of the sweep"
    wanted = weight_names(reference.tensors)
    opened = {name: named_like(c, wanted, reference.ties) for name, c in opened.items()}
    findings += _of_each(opened, renamed_findings)
    reference = named_like(reference, wanted, reference.ties)
    differing = {name: no_weights(reference, c, opened.values()) for name, c in opened.items()}
    related = {name: c for name, c in opened.items() if differing[name] is not None}
    reasons = {t: why for found in differing.values() if found for t, why in found.items()}
    findings += set_aside_findings(related, reasons)
    opened = {name: without(c, reasons) for name, c in opened.items()}
    reference = without(reference, reasons)

    of_layout = _of_each(opened, partial(layout_findings, reference=reference, model=model))
    fitting = without_misfits(opened, of_layout)
    alike = held_alike([*fitting.values()])
    of_values = _of_each(
        opened,
        lambda name, checkpoint: nonfinite_findings(
            name, checkpoint, alike if name in fitting else set()
        ),
    )
    findings += of_layout + of_values
    fitting = without_misfits(fitting, of_values)
    if not fitting:
        return Fit({}, None, findings, "")

    first = base_name if base_name in fitting else next(iter(fitting))
    reference, model = fitting[first], "the base" if first == base_name else first
    findings += _of_each(fitting, partial(dtype_findings, reference=reference, model=model))
    findings += _of_each(fitting, partial(integer_findings, reference=reference, model=model))
    fitting = without_misfits(fitting, findings)
    findings += tie_findings(fitting)
    base = fitting.pop(base_name, None)
    if in_part is not None:
        base, of_base = complete(base_name, in_part, fitting, alike)
        findings += of_base
    findings += duplicate_findings(fitting)
    findings += head_findings(fitting, base_name, base)
    findings += average_findings(fitting, base_name, base)
    return Fit(fitting, base, findings, model)


def _with_merged_adapters(
    opened: Mapping[str, Checkpoint], base_name: str
) -> tuple[dict[str, Checkpoint], list[Finding]]:
    """Merge low-rank adapters into the base, if there is one."""
    base = opened.get(base_name)
    if base is None or is_lora(base):
        return dict(opened), []
    found, findings = dict(opened), []
    for name, checkpoint in opened.items():
        if name == base_name or not is_lora(checkpoint):
            continue
        try:
            found[name] = adapted = merged(checkpoint, base)
        except CheckpointError as error:
            problem = error.problem.removeprefix(str(checkpoint.path)).lstrip(": ")
            findings.append(Finding("misfit", name, "", problem, error.way_out))
            continue
        first, count = next(iter(adapted.changes)), tensors(len(adapted.changes))
        problem = (
            f"is a LoRA adapter of {count}, merged into {base_name} while it is read (α/r·B·A)"
        )
        findings.append(Finding("note", name, first, problem, "Nothing to do."))
    return found, findings


def _of_each(
    checkpoints: Mapping[str, Checkpoint], look: Callable[[str, Checkpoint], list[Finding]]
) -> list[Finding]:
    return [finding for name, c in checkpoints.items() for finding in look(name, c)]


def _reasons_against_base(opened: Mapping[str, Checkpoint], base_name: str) -> list[Finding]:
    """Return findings for the base if it, and not the ingredients, is the exception."""
    base = opened.get(base_name)
    ingredients = {name: checkpoint for name, checkpoint in opened.items() if name != base_name}
    if base is None or not ingredients:
        return []
    common, count = commonest(ingredients)
    wanted = weight_names(base.tensors)
    named = {name: named_like(c, wanted, base.ties) for name, c in ingredients.items()}
    everyone = [base, *named.values()]
    if count < 2 or any(no_weights(base, c, everyone) is not None for c in named.values()):
        return []
    way_out = (
        "The sweep has no base until this is fixed. Replace it with the checkpoint from which "
        "fine-tuning started, including its head."
    )
    base = named_like(base, weight_names(common.tensors), common.ties)
    problems = layout_findings(base_name, base, common, "most of the sweep")
    return [replace(problem, way_out=way_out) for problem in problems]
