"""Find checkpoints whose headers show that they cannot fit the others, before a download.

It finds different matrices of weights, as the full check does (`soupcore.sweeps.fit`). Differences
that may be constants or counters need the values, so they are left to the full check.
"""

from collections.abc import Mapping

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.names import weight_names
from soupcore.checkpoints.renamed import named_like
from soupcore.sweeps.findings import Finding
from soupcore.sweeps.fit import without_misfits
from soupcore.sweeps.layout import layout_findings, quantized_findings
from soupcore.sweeps.lora import is_lora


def header_findings(opened: Mapping[str, Checkpoint], base_name: str) -> list[Finding]:
    """Return the misfits among checkpoints, given their headers.

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
            named = _named(checkpoint, reference)
            findings += layout_findings(name, named, reference, model)
    return findings


def _named(checkpoint: Checkpoint, reference: Checkpoint) -> Checkpoint:
    return named_like(checkpoint, weight_names(reference.tensors), reference.ties)


def _may_fit(checkpoint: Checkpoint, reference: Checkpoint) -> bool:
    named = _named(checkpoint, reference)
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
