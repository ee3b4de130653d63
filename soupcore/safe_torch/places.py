"""The places of tensors in an unpickled object, at any depth and under any names.

The search follows dicts, lists, tuples and the attributes of objects, and visits each of them once,
so its time is bounded by that of the pickle. A pickled module counts as its `state_dict()`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, takewhile
from math import prod
from types import MappingProxyType
from typing import Any

from soupcore.safe_torch.names import COUNTERS, OPTIMIZERS, RECORDS, words_of
from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.tensors import FLOATS, Tensor, Unusable
from soupcore.safe_torch.values import Inert, entries_of

AnyTensor = Tensor | Unusable
ArrayOf = Callable[[Any], AnyTensor | None]

MOST_TENSORS = 100_000
MOST_NAME_BYTES = 32 << 20
DEEPEST = 64  # nested containers
_DEEPEST_MODULE = 100  # nested modules
_LONGEST_KEY = 60  # characters of a key in a place; names of tensors are never truncated


@dataclass(eq=False)
class Node:
    """A container that holds tensors, directly or in nested containers.

    Attributes:
        place: The keys that lead to it, joined by dots; "" for the root.
        key: The last of these keys.
        tensors: Tensors that are its entries, by name.
        unnamed: Tensors in it without names, as in a list.
        children: The nested containers that hold tensors.
        notes: Sentences on entries that were omitted from its tensors.
        is_record: Whether its key is that of numbers about the run, and not of weights.
        entries: All of its entries, including those without tensors.
    """

    place: str
    key: str
    entries: dict[Any, Any] = field(default_factory=dict)
    tensors: dict[str, AnyTensor] = field(default_factory=dict)
    unnamed: list[AnyTensor] = field(default_factory=list)
    children: list["Node"] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_record: bool = False

    @property
    def everything(self) -> Iterator[AnyTensor]:
        """All tensors in it and in nested containers."""
        yield from self.tensors.values()
        yield from self.unnamed
        for child in self.children:
            yield from child.everything


@dataclass
class Places:
    """The places of all tensors.

    Attributes:
        root: The outermost place; None if no tensor could be a weight.
        optimizers: `{place: number of float tensors}` of optimizers by their names, except for
            those in the form of torch's own optimizers.
        too_deep: Places that were skipped because they are nested too deeply.
        repeated: `{place: earlier place}` of objects that occur at several places.
        seen: `{place: number of tensors}` of all places with tensors of any kind.
        arrays: `{place: number of arrays}` of NumPy arrays. In a file without float tensors they
            count as tensors, in others as records of the run.
    """

    root: Node | None
    optimizers: dict[str, int]
    too_deep: list[str]
    repeated: dict[str, str]
    seen: dict[str, int]
    arrays: dict[str, int]


def find_tensors(
    tree: Any,
    preference: Mapping[str, int] = MappingProxyType({}),
    array_of: ArrayOf = lambda value: None,
) -> Places:
    """Find every tensor in an unpickled object.

    Args:
        tree: The unpickled object.
        preference: The order of preference of keys, for objects under several of them.
        array_of: Returns a tensor for a NumPy array; None for anything else.

    Raises:
        Refusal: There are more than `MOST_TENSORS` tensors.
    """
    walk = _Walk(preference, array_of, takes_arrays=False)
    root = walk.node(tree, "", "", 0)
    if walk.arrays and not (root and any(map(is_weight_like, root.everything))):
        walk = _Walk(preference, array_of, takes_arrays=True)
        root = walk.node(tree, "", "", 0)
    return Places(root, walk.optimizers, walk.too_deep, walk.repeated, walk.seen, walk.arrays)


def by_outermost(places: Mapping[str, int]) -> dict[str, int]:
    """Return the counts summed by the first key of each place, under their common prefix."""
    inside: dict[str, list[list[str]]] = {}
    counts: dict[str, int] = {}
    for place, count in places.items():
        keys = place.split(".")
        inside.setdefault(keys[0], []).append(keys)
        counts[keys[0]] = counts.get(keys[0], 0) + count
    shared = {
        first: takewhile(lambda level: len(set(level)) == 1, zip(*keys, strict=False))
        for first, keys in inside.items()
    }
    return {".".join(level[0] for level in shared[first]): counts[first] for first in inside}


def is_weight_like(tensor: AnyTensor) -> bool:
    """Return whether a tensor holds more than one float, unlike metrics and counters."""
    if isinstance(tensor, Unusable):
        return True
    is_number = (
        type(tensor.shape) is tuple
        and prod(size if type(size) is int else 2 for size in tensor.shape) == 1
    )
    return tensor.dtype in FLOATS and not is_number


def is_module(value: Any) -> bool:
    """Return whether an unpickled object is an instance of `nn.Module` or of a similar class."""
    return type(value) is Inert and all(
        isinstance(value.attributes.get(part), dict)
        for part in ("_parameters", "_buffers", "_modules")
    )


class _Walk:
    def __init__(
        self, preference: Mapping[str, int], array_of: ArrayOf, *, takes_arrays: bool
    ) -> None:
        self._preference = preference
        self._array_of = array_of
        self.optimizers: dict[str, int] = {}
        self.too_deep: list[str] = []
        self.seen: dict[str, int] = {}
        self.arrays: dict[str, int] = {}
        self._takes_arrays = takes_arrays
        self._count = 0
        self._of_modules = _Budget()
        self.repeated: dict[str, str] = {}
        # An object in many places is visited once.
        self._looked_at: dict[int, Node | None] = {}

    def node(self, value: Any, place: str, key: str, depth: int) -> Node | None:
        """Return the node of a container, or None if it holds no tensor."""
        if id(value) in self._looked_at:
            if (known := self._looked_at[id(value)]) and known.place != place:
                self.repeated[place] = known.place
            return None
        self._looked_at[id(value)] = None
        if depth > DEEPEST:
            self.too_deep.append(place)
            return None
        node = Node(place, key, entries_of(value) or {})
        if is_module(value):
            entries = _module_entries(value, node.notes, self._of_modules)
            self._fill(node, entries.items(), depth, is_module=True)
        else:
            self._fill(node, _inner(value), depth, is_module=False)
        if not node.tensors and not node.unnamed and not node.children:
            return None
        words = {*words_of(key)}
        node.is_record = bool(words & RECORDS)
        if words & OPTIMIZERS or _is_optimizer(value):
            if not _is_optimizer(value):
                found = sum(map(is_weight_like, node.everything))
                self.optimizers |= {place: found} if found else {}
            return None
        self._looked_at[id(value)] = node
        return node

    def _fill(
        self, node: Node, items: Iterable[tuple[Any, Any]], depth: int, *, is_module: bool
    ) -> None:
        others = []
        for key, value in items:
            tensor = value if isinstance(value, AnyTensor) else self._array(value, node.place)
            if tensor is None:
                others.append((key, value))
                continue
            self._add(node.place)
            if type(key) is str:
                node.tensors[key] = tensor
            else:
                node.unnamed.append(tensor)
        others.sort(key=lambda item: self._rank(item[0]))
        left_out = []
        for key, value in others:
            child = None
            if not is_module and isinstance(value, dict | list | tuple | Inert):
                inner = node.key if key is None else str(key)[:_LONGEST_KEY]
                child = self.node(value, _joined(node.place, key), inner, depth + 1)
            if child is None:
                left_out.append(str(key)[:_LONGEST_KEY])
            elif key is None and not child.tensors.keys() & node.tensors.keys():
                node.tensors |= child.tensors  # attributes count as entries of the object itself
                node.unnamed += child.unnamed
                node.children += child.children
            else:
                node.children.append(child)
        for counter in _counters(node.tensors):
            del node.tensors[counter]
        if node.tensors and left_out:
            node.notes.append(
                f"{len(left_out)} of its entries are not named tensors and were omitted "
                f"(the first one: {left_out[0]!r})."
            )

    def _array(self, value: Any, place: str) -> AnyTensor | None:
        array = self._array_of(value)
        if array is None or self._takes_arrays:
            return array
        if not is_weight_like(array):
            return None
        self.arrays[place] = self.arrays.get(place, 0) + 1
        return None

    def _rank(self, key: Any) -> int:
        last = len(self._preference)
        return self._preference.get(key, last) if type(key) is str else last

    def _add(self, place: str) -> None:
        self._count += 1
        self.seen[place] = self.seen.get(place, 0) + 1
        if self._count > MOST_TENSORS:
            raise Refusal(f"It holds more tensors than the limit of {MOST_TENSORS:,}.")


def _inner(value: Any) -> Iterable[tuple[Any, Any]]:
    """Yield the entries of a container by key; an object's attributes have the key None."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    if type(value) is Inert:
        state = value.state if type(value.state) is tuple else (value.state,)
        parts = (part for part in (*value.args, *state) if isinstance(part, dict | Inert))
        return chain(value.entries.items(), enumerate(value.items), ((None, p) for p in parts))
    return ()


