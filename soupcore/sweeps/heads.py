"""Heads that do not come from one initialisation, in the runs or in the base.

`head_findings` finds runs with separate heads. Two runs that were fine-tuned from one
initialisation have similar matrices. A head that each run initialised randomly has an unrelated
direction in each, so an average of such heads is meaningless. For this reason, WiSE-FT
(arXiv:2109.01903) and Model Soups (arXiv:2203.05482) start all runs from one head. The comparison
uses the sample of each matrix in the scan of a file: 40 to 130 values, or all values of a smaller
matrix. The cosine of two samples estimates that of the matrices to within about 0.15.

`partial_base` and `complete` handle a base that lacks the head of the runs: it fits in part.
"""

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

import torch

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.names import weight_names
from soupcore.checkpoints.renamed import named_like, without
from soupcore.merges import Fixed, Group, own_of
from soupcore.mixtures import Mixture
from soupcore.sweeps.findings import Finding, and_more, some, tensors
from soupcore.sweeps.set_aside import commonest, no_weights
from soupcore.sweeps.values import dtype_findings, integer_findings, nonfinite_findings

_ENOUGH = 32  # minimum number of values of a sample; the cosine of fewer is too uncertain
_CLOSE = 0.7  # minimum cosine of matrices from one initialisation
_APART = 0.5  # maximum cosine of unrelated matrices
_MOST_APART = 0.25  # with a larger fraction of unrelated matrices, the runs are unrelated
_MAY_STRAY = 0.05  # fraction of the other matrices that need not be close
_LEAST_SHARED = 0.5  # of the float tensors of an ingredient; a base with fewer is another network
_WAY_OUT = (
    "Nothing to do if the fine-tuned networks got a new head. The base has the mean of the "
    "ingredients there, and recipes that need a base take these tensors from the mean of their "
    "ingredients, or from the one that you choose. Replace the base if it is another network."
)
_IGNORED = "Nothing to do: these tensors are ignored. Replace the base if it is another network."

Samples = Mapping[str, torch.Tensor]


def head_findings(
    checkpoints: Mapping[str, Checkpoint], base_name: str, base: Checkpoint | None
) -> list[Finding]:
    """Find matrices that are unrelated between runs whose other matrices are close.

    Args:
        checkpoints: The ingredients, with the same layout.
        base_name: Name of the base.
        base: The base, or None.
    """
    if not checkpoints:
        return []
    samples = {name: _samples(checkpoint) for name, checkpoint in checkpoints.items()}
    # A base that fits in part has the mean of the ingredients there, which is no evidence.
    from_base = _apart_from(_samples(own_of(base)), samples) if base else {}
    if 0 < len(from_base) < len(samples) / 2:
        return _own_heads(from_base, "the base")
    # The first may be the exception, so compare with the second too.
    candidates = [(name, _apart_from(samples[name], samples)) for name in [*samples][:2]]
    apart_from_one = [(name, apart) for name, apart in candidates if apart]
    if apart_from_one:
        name, apart = min(apart_from_one, key=lambda found: len(found[1]))
        return _own_heads(apart, name)
    if len(from_base) < len(samples):
        return _own_heads(from_base, "the base")
    return [
        Finding(
            "warning",
            base_name,
            tensors[0],
            "is unrelated to this tensor in all ingredients, while the others are close: the runs "
            "did not start from this head" + and_more(len(tensors) - 1),
            "Averages of ingredients are valid, but paths to the base are not. Replace it with the "
            "checkpoint from which fine-tuning started, including its head.",
        )
        for tensors in [*from_base.values()][:1]
    ]


def _own_heads(apart: Mapping[str, list[str]], one: str) -> list[Finding]:
    return [
        Finding(
            "warning",
            name,
            tensors[0],
            f"is unrelated to this tensor in {one}, while their other tensors are close: this run "
            "started from a different head" + and_more(len(tensors) - 1),
            "An average of such heads is meaningless. Exclude it, or let all tensors but the head "
            f"take part in recipes, and use the head of {one}.",
        )
        for name, tensors in apart.items()
    ]


def _samples(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    values = {name: found.values for name, found in checkpoint.scan().items() if found.sample}
    return {name: sample for name, sample in values.items() if len(sample) >= _ENOUGH}


def _apart_from(one: Samples, others: Mapping[str, Samples]) -> dict[str, list[str]]:
    """Return for each checkpoint the matrices that are unrelated to those of `one`."""
    # A matrix of zeros, as adapters are initialised with, has no direction. A tensor that is stored
    # as integers has no sample.
    names = [
        name
        for name, sample in one.items()
        if sample.any() and all(name in samples for samples in others.values())
    ]
    cosines = {
        name: torch.cosine_similarity(
            torch.stack([samples[name] for samples in others.values()]), one[name]
        ).tolist()
        for name in names
    }
    found = {}
    for index, other in enumerate(others):
        apart = [name for name in names if cosines[name][index] < _APART]
        close = sorted(cosines[name][index] for name in names if name not in apart)
        few = len(apart) <= max(1, _MOST_APART * len(names))
        if apart and close and few and close[int(_MAY_STRAY * len(close))] > _CLOSE:
            found[other] = apart
    return found


def partial_base(opened: Mapping[str, Checkpoint], base_name: str) -> Checkpoint | None:
    """Return the base with the tensors that it shares with the ingredients, if it fits in part.

    Fine-tuning usually starts from a network with another head (80 classes, the runs have 4),
    without a head, or with fewer rows in its vocabulary. The tensors that such a base shares with
    the ingredients are their initialisation. The others are new in the ingredients, so they have no
    task vector.

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
    """Complete a base with the mean of the ingredients, where it has no tensors of its own.

    That makes it a point that can be evaluated. Recipes take these tensors from other sources (see
    `Sweep.with_tensors`).

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
    problem = _problem_of_base(base, reference, new, extra)
    if not new:
        findings.append(Finding("note", name, extra[0], problem, _IGNORED))
        return shared, findings
    mean = Mixture((checkpoint, Fraction(1, len(fitting))) for checkpoint in fitting.values())
    findings.append(Finding("note", name, new[0], problem, _WAY_OUT))
    return Fixed(shared, [Group(tuple(new), mean)]), findings


def _fits(base: Checkpoint, ingredient: Checkpoint, tensor: str) -> bool:
    found = base.tensors.get(tensor)
    return found is not None and found.shape == ingredient.tensors[tensor].shape


def _problem_of_base(
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
