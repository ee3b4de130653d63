"""The pickle of a soup in the form of a checkpoint, without traces of the run that saved it.

Each tool has its own rules for loading its files: it may load the weights or their average, and the
arguments to build the network. So the new pickle has the file's form, with three changes. Copies of
the weights, such as their average, refer to the storages of the soup, so that every loader finds
the soup. Other sets of weights are removed. Entries that describe one run (see `names.role_of`) are
removed or reset.

The pickle is read twice: once with its calls interpreted, to find the weights, and once with its
calls recorded, to write it again. Both readings have the same order of calls, which assigns to each
tensor the call that makes it.
"""

import base64
from collections.abc import Iterator
from typing import Any, BinaryIO

from soupcore.safe_torch.execution import check_name, may_execute
from soupcore.safe_torch.formats import read_tree
from soupcore.safe_torch.machine import MOST_BYTES, Call, Machine
from soupcore.safe_torch.metadata import local_paths_of
from soupcore.safe_torch.names import (
    COUNTERS,
    EXTRA_STATE,
    MARKER,
    PROGRESS,
    STATE,
    at_the_start,
    is_account,
    role_of,
)
from soupcore.safe_torch.places import is_module
from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.siblings import WeightSet
from soupcore.safe_torch.tensors import CALLS, Storage, Tensor, storage_of
from soupcore.safe_torch.values import Global, Inert, Ordered, entries_of
from soupcore.safe_torch.weight_sets import find_weight_sets
from soupcore.safe_torch.writer import Stored, are_alike, pickled

_OTHER_WEIGHTS = "weights"
_REMOVED, _RESET, _REPLACED = "removed", "reset", "replaced"

# Always read by fairseq's loader, so the entry stays, without values.
_EMPTIED = ("optimizer_history",)
_DEEPEST = 4


def rewrite(file: BinaryIO, weights: str) -> dict[str, Any]:
    """Return the pickle for a file that holds a soup in the form of this one.

    Args:
        file: A file that `read_contents` reads.
        weights: The name of the weight set that the soup replaces; "" for the first one.

    Returns:
        `pickle`: the pickle, in base64.
        `storages`: `{key: [offset in the file, bytes]}` of all storages that it refers to.
        `changes`: `[[place, role, "removed", "reset" or "replaced"]]`.
        `kept`: the places of unchanged entries beside the weights.
        `local_paths`: `[[place, path]]`, as in `read_contents`.
        `takes_marker`: whether an entry may be added to the unpickled object.

    Raises:
        Refusal: The file cannot be rewritten in this form.
    """
    runs: list[Recorder] = []

    def recorder(*args: Any) -> Recorder:
        runs.append(Recorder(*args))
        return runs[-1]

    kind, tree, _, places = read_tree(file, recorder)
    sets = find_weight_sets(tree)
    chosen = next((found for found in sets if weights in ("", found.name)), None)
    if chosen is None:
        raise Refusal(f"It has no weights {weights!r}.")
    plain = read_plainly(runs[0].data, 3 if kind == "legacy" else 0)
    form = _Form(tree, plain, _counterparts(runs[0], plain), chosen, sets)
    form.edit()
    written = pickled(form.root)
    if len(written) > MOST_BYTES:
        raise Refusal(f"Its new pickle is larger than the limit of {MOST_BYTES} bytes.")
    storages: dict[str, Storage] = {}
    machine = Machine(written, CALLS, lambda pid: storage_of(pid, storages), check_name)
    again = machine.load()
    # The new pickle must read the same, execute nothing new, and only contain the soup's weights.
    if not (
        are_alike(read_plainly(written).tree, form.root)
        and set(may_execute(machine)) <= set(may_execute(runs[0]))
        and _gives_only(find_weight_sets(again), chosen)
    ):
        raise Refusal(
            f"It holds weights other than {chosen.name!r} that can be neither replaced nor removed."
        )
    return {
        "pickle": base64.b64encode(written).decode(),
        "storages": {key: places[key][:2] for key in storages},
        "changes": form.changes,
        "kept": form.kept,
        "local_paths": local_paths_of(again),
        "takes_marker": form.takes_marker,
    }


class Recorder(Machine):
    """A machine that records the results of its calls, in order.

    Attributes:
        data: The pickles.
        made: The result of each call in the pickles.
        tree: The object of the last pickle.
    """

    def __init__(self, data: bytes, *args: Any) -> None:
        super().__init__(data, *args)
        self.data = data
        self.made: list[Any] = []
        self.tree: Any = None
        self._depth = 0

    def call(self, function: Any, args: Any) -> Any:
        """See `Machine.call`; a nested call counts as part of the outer one."""
        self._depth += 1
        try:
            made = super().call(function, args)
        finally:
            self._depth -= 1
        if not self._depth:
            self.made.append(made)
        return made


def _bytearray(machine: Machine, args: tuple[Any, ...]) -> Any:
    match args:
        case (str(text), "latin-1"):
            machine.allocate(len(text))
            return bytearray(text.encode("latin1"))
    return machine.inert("builtins.bytearray", args, called=True)