def _is_optimizer(value: Any) -> bool:
    """Return whether a value has the entries of a torch optimizer's state."""
    entries = entries_of(value) or {}
    return "param_groups" in entries and "state" in entries


def _counters(tensors: dict[str, AnyTensor]) -> list[str]:
    """Return the counters of an averaged model that was wrapped by torch or mmengine."""
    if not any(counter in tensors for counter in COUNTERS):
        return []
    others = tensors.keys() - set(COUNTERS)
    wrapped = bool(others) and all(name.startswith("module.") for name in others)
    return [name for name in COUNTERS if name in tensors and (wrapped or name == COUNTERS[0])]


def _joined(place: str, key: Any) -> str:
    if key is None:
        return place
    text = str(key)[:_LONGEST_KEY]
    return f"{place}.{text}" if place else text


@dataclass
class _Budget:
    """The work done on modules so far, since many modules may share one large submodule."""

    visits: int = 0
    name_bytes: int = 0


def _module_entries(
    module: Inert, notes: list[str], budget: _Budget | None = None
) -> dict[str, Any]:
    """Return parameters and persistent buffers by name, in the order of `state_dict()`.

    Args:
        module: The pickled module.
        notes: Sentences on differences from `state_dict()` are appended here.
        budget: The work done on other modules of the same file. It is updated.

    Raises:
        Refusal: The module contains itself, or expands to more tensors than the limit.
    """
    return _Unfolding(notes, budget or _Budget()).entries(module)


