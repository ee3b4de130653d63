"""Whether the ingredients of a sweep can be averaged, told before any work starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.names import weight_names
from soupcore.checkpoints.renamed import named_like
from soupcore.sweeps.findings import Finding
from soupcore.sweeps.heads import head_findings
from soupcore.sweeps.layout import (
    adapter_findings,
    commonest,
    layout_findings,
    quantized_findings,
)
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
    """The checkpoints that can be averaged with each other, and what was found.

    Attributes:
        checkpoints: `{name: checkpoint}`, all under the same tensor names.
        base: The base under those names; None where there is none that can be used.
        findings: What there is to know.
        reference: What the values were compared with, for people.
    """

    checkpoints: dict[str, Checkpoint]
    base: Checkpoint | None
    findings: list[Finding]
    reference: str


def check_fit(opened: Mapping[str, Checkpoint], base_name: str = "") -> Fit:
    """Compare every ingredient with a reference, tensor by tensor, and with each other.

    The layout is that of the base. Without a base it is the one that most of the ingredients
    share, the first where several are as common; so too where no ingredient fits the base and some
    fit each other, and then it is the base that is left out. Values are compared with those of
    the base, or of the first ingredient that fits.

    Args:
        opened: `{name: checkpoint}`, scanned or to be scanned here.
        base_name: Which of them is the shared initialisation, if one is.
    """
    findings = _of_each(opened, adapter_findings) + _of_each(opened, quantized_findings)
    opened = without_misfits(opened, findings)
    findings += _reasons_against_base(opened, base_name)
    opened = without_misfits(opened, findings)
    if not opened:
        return Fit({}, None, findings, "")
    has_base = base_name in opened
    reference = opened[base_name] if has_base else commonest(opened)[0]
    model = "the base" if has_base else "most of the sweep"
    wanted = weight_names(reference.tensors)
    opened = {name: named_like(c, wanted, reference.ties) for name, c in opened.items()}

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
    findings += duplicate_findings(fitting)
    findings += head_findings(fitting, base_name, base)
    return Fit(fitting, base, findings, model)


def without_misfits(
    checkpoints: Mapping[str, Checkpoint], findings: list[Finding]
) -> dict[str, Checkpoint]:
    """Return the checkpoints that no finding leaves out."""
    misfits = {finding.ingredient for finding in findings if finding.severity == "misfit"}
    return {name: c for name, c in checkpoints.items() if name not in misfits}


def _of_each(
    checkpoints: Mapping[str, Checkpoint], look: Callable[[str, Checkpoint], list[Finding]]
) -> list[Finding]:
    return [finding for name, c in checkpoints.items() for finding in look(name, c)]


def _reasons_against_base(opened: Mapping[str, Checkpoint], base_name: str) -> list[Finding]:
    """Say why the base does not fit, where it is the base and not the ingredients."""
    base = opened.get(base_name)
    ingredients = {name: checkpoint for name, checkpoint in opened.items() if name != base_name}
    if base is None or not ingredients:
        return []
    common, count = commonest(ingredients)
    wanted = weight_names(base.tensors)
    if count < 2 or any(
        not layout_findings(name, named_like(checkpoint, wanted, base.ties), base, "the base")
        for name, checkpoint in ingredients.items()
    ):
        return []
    way_out = (
        "Until it is mended, the sweep has no base: put the network there as it was when "
        "fine-tuning began, its head included."
    )
    base = named_like(base, weight_names(common.tensors), common.ties)
    problems = layout_findings(base_name, base, common, "most of the sweep")
    return [replace(problem, way_out=way_out) for problem in problems]
