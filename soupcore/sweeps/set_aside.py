"""Set aside tensors that are not weights if only some of the checkpoints have them.

Such a tensor does not exclude a checkpoint. It is set aside in all of them, even if most have it:
most runs may be the ones with a profiler's counters.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.checkpoints.buffers import LOSS, why_no_weight_in
from soupcore.checkpoints.names import loose_names, weight_names
from soupcore.checkpoints.renamed import named_like
from soupcore.sweeps.findings import Finding, some, tensors

Reasons = Mapping[str, str]
"""Tensors that are not weights, with a description of each: `{tensor: description}`."""


def commonest(checkpoints: Mapping[str, Checkpoint]) -> tuple[Checkpoint, int]:
    """Return a checkpoint with the most common set of weights, and how many have this set.

    Among these, it is the first with the most common tensor names.
    """
    groups: defaultdict[object, list[Checkpoint]] = defaultdict(list)
    for checkpoint in checkpoints.values():
        groups[_layout(checkpoint)].append(checkpoint)
    families: list[list[Checkpoint]] = []
    for group in sorted(groups.values(), key=len, reverse=True):
        family = next((known for known in families if _are_related(known, group)), None)
        if family is None:
            families.append([*group])
        else:
            family += group
    largest = max(families, key=len)
    # A family starts with its largest group, so these are names from that group.
    ((names, _),) = Counter(frozenset(one.tensors) for one in largest).most_common(1)
    return next(one for one in largest if one.tensors.keys() == names), len(largest)


def no_weights(
    one: Checkpoint, other: Checkpoint, all_of_them: Collection[Checkpoint]
) -> Reasons | None:
    """Return the tensors in which two checkpoints differ; None if one is a weight.

    A tensor differs if only one checkpoint has it, or if the shapes are different.

    Args:
        one: A checkpoint.
        other: Another checkpoint, with the same tensor names.
        all_of_them: All checkpoints of the comparison, with the same tensor names.
    """
    differing = weight_names(one.tensors.keys() ^ other.tensors.keys())
    differing += [
        name
        for name in one.tensors.keys() & other.tensors.keys()
        if one.tensors[name].shape != other.tensors[name].shape
    ]
    found = {}
    for name in sorted(differing):
        for holder in (one, other):
            if name not in holder.tensors:
                continue
            reason = _reason(name, holder, all_of_them)
            if not reason:
                return None
            found[name] = reason
    return found


def set_aside_findings(checkpoints: Mapping[str, Checkpoint], reasons: Reasons) -> list[Finding]:
    """Note the checkpoints that have tensors set aside, or that lack them if most have them.

    Args:
        checkpoints: Checkpoints that fit each other, with these tensors.
        reasons: The tensors set aside.
    """
    held = {name: reasons.keys() & c.tensors.keys() for name, c in checkpoints.items()}
    counts = Counter(tensor for tensors_held in held.values() for tensor in tensors_held)
    usual = {tensor for tensor in reasons if 2 * counts[tensor] > len(checkpoints)}
    findings = []
    for name, tensors_held in held.items():
        for verb, unusual in (("has", tensors_held - usual), ("lacks", usual - tensors_held)):
            if unusual:
                named = sorted(unusual)
                kinds = ", ".join(dict.fromkeys(reasons[tensor] for tensor in named))
                problem = f"{verb} {tensors(len(named))} that others {_OTHERS[verb]}"
                problem += f": {some(named)} ({kinds}, not learned weights)"
                findings.append(Finding("note", name, named[0], problem, _WAY_OUT))
    return findings


_OTHERS = {"has": "lack", "lacks": "have"}
_WAY_OUT = "Nothing to do: they are not averaged. A soup copies them from its first ingredient."


def _layout(checkpoint: Checkpoint) -> object:
    """Return names and shapes of the floats, since integers are not weights."""
    return frozenset(
        Counter(
            (loose, checkpoint.tensors[name].shape)
            for name, loose in loose_names(checkpoint.tensors).items()
            if checkpoint.tensors[name].dtype.is_floating_point
        ).items()
    )


def _are_related(family: Collection[Checkpoint], group: Collection[Checkpoint]) -> bool:
    """Return whether a group of checkpoints with one layout has the same weights as a family."""
    reference = next(iter(family))
    wanted = weight_names(reference.tensors)
    named = [named_like(checkpoint, wanted, reference.ties) for checkpoint in (*family, *group)]
    return no_weights(reference, named[len(family)], named) is not None


def _reason(name: str, holder: Checkpoint, all_of_them: Collection[Checkpoint]) -> str:
    reason = why_no_weight_in(holder, name)
    info = holder.tensors[name]
    if reason not in ("", LOSS):
        return reason
    holders = [c for c in all_of_them if c.tensors.get(name) == info]
    if len({checkpoint.scan()[name].digest for checkpoint in holders}) > 1:
        return ""
    if reason:
        return reason
    return (
        "the same in all that have it" if len(holders) > 1 and _is_constant(name, holders) else ""
    )


def _is_constant(name: str, holders: Collection[Checkpoint]) -> bool:
    """Return whether a tensor is a constant and not a frozen parameter.

    Either training changed its neighbours in the module, or it belongs to a top-level module that
    contains only vectors, such as the mean and standard deviation of inputs. Neither is true of a
    frozen layer.
    """
    module, _, leaf = name.rpartition(".")
    if not module or leaf.endswith(("weight", "bias")):
        return False
    first = next(iter(holders))
    neighbours = [other for other in first.tensors if other.startswith(f"{module}.")]
    if any(_moves(other, holders) for other in neighbours):
        return True
    top = module.partition(".")[0]
    inside = [other for other in first.tensors if other.startswith(f"{top}.")]
    return len(inside) < len(first.tensors) and all(
        _is_vector(first.tensors[other]) and not other.endswith(("weight", "bias"))
        for other in inside
    )


def _moves(name: str, holders: Collection[Checkpoint]) -> bool:
    """Return whether a float tensor differs between checkpoints."""
    having = [holder for holder in holders if name in holder.tensors]
    is_float = having[0].tensors[name].dtype.is_floating_point
    return is_float and len({holder.scan()[name].digest for holder in having}) > 1


def _is_vector(info: TensorInfo) -> bool:
    return sum(side > 1 for side in info.shape) <= 1