class _Unfolding:
    def __init__(self, notes: list[str], budget: _Budget) -> None:
        self._notes = notes
        self._budget = budget
        self._found: dict[str, Any] = {}
        self._hooked = False

    def entries(self, module: Inert) -> dict[str, Any]:
        self._visit(module, "", ())
        return self._found

    def _visit(self, module: Inert, prefix: str, path: tuple[int, ...]) -> None:
        if id(module) in path:
            raise Refusal(f"Its module {prefix.rstrip('.')!r} contains itself.")
        if len(path) >= _DEEPEST_MODULE:
            raise Refusal(f"Its modules are nested more than {_DEEPEST_MODULE} levels deep.")
        attributes = module.attributes
        if not self._hooked and any(
            attributes.get(hooks) for hooks in ("_state_dict_hooks", "_state_dict_pre_hooks")
        ):
            self._hooked = True
            self._notes.append(
                f"The module {module.path} changes its state dict by hooks, which were not run."
            )
        for name, value in self._own_entries(attributes, prefix):
            if value is not None:
                self._found[prefix + name] = value
        for name, child in self._named(attributes["_modules"], prefix):
            if child is None:
                continue
            if not is_module(child):
                self._notes.append(f"The submodule {prefix}{name} is not a module and was omitted.")
                continue
            self._visit(child, f"{prefix}{name}.", (*path, id(module)))

    def _own_entries(self, attributes: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        yield from self._named(attributes["_parameters"], prefix)
        skipped = attributes.get("_non_persistent_buffers_set")
        skipped = skipped if isinstance(skipped, set | frozenset) else frozenset[Any]()
        for name, value in self._named(attributes["_buffers"], prefix):
            if name not in skipped:
                yield name, value

    def _named(self, entries: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in entries.items():
            if type(name) is not str:
                raise Refusal(
                    f"Its pickled module has the name {str(name)[:40]!r}, which is not a string."
                )
            # n nested modules, each of which contains the next one twice, expand to 2ⁿ names.
            self._budget.visits += 1
            self._budget.name_bytes += len(prefix) + len(name)
            if self._budget.visits > MOST_TENSORS or self._budget.name_bytes > MOST_NAME_BYTES:
                raise Refusal(f"Its modules expand to more than {MOST_TENSORS:,} tensors.")
            yield name, value