_AS_WRITTEN = ("collections.OrderedDict", "_codecs.encode", "builtins.bytes", "builtins.set")
_PLAIN_CALLS: dict[str, Call] = {path: CALLS[path] for path in _AS_WRITTEN} | {
    "builtins.frozenset": CALLS["builtins.frozenset"],
    "builtins.bytearray": _bytearray,
}


def read_plainly(data: bytes, before: int = 0) -> Recorder:
    """Read a pickle so that `pickled` can write it again, after skipping `before` others."""
    machine = Recorder(data, _PLAIN_CALLS, _stored, check_name)
    for _ in range(before + 1):
        machine.tree = machine.load()
    return machine


def _stored(pid: Any) -> Any:
    match pid:
        case ("module", Global() as cls, _, _):
            return cls
        case ("storage", _, _, _, _, None):  # of the format before torch 1.6
            return Stored(pid[:-1])
    return Stored(pid)


def _counterparts(run: Recorder, plain: Recorder) -> dict[int, Inert]:
    """Return for each tensor of a run, by its id, the call that makes it."""
    calls: dict[int, Inert] = {}
    for made, call in zip(run.made, plain.made, strict=False):
        # The call for a parameter contains that for its tensor, which comes first.
        if isinstance(made, Tensor) and type(call) is Inert:
            calls.setdefault(id(made), call)
    return calls


class _Form:
    """A checkpoint that is edited into its new form.

    Args:
        tree: The unpickled object with its calls interpreted.
        plain: The same object with its calls recorded.
        calls: The calls that make tensors, by the id of the tensor in `tree`.
        chosen: The weights that the soup replaces.
        sets: All sets of weights.

    Attributes:
        root: The object to write.
        changes: See `rewrite`.
        kept: See `rewrite`.
    """

    def __init__(
        self,
        tree: Any,
        plain: Recorder,
        calls: dict[int, Inert],
        chosen: WeightSet,
        sets: list[WeightSet],
    ) -> None:
        self.root = plain.tree
        self.changes: list[tuple[str, str, str]] = []
        self.kept: list[str] = []
        self._tree = tree
        self._calls = calls
        self._chosen = chosen
        self._ids = {id(tensor) for tensor in chosen.tensors.values()}
        self._others = {id(tensor) for found in sets for tensor in found.tensors.values()}
        self._pairs: dict[int, tuple[Tensor, Tensor, bool]] = {}
        for other in sets:
            for one, two in _pairs(chosen, other):
                self._pairs.setdefault(id(two), (one, two, one.dtype == two.dtype))

    @property
    def takes_marker(self) -> bool:
        """Whether the weights are in a dict that has, or may have, other entries beside them."""
        entries = entries_of(self._tree)
        if entries is None or is_module(self._tree) or self._is_state_dict(entries):
            return False
        places = sum(not self._ids.isdisjoint(_tensors(value)) for value in entries.values())
        return places == 1 or len(entries) > places

    def edit(self) -> None:
        """Replace or remove everything that does not belong to the soup."""
        if not is_module(self._tree):
            self._level(self._tree, self.root, "", 0)

    def _is_state_dict(self, entries: dict[Any, Any]) -> bool:
        return any(id(value) in self._ids for value in entries.values())

    def _level(self, value: Any, plain: Any, place: str, depth: int) -> None:
        """Edit the entries beside the weights, from the outside inwards."""
        parts, holder = _parts_of(value), _holder_of(plain)
        if depth > _DEEPEST or holder is None:
            return
        is_state_dict = self._is_state_dict(parts)
        for key, part in parts.items():
            where = f"{place}.{key}" if place else str(key)
            tensors = _tensors(part)
            if not self._ids.isdisjoint(tensors):
                if not is_module(part) and part is not value:
                    self._level(part, holder[key], where, depth + 1)
                continue
            if is_state_dict and ("." in str(key) or isinstance(part, Tensor)):
                continue  # a part of the network, such as the extra state of a layer
            if key == MARKER and type(part) is str:
                _drop(holder, key)
            elif others := tensors & self._others:
                if self._replace(part, others):
                    self.changes.append((where, _OTHER_WEIGHTS, _REPLACED))
                    self._counts_of_average(part, holder[key], where)
                else:
                    self._remove(holder, key, where, _OTHER_WEIGHTS)
            else:
                self._beside(key, part, holder, where, is_state_dict, bool(tensors))

    def _replace(self, part: Any, others: set[int]) -> bool:
        """Make other weights refer to the soup's; return False if their layout differs."""
        if any(name in (entries_of(part) or {}) for name in COUNTERS):
            return False  # it counts the averaged models
        pairs = [self._pairs.get(other) for other in others]
        if not all(pair and (pair[2] or not is_module(part)) for pair in pairs):
            return False  # a module needs weights of one dtype
        for one, two, _ in filter(None, pairs):
            call, model = self._calls[id(two)], self._calls[id(one)]
            call.path, call.args = model.path, model.args
        return True

    def _beside(
        self, key: Any, part: Any, holder: Any, where: str, is_state_dict: bool, has_tensors: bool
    ) -> None:
        name = str(key)
        role = role_of(name, part, holds_tensors=has_tensors)
        if role == STATE and name in _EMPTIED:
            holder[key] = _emptied(holder[key])
            self.changes.append((where, role, _RESET))
        elif role == PROGRESS and not is_state_dict and not isinstance(part, Tensor):
            self._reset(name, holder, where)
        elif role is not None:
            self._remove(holder, key, where, role)
        elif self._is_account(name, part, holder[key]):
            self._account(part, holder[key], where, 0)
            self.kept.append(where)
        elif part is not None and not is_state_dict:
            self.kept.append(where)

    @staticmethod
    def _is_account(key: str, part: Any, plain: Any) -> bool:
        return is_account(key) and isinstance(part, dict) and isinstance(plain, dict)

    def _account(
        self, entries: dict[Any, Any], plain: dict[Any, Any], place: str, depth: int
    ) -> None:
        for key, part in entries.items():
            if type(key) is not str:
                continue
            where = f"{place}.{key}"
            role = role_of(key, part, beside=False)
            if role == PROGRESS and not isinstance(part, Tensor):
                self._reset(key, plain, where)
            elif role is not None:
                self._remove(plain, key, where, role)
            elif self._is_account(key, part, plain[key]) and depth < _DEEPEST:
                self._account(part, plain[key], where, depth + 1)

    def _counts_of_average(self, part: Any, plain: Any, where: str) -> None:
        if isinstance(part, dict) and isinstance(plain, dict):
            counts = {key: value for key, value in part.items() if not isinstance(value, Tensor)}
            self._account(counts, plain, where, _DEEPEST)

    def _reset(self, key: str, holder: Any, where: str) -> None:
        holder[key] = at_the_start(key)
        self.changes.append((where, PROGRESS, _RESET))

    def _remove(self, holder: Any, key: Any, where: str, role: str) -> None:
        _drop(holder, key)
        self.changes.append((where, role, _REMOVED))


