"""The names that a network's own tensors have under what was wrapped around it.

DistributedDataParallel, torch.compile, FSDP and activation checkpointing, a LightningModule's
attribute and a Hugging Face base model all put a prefix before the names. It says nothing of the
weights, so checkpoints saved with and without it fit each other, where *all* names agree on it.
"""

import re
from collections.abc import Collection, Iterable
from itertools import takewhile

# These stand for a wrapper wherever they are, as single layers are wrapped too.
_WRAPPER = re.compile(
    r"(?:^|(?<=\.))"
    r"(?:_orig_mod\.(?:module\.)?|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.)"
)
_AVERAGED = "module."
_AVERAGED_COUNTER = "n_averaged"  # how many models torch's AveragedModel has seen; not a weight


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """Return the names less wrappers and less the prefix that all of them share.

    Returns:
        `{name: canonical name}`, without the counter of torch's `AveragedModel`.
    """
    own = _unwrapped(names)
    shared = len(_shared_prefix(own.values()))
    return {name: plain[shared:] for name, plain in own.items()}


def align(names: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """Find the names of one checkpoint under the names that another has for the same tensors.

    Wrappers and a prefix that all names share are taken off, or put before, where more names
    agree then. Names that still have no counterpart are there too, as they are less wrappers.

    Args:
        names: The names of a checkpoint.
        wanted: The names it should have, those of `weight_names` only.

    Returns:
        `{name as wanted: name}`.
    """
    if names == wanted or set(names) == set(wanted):
        return {name: name for name in names}
    own, other = _unwrapped(names), _unwrapped(wanted)
    as_wanted = {plain: name for name, plain in other.items()}
    best: dict[str, str] = {}
    most = 0
    for taken in _prefixes(_shared_prefix(own.values())):
        for put in _prefixes(_shared_prefix(other.values())):
            found = {put + plain[len(taken) :]: name for name, plain in own.items()}
            if (common := len(found.keys() & as_wanted.keys())) > most:
                best, most = found, common
    if not best:
        return {name: name for name in names}
    return {as_wanted.get(plain, plain): name for plain, name in best.items()}


def weight_names(names: Iterable[str]) -> list[str]:
    """Return the names less the counter of torch's `AveragedModel`, which is no weight."""
    kept = list(names)
    others = [name for name in kept if name != _AVERAGED_COUNTER]
    averaged = others and all(name.startswith(_AVERAGED) for name in others)
    return others if averaged else kept


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    kept = weight_names(names)
    plain = {name: _WRAPPER.sub("", name) for name in kept}
    # Where two names would become one, they are no wrapper's.
    return plain if len(set(plain.values())) == len(plain) else {name: name for name in kept}


def _shared_prefix(names: Iterable[str]) -> str:
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda level: len(set(level)) == 1, levels)
    return "".join(f"{level[0]}." for level in shared)


def _prefixes(prefix: str) -> list[str]:
    """Return `["", "a.", "a.b."]` of `"a.b."`."""
    parts = prefix.split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts) + 1)]
