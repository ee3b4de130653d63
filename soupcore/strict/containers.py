"""Where the weights are: in a checkpoint that a training run saved, among all else that it saved.

Each tool has its own place for them, and many keep two sets: the weights that the optimizer moves,
and an average of them (EMA) that is meant to be evaluated. The choice here is the one that the tool
itself makes when it loads such a file for evaluation.
"""

from dataclasses import dataclass, field
from typing import Any

from soupcore.strict.modules import MOST_TENSORS, is_module, module_entries
from soupcore.strict.refusal import Refusal
from soupcore.strict.tensors import Tensor, Unusable
from soupcore.strict.values import Global, Inert


@dataclass
class WeightSet:
    """One set of weights in a file.

    Attributes:
        name: Its place in the file: `model`, `ema`, `model.state_dict`; "" where it is the file.
        title: What it is, for people.
        tensors: `{name: tensor}` in the order of the state dict.
        notes: Sentences on why it is the one to take, and on what was left out of it.
    """

    name: str
    title: str
    tensors: dict[str, Tensor | Unusable] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of the storages that its tensors lie in."""
        storages = {
            id(tensor.storage): tensor.storage.nbytes
            for tensor in self.tensors.values()
            if isinstance(tensor, Tensor)
        }
        return sum(storages.values())

    def is_one_beside(self, nbytes: int) -> bool:
        """Whether it can be a set of weights where another one has so many bytes."""
        is_readable = all(isinstance(tensor, Tensor) for tensor in self.tensors.values())
        return self.nbytes * _SMALLEST_SHARE >= nbytes or not is_readable

    @property
    def said_nbytes(self) -> int:
        """Bytes of its tensors, each counted whole."""
        return sum(tensor.nbytes for tensor in self.tensors.values() if isinstance(tensor, Tensor))


# What the tools' own loaders take, the preferred one first: timm (state_dict_ema, model_ema,
# state_dict, model), Ultralytics (ema, model), BasicSR (params_ema, params), DINO (teacher).
_TITLES = {
    "state_dict_ema": "EMA weights",
    "model_state_dict_ema": "EMA weights",
    "model_ema": "EMA weights",
    "ema_state_dict": "EMA weights",
    "ema_model": "EMA weights",
    "ema": "EMA weights",
    "params_ema": "EMA weights",
    "g_ema": "EMA weights",
    "teacher": "teacher weights",
    "state_dict": "raw weights",
    "model_state_dict": "raw weights",
    "model": "raw weights",
    "module": "raw weights",
    "params": "raw weights",
    "student": "student weights",
    "current_model_state": "raw weights",
}
_AVERAGED = "averaged weights"
_PREFERENCE = {name: place for place, name in enumerate(_TITLES)}
_OTHER_STATE = ("optim", "sched", "scaler", "rng", "random", "loss", "criterion", "sampler")
_COUNTERS = ("n_averaged", "steps")
_DEEPEST = 3
_SMALLEST_SHARE = 10  # a set with less than a tenth of the largest one's bytes is something else


def find_weight_sets(tree: Any) -> list[WeightSet]:
    """Find the sets of weights in what was unpickled, the one to take by convention first.

    Raises:
        Refusal: There is none.
    """
    sets = _Search().sets(tree, "", 0)
    if not sets:
        raise _none_found(tree)
    if sum(len(found.tensors) for found in sets) > MOST_TENSORS:
        raise Refusal(f"It holds more tensors than the limit of {MOST_TENSORS:,}.")
    if "ds_version" in (entries_of(tree) or {}) and all(map(_is_empty, sets[0].tensors.values())):
        raise Refusal(
            "It is of DeepSpeed's ZeRO-3, which keeps the weights in other files.",
            "Run the script zero_to_fp32.py that lies beside it, and take what that writes.",
        )
    if len(sets) == 1:
        sets[0].title = "weights"
    else:
        sets[0].notes.insert(0, _why_first(sets))
    return sets


class _Search:
    def __init__(self) -> None:
        self._seen: set[int] = set()  # so that what is in many places is looked at once

    def sets(self, value: Any, name: str, depth: int) -> list[WeightSet]:
        """Return the sets below `value`, which is at the place `name`, in order of preference."""
        if id(value) in self._seen or depth > _DEEPEST:
            return []
        self._seen.add(id(value))
        if is_module(value):
            notes: list[str] = []
            return _direct(name, module_entries(value, notes), notes)
        entries = entries_of(value) or {}
        return self._known(entries, name, depth) or self._unknown(entries, name)

    def _known(self, entries: dict[Any, Any], name: str, depth: int) -> list[WeightSet]:
        sets = [
            found
            for key in sorted(_PREFERENCE.keys() & entries.keys(), key=_PREFERENCE.__getitem__)
            for found in self.sets(entries[key], _joined(name, key), depth + 1)
        ]
        largest = max((found.nbytes for found in sets), default=0)
        sets = [found for found in sets if found.is_one_beside(largest)]
        _heed_swaps(sets, name, entries)
        return sets

    def _unknown(self, entries: dict[Any, Any], name: str) -> list[WeightSet]:
        sets = _direct(name, entries, [])
        for key, part in entries.items():
            if type(key) is not str or any(mark in key.lower() for mark in _OTHER_STATE):
                continue
            if is_module(part):
                sets += self.sets(part, _joined(name, key), _DEEPEST)
            elif id(part) not in self._seen and (inner := entries_of(part)):
                self._seen.add(id(part))
                sets += _direct(_joined(name, key), inner, [])
        return sorted(sets, key=lambda found: -found.nbytes)


def _heed_swaps(sets: list[WeightSet], name: str, entries: dict[Any, Any]) -> None:
    # Two tools save the average where others save the raw weights: Lightning's WeightAveraging,
    # and mmengine's EMAHook, which then puts the raw weights where others put the average.
    by_name = {found.name: found for found in sets}
    average = by_name.get(_joined(name, "state_dict"))
    raw = by_name.get(_joined(name, "current_model_state"))
    if raw is None and _is_of_mmengine(entries):
        raw = by_name.get(_joined(name, "ema_state_dict"))
    if average and raw:
        average.title, raw.title = _AVERAGED, "raw weights"
        sets.remove(average)
        sets.insert(0, average)


def _is_of_mmengine(entries: dict[Any, Any]) -> bool:
    meta = entries_of(entries.get("meta")) or {}
    return "message_hub" in entries or "mmengine_version" in meta


def _direct(name: str, entries: dict[Any, Any], notes: list[str]) -> list[WeightSet]:
    """Return the tensors that are entries themselves, as one set, if there are any."""
    tensors = {}
    left_out = []
    for key, value in entries.items():
        if type(key) is str and isinstance(value, Tensor | Unusable):
            tensors[key] = value
            if len(tensors) > MOST_TENSORS:
                break
        else:
            left_out.append(str(key)[:60])
    for counter in _counters(tensors):
        del tensors[counter]
    if not tensors:
        return []
    if left_out:
        notes.append(
            f"{len(left_out)} of its entries are not named tensors and were left out "
            f"(the first one: {left_out[0]!r})."
        )
    title = _TITLES.get(name.rpartition(".")[2], name)
    return [WeightSet(name, title, tensors, notes)]


def _counters(tensors: dict[str, Tensor | Unusable]) -> list[str]:
    """Return what counts the models of an average, in torch's wrapper of it and in mmengine's."""
    others = tensors.keys() - set(_COUNTERS)
    wrapped = bool(others) and all(name.startswith("module.") for name in others)
    return [name for name in _COUNTERS if name in tensors and (wrapped or name == _COUNTERS[0])]


def _is_empty(tensor: Tensor | Unusable) -> bool:
    return isinstance(tensor, Tensor) and isinstance(tensor.shape, tuple) and 0 in tensor.shape


def _why_first(sets: list[WeightSet]) -> str:
    first = sets[0]
    others = ", ".join(repr(found.name) for found in sets[1:])
    if first.title == _AVERAGED:
        why = "holds the average of the weights in this file, and is what is evaluated"
    elif first.name.rpartition(".")[2] in _TITLES:
        why = f"({first.title}) is what the tool that wrote such a file evaluates"
    else:
        why = "is the largest of its sets of weights"
    return f"{first.name!r} {why}; it was taken rather than {others}."


def entries_of(value: Any) -> dict[Any, Any] | None:
    """Return the entries of a dict, or of an instance that is filled like one; None for others."""
    if isinstance(value, dict):
        return value
    return value.entries if type(value) is Inert and value.entries else None


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _none_found(tree: Any) -> Refusal:
    way_out = "Choose the file that holds the model, or save model.state_dict()."
    entries = entries_of(tree)
    if entries is None:
        what = "one tensor without a name" if isinstance(tree, Tensor | Unusable) else _kind(tree)
        return Refusal(f"It holds {what}, and no weights by name.", way_out)
    if not entries:
        return Refusal("It holds no tensors.", way_out)
    if "param_groups" in entries or any("optim" in str(key).lower() for key in entries):
        return Refusal("It holds the state of an optimizer, and no weights.", way_out)
    if any(isinstance(value, Tensor | Unusable) for value in entries.values()):
        first = str(next(iter(entries)))[:60]
        return Refusal(f"Its tensors have no names ({first!r}).", way_out)
    names = ", ".join(repr(str(key)[:40]) for key in list(entries)[:5])
    return Refusal(f"It holds no tensors ({names}).", way_out)


def _kind(value: Any) -> str:
    path = value.path if isinstance(value, Inert | Global) else type(value).__name__
    return f"a thing of the kind {path}"