def _parts_of(value: Any) -> dict[Any, Any]:
    """Return the entries of a dict with string keys, or the elements of a list by index."""
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return {key: part for key, part in (entries_of(value) or {}).items() if type(key) is str}


def _holder_of(plain: Any) -> Any:
    """Return the dict, list or tuple whose parts can be removed."""
    return plain if isinstance(plain, list | tuple) else entries_of(plain)


def _drop(holder: Any, key: Any) -> None:
    if isinstance(holder, tuple):
        raise Refusal(f"It is a tuple, from which element {key} would have to be removed.")
    if isinstance(holder, list):
        holder[key] = None  # the indices of the others do not change
    else:
        del holder[key]


def _pairs(chosen: WeightSet, other: WeightSet) -> list[tuple[Tensor, Tensor]]:
    """Return the tensors of two sets in pairs; empty if one is not a copy of the other.

    The second one may lack some tensors, as averages of parameters do.
    """
    by_name = _bare(chosen.tensors)
    pairs = [(by_name.get(name), two) for name, two in _bare(other.tensors).items()]
    found = [
        (one, two)
        for one, two in pairs
        if isinstance(one, Tensor) and isinstance(two, Tensor) and one.shape == two.shape
    ]
    return found if len(found) == len(pairs) else []


def _bare(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return tensors by name, without the prefix that all names share."""
    levels = zip(*(name.split(".")[:-1] for name in tensors), strict=False)
    shared = 0
    for level in levels:
        if len(set(level)) > 1:
            break
        shared += len(level[0]) + 1
    return {name[shared:]: tensor for name, tensor in tensors.items()}


def _emptied(value: Any) -> Any:
    """Return the same dicts and lists with None for every value."""
    if type(value) is list:
        return [_emptied(part) for part in value]
    if isinstance(value, dict):
        return {key: _emptied(part) for key, part in value.items()}
    return None


def _tensors(value: Any) -> set[int]:
    """Return the ids of all tensors in a value."""
    tensors: set[int] = set()
    seen: set[int] = set()
    stack = [value]
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            tensors.add(id(part))
        else:
            stack += _inner(part)
    return tensors


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
        if type(value) is Ordered:
            yield value.state
    elif isinstance(value, list | tuple):
        yield from value
    elif type(value) is Inert:
        yield from (value.args, value.items, value.entries, value.state)


def _gives_only(sets: list[WeightSet], chosen: WeightSet) -> bool:
    """Return whether all sets hold only the chosen tensors, with the same names where shared."""
    expected = {name: _view(tensor) for name, tensor in _bare(chosen.tensors).items()}
    views = {*expected.values()}
    return all(
        _view(tensor) == expected[name] if name in expected else _view(tensor) in views
        for found in sets
        if not found.name.endswith(EXTRA_STATE)
        for name, tensor in _bare(found.tensors).items()
    )


def _view(tensor: Any) -> Any:
    if not isinstance(tensor, Tensor):
        return None
    place = (tensor.storage.key, tensor.dtype, tensor.offset, tensor.shape, tensor.stride)
    return (*place, tensor.conjugate, tensor.negative)
