"""A base that fits in part: a pre-trained network with a different head than its fine-tunes.

Fine-tuning usually starts from a network with another head (80 classes, the runs have 4), without a
head, or with fewer rows in its vocabulary. The tensors that such a base shares with the ingredients
are their initialisation. The others are new in the ingredients, so they have no task vector. The
base gets the mean of the ingredients there, which makes it a point that can be evaluated, and
recipes take these tensors from other sources (see `Sweep.with_tensors`).
"""

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.names import weight_names
from soupcore.checkpoints.renamed import named_like, without
from soupcore.merges import Fixed, Group
from soupcore.mixtures import Mixture
from soupcore.sweeps.findings import Finding, some, tensors
from soupcore.sweeps.set_aside import commonest, no_weights
from soupcore.sweeps.values import dtype_findings, integer_findings, nonfinite_findings

_LEAST_SHARED = 0.5  # of the float tensors of an ingredient; a base with fewer is another network
_WAY_OUT = (
    "Nothing to do if the fine-tuned networks got a new head. The base has the mean of the "
    "ingredients there, and recipes that need a base take these tensors from the mean of their "
    "ingredients, or from the one that you choose. Replace the base if it is another network."
)

_IGNORED = "Nothing to do: these tensors are ignored. Replace the base if it is another network."


def partial_base(opened: Mapping[str, Checkpoint], base_name: str) -> Checkpoint | None:
    """Return the base with the tensors that it shares with the ingredients, if it fits in part.

    Args:
        opened: `{name: checkpoint}`, with the base.
        base_name: Name of the base.

    Returns:
        The base under the names of the ingredients, including tensors that only the base has or
        whose shapes differ. None if an ingredient has exactly its weights, or if it lacks most of
        them.
    """
    base = opened.get(base_name)
    ingredients = {name: checkpoint for name, checkpoint in opened.items() if name != base_name}
    if base is None or not ingredients:
        return None
    wanted = weight_names(base.tensors)
    named = {name: named_like(c, wanted, base.ties) for name, c in ingredients.items()}
    everyone = [base, *named.values()]
    if any(no_weights(base, c, everyone) is not None for c in named.values()):
        return None
    common, _ = commonest(ingredients)
    base = named_like(base, weight_names(common.tensors), common.ties)
    floats = [name for name, info in common.tensors.items() if info.dtype.is_floating_point]
    shared = [name for name in floats if _fits(base, common, name)]
    has_matrix = any(len(common.tensors[name].shape) > 1 for name in shared)
    return base if has_matrix and len(shared) >= _LEAST_SHARED * len(floats) else None


def complete(
    name: str, base: Checkpoint, fitting: Mapping[str, Checkpoint], alike: set[str]
) -> tuple[Checkpoint | None, list[Finding]]:
    """Complete a base with the mean of the ingredients.

    Args:
        name: Name of the base.
        base: The base, from `partial_base`.
        fitting: The ingredients, all with the same layout.
        alike: Tensors that are the same in all ingredients.

    Returns:
        The base with the layout of the ingredients, and findings. It is None if its values cannot
        be averaged with theirs.
    """
    model, reference = next(iter(fitting.items()))
    new = [tensor for tensor in reference.tensors if not _fits(base, reference, tensor)]
    shared = without(base, [t for t in base.tensors if t in new or t not in reference.tensors])
    findings = nonfinite_findings(name, shared, alike)
    findings += dtype_findings(name, shared, reference, model)
    findings += integer_findings(name, shared, reference, model)
    if any(finding.severity == "misfit" for finding in findings):
        return None, findings
    extra = [tensor for tensor in base.tensors if tensor not in reference.tensors]
    if not new and not extra:
        return shared, findings
    problem = _problem(base, reference, new, extra)
    if not new:
        findings.append(Finding("note", name, extra[0], problem, _IGNORED))
        return shared, findings
    mean = Mixture((checkpoint, Fraction(1, len(fitting))) for checkpoint in fitting.values())
    findings.append(Finding("note", name, new[0], problem, _WAY_OUT))
    return Fixed(shared, [Group(tuple(new), mean)]), findings


def _fits(base: Checkpoint, ingredient: Checkpoint, tensor: str) -> bool:
    found = base.tensors.get(tensor)
    return found is not None and found.shape == ingredient.tensors[tensor].shape


def _problem(
    base: Checkpoint, ingredient: Checkpoint, new: Collection[str], extra: Sequence[str]
) -> str:
    lacking = [tensor for tensor in new if tensor not in base.tensors]
    differing = [tensor for tensor in new if tensor in base.tensors]
    parts = []
    if differing:
        first = differing[0]
        shapes = f"{list(base.tensors[first].shape)}, not {list(ingredient.tensors[first].shape)}"
        parts.append(f"has {tensors(len(differing))} in other shapes: {some(differing)} ({shapes})")
    if lacking:
        parts.append(f"lacks {tensors(len(lacking))}: {some(lacking)}")
    if extra:
        parts.append(f"has {tensors(len(extra))} that the ingredients lack: {some(extra)}")
    count = len(ingredient.tensors)
    return f"fits in part: it {' and '.join(parts)}; the other {tensors(count - len(new))} fit"
