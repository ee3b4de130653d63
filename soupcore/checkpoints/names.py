"""Tensor names: comparison without the wrappers around a network, ties, and layers.

DistributedDataParallel, torch.compile, FSDP and activation checkpointing, a LightningModule's
attribute and a Hugging Face base model all add a prefix to the names. The weights are the same, so
checkpoints saved with and without the prefix fit each other. The digest of weights
(`canonical_names`) ignores a prefix that *all* names share. A comparison (`align`) uses the prefix
with which most names agree, so that a loss or a head outside of it is tolerated.

Weight and spectral normalisation have old names (`weight_g`) and new ones
(`parametrizations.weight.original0`) for the same tensors.
"""

import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from itertools import takewhile

# These may occur anywhere in a name, since single layers can be wrapped too.
_WRAPPER = re.compile(
    r"(?:^|(?<=\.))"
    r"(?:_orig_mod\.(?:module\.)?|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.)"
)
_AVERAGED = "module."
_AVERAGED_COUNTER = "n_averaged"  # number of models in torch's AveragedModel; not a weight
# Endings of the old names that occur together, and their names in torch.nn.utils.parametrizations.
_PARAMETRIZED = (
    {"_g": "original0", "_v": "original1"},  # weight_norm
    {"_orig": "original", "_u": "0._u", "_v": "0._v"},  # spectral_norm
)
_MOST_CHANGES = 8  # prefix changes that are tried, the most frequent ones first
# `3`, and `encoder_layer_3` in torchvision's ViT.
_NUMBERED_MODULE = re.compile(r"(?:.*_)?\d+")


def tied(keys: Mapping[str, Hashable]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of two or more names with the same key, in the order of the names."""
    groups: dict[Hashable, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def clean(text: str) -> str:
    """Return a file name with escapes for bytes that are not valid UTF-8, so it can be stored."""
    return text.encode(errors="backslashreplace").decode()


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """Return the names without wrappers and without the prefix that all of them share.

    Returns:
        `{name: canonical name}`, without the counter of torch's `AveragedModel`.
    """
    own = _unwrapped(names)
    shared = len(_shared_prefix(own.values()))
    return {name: plain[shared:] for name, plain in own.items()}


def align(names: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """Match the tensor names of a checkpoint with those of another one or of a network.

    Wrappers are removed, and a prefix is removed or added if more names agree with it. Names
    without that prefix stay the same. Names without a counterpart are included without wrappers.

    Args:
        names: The names of a checkpoint.
        wanted: The names to match, without those that `weight_names` excludes.

    Returns:
        `{wanted name: name}`.
    """
    if names == wanted or set(names) == set(wanted):
        return {name: name for name in names}
    own = _unwrapped(names)
    modern = parametrized_names(own.values())
    as_wanted = {new: name for name, new in _modern(wanted).items()}
    best, most = own, -1
    for taken, put in _prefix_changes(modern.values(), as_wanted):
        renamed, agreeing = {}, 0
        for name, plain in own.items():
            there = as_wanted.get(_moved(modern[plain], taken, put))
            renamed[name] = _moved(plain, taken, put) if there is None else there
            agreeing += there is not None
        if agreeing > most and len(set(renamed.values())) == len(renamed):
            best, most = renamed, agreeing
        if most == min(len(own), len(as_wanted)):
            break
    return {there: name for name, there in best.items()}


def loose_names(names: Iterable[str]) -> dict[str, str]:
    """Return names without wrappers and without the prefixes that most names have.

    From each name, the longest of these prefixes is removed. Two names may become equal, so the
    result only shows which checkpoints are worth comparing; tensors cannot be read by it.
    """
    modern = _modern(names)
    prefixes = _dominant_prefixes(modern.values())[::-1]
    return {
        name: plain.removeprefix(next(p for p in prefixes if plain.startswith(p)))
        for name, plain in modern.items()
    }


def parametrized_names(names: Iterable[str]) -> dict[str, str]:
    """Return the names in current torch of the tensors of weight and spectral normalisation.

    Returns:
        `{name: new name}`; other names stay the same.
    """
    names = list(names)
    known = set(names)
    new = {name: name for name in names}
    for name in names:
        for endings in _PARAMETRIZED:
            first = next(iter(endings))
            stem = name.removesuffix(first)
            together = {stem + ending: ending for ending in endings}
            if stem == name or stem in known or not known.issuperset(together):
                continue
            module, dot, tensor = stem.rpartition(".")
            for old, ending in together.items():
                new[old] = f"{module}{dot}parametrizations.{tensor}.{endings[ending]}"
    return new if len(set(new.values())) == len(new) else {name: name for name in names}


def weight_names(names: Iterable[str]) -> list[str]:
    """Return the names without the counter of torch's `AveragedModel`, which is not a weight."""
    names = list(names)
    others = [name for name in names if name != _AVERAGED_COUNTER]
    averaged = others and all(name.startswith(_AVERAGED) for name in others)
    return others if averaged else names


def layer_of(name: str) -> str:
    """Return the layer of a tensor, by its name alone.

    Networks number their blocks: the layer is the name up to its first number (`blocks.3` of
    `blocks.3.attn.qkv.weight`, `layer1.0` of `layer1.0.conv1.weight`, `prompts.3` of that element
    of a list itself). Without a number it is the module (`head` of `head.weight`), or the tensor
    itself (`cls_token`). If stages hold numbered blocks, the layer is the stage.
    """
    *modules, last = name.split(".")
    for index, module in enumerate(modules):
        if _NUMBERED_MODULE.fullmatch(module):
            return ".".join(modules[: index + 1])
    return name if last.isdigit() else ".".join(modules) or name


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    names = weight_names(names)
    plain = {name: _WRAPPER.sub("", name) for name in names}
    # If two names would become equal, the prefixes are not those of wrappers.
    return plain if len(set(plain.values())) == len(plain) else {name: name for name in names}


def _modern(names: Iterable[str]) -> dict[str, str]:
    """Return names without wrappers and with the new names of normalised layers."""
    own = _unwrapped(names)
    modern = parametrized_names(own.values())
    return {name: modern[plain] for name, plain in own.items()}


def _shared_prefix(names: Iterable[str]) -> str:
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda level: len(set(level)) == 1, levels)
    return "".join(f"{level[0]}." for level in shared)


def _prefix_changes(names: Collection[str], wanted: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield changes of prefix, as (removed, added), with which the names may agree.

    Candidates are the changes with which most single names agree, and the changes between the
    prefixes that most names have on either side. Shorter changes come first.
    """
    own, other = set(names), set(wanted)
    votes: Counter[tuple[str, str]] = Counter()
    for name in own:
        votes.update((p, "") for p in _prefixes(name)[1:] if name[len(p) :] in other)
    for name in other:
        votes.update(("", p) for p in _prefixes(name)[1:] if name[len(p) :] in own)
    changes = {change for change, _ in votes.most_common(_MOST_CHANGES)}
    changes |= {(a, b) for a in _dominant_prefixes(own) for b in _dominant_prefixes(other)}
    yield from sorted(changes, key=lambda change: (len(change[0] + change[1]), change))


def _dominant_prefixes(names: Collection[str]) -> list[str]:
    """Return the prefixes that more than half of the names have, from "" to the longest."""
    counts = Counter(prefix for name in names for prefix in _prefixes(name))
    return sorted((p for p, count in counts.items() if 2 * count > len(names) or not p), key=len)


def _prefixes(name: str) -> list[str]:
    """Return `["", "a.", "a.b."]` of `"a.b.weight"`."""
    parts = name.split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts) + 1)]


def _moved(name: str, taken: str, put: str) -> str:
    return put + name[len(taken) :] if name.startswith(taken) else name
