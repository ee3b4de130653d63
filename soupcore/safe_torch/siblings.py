"""Rules for several sets of weights in one container: copies, parts, and other networks.

- Sets with equal names and shapes are copies, and one of them is preferred: under the keys of a
  known tool, the copy that the tool loads for evaluation; else the copy that is not an average by
  its name.
- Sets with different names and shapes are parts of one network. They are joined into one set, where
  the name of the part prefixes the names of its tensors.
- A discriminator, or a teacher of another architecture, is another network.
- Numbered siblings, and equal parts of a nested tree, such as layers, are parts.

Averages of parameters are often saved as a list without names, such as `shadow_params` of torch_ema
and diffusers: the averages of `model.parameters()`, in that order. A state dict has the same order,
with buffers and frozen parameters in between, so `named_like` can infer the names.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from soupcore.safe_torch.names import (
    ADVERSARIES,
    AVERAGED,
    AVERAGES,
    OF_LAYERS,
    PREFERENCE,
    RAW,
    VERSIONS,
    words_of,
)
from soupcore.safe_torch.places import AnyTensor, Node
from soupcore.safe_torch.tensors import FLOATS, Tensor, Unusable
from soupcore.safe_torch.values import entries_of

_STATISTICS = ("running_mean", "running_var")  # of BatchNorm
_TOP = "(top level)"  # name of the tensors that are direct entries beside other sets
_NUMBERING = re.compile(r"\d+|(?<![a-z])[a-z]$")
_MOST_PARTS = 12  # parts listed beside the set that joins them; more are layers of a tree
_MOST_SIBLINGS = 1_000  # sets that are compared; more are parts of a tree
_MOST_COMPARED = 16  # groups of copies that a set is compared with, unless all of its names agree
_MOST_LEFT_OUT = 20  # omitted places that a set lists


@dataclass(eq=False)
class WeightSet:
    """One set of weights in a file.

    Attributes:
        name: Its place in the file: `model`, `ema`, `model.state_dict`; "" if the set is the file;
            `model+generator` if it was joined from these two.
        title: Display name, such as "EMA weights".
        tensors: `{name: tensor}` in the order of the state dict.
        notes: Sentences on why it was preferred, and on omitted entries.
        left_out: Places of other trained parts in the file.
        problem: Why it cannot be opened, and the solution, as two sentences; None if it can.
        base: The place to which the names of its tensors are relative.
        parts: Names of the sets that it was joined from.
        doubtful: Names of sets with equal names and shapes, which may be copies or other parts.
    """

    name: str
    title: str
    tensors: dict[str, AnyTensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problem: tuple[str, str] | None = None
    base: str = ""
    parts: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of the storages of its tensors in bytes."""
        storages = {
            id(tensor.storage): tensor.storage.nbytes
            for tensor in self.tensors.values()
            if isinstance(tensor, Tensor)
        }
        return sum(storages.values())

    @property
    def described_nbytes(self) -> int:
        """Sum of the sizes of its tensors in bytes; shared storages count several times."""
        return sum(tensor.nbytes for tensor in self.tensors.values() if isinstance(tensor, Tensor))

    @cached_property
    def layout(self) -> dict[str, tuple[int, ...] | None]:
        """Shapes by name, without the prefix that all of its names share."""
        names = [name.split(".")[:-1] for name in self.tensors]
        shared = 0
        for level in zip(*names, strict=False):
            if len(set(level)) > 1:
                break
            shared += len(level[0]) + 1
        return {name[shared:]: _shape(tensor) for name, tensor in self.tensors.items()}

    def is_copy_of(self, other: "WeightSet") -> bool:
        """Return whether both have the same names and shapes; an average may lack buffers."""
        small, large = sorted((self, other), key=lambda found: len(found.tensors))
        if 2 * len(small.tensors) < len(large.tensors):
            return False
        return small.layout.items() <= large.layout.items()


@dataclass(eq=False)
class Member:
    """A set of weights among its siblings, and the other sets in the same container."""

    key: str
    main: WeightSet
    others: list[WeightSet]

    @property
    def is_known(self) -> bool:
        """Whether a known tool saves its weights under this key."""
        return self.key in PREFERENCE

    @property
    def is_average(self) -> bool:
        """Whether its key is that of an average."""
        if self.is_known:
            return self.key not in RAW
        return bool(AVERAGES & {*words_of(self.key)})

    @property
    def is_version(self) -> bool:
        """Whether its key is that of one of several states of the network."""
        return self.is_average or bool(VERSIONS & {*words_of(self.key)})


@dataclass(eq=False)
class _Group:
    """Members that are copies of each other, of which one is preferred."""

    members: list[Member]
    is_clear: bool = True  # whether they are copies by their names and not only by their shapes

    @cached_property
    def plainest(self) -> Member:
        """The first member that is not an average."""
        return min(self.members, key=lambda member: member.is_average)


Join = Callable[[Node, list[Member], bool], WeightSet | None]


class Siblings:
    """Sets of weights in the same container.

    Args:
        node: The container.
        members: The sets.
        join: Joins several sets into one. The last argument is whether they are all sets of the
            container.
    """

    def __init__(self, node: Node, members: list[Member], join: Join) -> None:
        self._node = node
        self._join_members = join
        for member in members:
            if not member.key and len(members) > 1:
                member.main.name = f"{node.place}.{_TOP}" if node.place else _TOP
                member.main.title = member.main.name
        members = sorted(members, key=_order)
        self._groups = _grouped(members)
        _undo_swaps(self._groups, node.entries)
        self._group_of = {member: group for group in self._groups for member in group.members}
        beside_known = any(member.is_known for member in members)
        words = {word for member in members for word in words_of(member.key)}
        adversaries = [group for group in self._groups if _is_other(group, words)]
        apart = {*adversaries}
        parts = [group for group in self._groups if group not in apart]
        is_compared = beside_known and len(members) <= _MOST_SIBLINGS
        clear = [group for group in parts if not is_compared or _is_clear_part(group)]
        self._parts = clear or parts or adversaries
        taken = {*self._parts}
        self._others = [group for group in self._groups if group not in taken]

    def sets(self) -> list[WeightSet]:
        """Return all joined and single sets, in order of preference."""
        sets: list[WeightSet | None] = []
        is_whole = not self._others and all(len(group.members) == 1 for group in self._groups)
        if len(self._parts) > 1:
            firsts = [group.plainest for group in self._parts]
            sets.append(self._join(firsts, is_whole=is_whole))
            averages = [
                next((m for m in group.members if m is not first and m.is_average), None)
                for group, first in zip(self._parts, firsts, strict=True)
            ]
            if all(averages):
                sets.append(self._join([m for m in averages if m], is_whole=False))
        joined = bool(sets and sets[0])
        groups = [*self._parts, *self._others]
        # If there are more parts, they are layers of a nested tree, which are not listed alone.
        hidden = {group.plainest for group in groups} if len(groups) > _MOST_PARTS else set()
        for group in groups:
            for member in group.members:
                if joined and member in hidden and not member.others:
                    continue
                left_out = self._left_out({member})
                if not joined or member not in hidden:
                    member.main.left_out += left_out
                    member.main.doubtful = () if group.is_clear else _others(group, member)
                    sets.append(member.main)
                for other in member.others:
                    if not joined or other.name not in member.main.parts:
                        other.left_out += left_out
                        sets.append(other)
        if self._others or not all(group.is_clear for group in self._groups):
            everything = [
                member
                for group in (*self._parts, *self._others)
                for member in (group.members if not group.is_clear else [group.plainest])
            ]
            if len(everything) > 1:
                sets.append(self._join(everything, is_whole=False))
        return [found for found in sets if found is not None]

    def _join(self, members: list[Member], *, is_whole: bool) -> WeightSet | None:
        joined = self._join_members(self._node, members, is_whole)
        if joined is not None:
            joined.left_out += self._left_out({*members})
        return joined

    def _left_out(self, taken: set[Member]) -> list[str]:
        """Return the first places that are neither taken nor copies of taken ones."""
        places: list[str] = []
        reached = {self._group_of[member] for member in taken}
        for group in self._groups:
            if len(places) >= _MOST_LEFT_OUT:
                break
            if not group.is_clear and len(taken) > 1:
                places += [m.main.name for m in group.members if m not in taken]
            elif group not in reached:
                places.append(group.plainest.main.name)
            elif not group.is_clear:
                places += _others(group, *taken)
        return places[:_MOST_LEFT_OUT]


def _others(group: _Group, member: Member) -> tuple[str, ...]:
    first = group.members[: _MOST_LEFT_OUT + 1]
    return tuple(other.main.name for other in first if other is not member)


def _is_clear_part(group: _Group) -> bool:
    """Return whether it is a part of the network whose other parts have a known key."""
    if any(member.is_known for member in group.members):
        return not all(member.is_average for member in group.members) or len(group.members) > 1
    return any(map(OF_LAYERS.search, group.members[0].main.tensors))


def _order(member: Member) -> tuple[bool, int, bool, int]:
    known = PREFERENCE.get(member.key, 0)
    return (not member.is_known, known, member.is_average, -member.main.nbytes)


def _grouped(members: list[Member]) -> list[_Group]:
    """Return the members in groups of copies."""
    if len(members) > _MOST_SIBLINGS:
        return [_Group([member]) for member in members]
    groups: list[_Group] = []
    exact: dict[frozenset[Any], _Group] = {}
    sizes = Counter(len(member.main.tensors) for member in members)
    for member in members:
        is_only = sizes[len(member.main.tensors)] == 1  # then no other set has its layout
        layout = frozenset([member]) if is_only else frozenset(member.main.layout.items())
        group = exact.get(layout) or next(
            (g for g in groups[:_MOST_COMPARED] if _may_lack(g, member)), None
        )
        if group is None or not (is_copy := _are_copies(group.members[0], member)):
            groups.append(_Group([member]))
            exact.setdefault(layout, groups[-1])
            continue
        group.members.append(member)
        group.is_clear = group.is_clear and is_copy == "by name"
    return groups


def _may_lack(group: _Group, member: Member) -> bool:
    first = group.members[0]
    by_convention = (
        first.is_known
        and member.is_known
        and first.is_average != member.is_average
        and "teacher" not in (first.key, member.key)
        and 0.1 < (first.main.nbytes + 1) / (member.main.nbytes + 1) < 10  # else not a copy
    )
    return by_convention or first.main.is_copy_of(member.main)


def _are_copies(one: Member, other: Member) -> str:
    """Return "by name", "by shape", or "" if they are parts of one network."""
    if one.is_version or other.is_version or (one.is_known and other.is_known):
        return "by name"
    if one.is_known or other.is_known:
        return "by shape"
    is_numbered = _NUMBERING.sub("", one.key.lower()) == _NUMBERING.sub("", other.key.lower())
    is_tree = not any("." in name for name in one.main.tensors) or bool(one.main.parts)
    return "" if is_numbered or is_tree else "by shape"


def _is_other(group: _Group, siblings: set[str]) -> bool:
    """Return whether it is another network: an adversary, or a teacher."""
    keys = [words_of(member.key) for member in group.members]
    is_adversary = all(
        ADVERSARIES & {*words} or ("d" in words and siblings & {"g", "generator"}) for words in keys
    )
    is_teacher = all("teacher" in words for words in keys)
    return is_adversary or is_teacher


def _undo_swaps(groups: list[_Group], entries: dict[Any, Any]) -> None:
    # Two tools save the average under the key of the raw weights: Lightning's WeightAveraging, and
    # mmengine's EMAHook, which saves the raw weights under the key of the average.
    for group in groups:
        by_key = {member.key: member for member in group.members}
        average, raw = by_key.get("state_dict"), by_key.get("current_model_state")
        if raw is None and _is_of_mmengine(entries):
            raw = by_key.get("ema_state_dict")
        if average and raw:
            average.main.title, raw.main.title = AVERAGED, "raw weights"
            group.members.remove(average)
            group.members.insert(0, average)


def _is_of_mmengine(entries: dict[Any, Any]) -> bool:
    meta = entries_of(entries.get("meta")) or {}
    return "message_hub" in entries or "mmengine_version" in meta


def joined_name(node: Node, members: list[Member], is_whole: bool) -> str:
    """Return the name of a joined set: the place of its members, or their names."""
    if is_whole and (node.place or len(members) > _MOST_PARTS):
        return node.place
    return "+".join(member.main.name for member in members)


def _shape(tensor: AnyTensor) -> tuple[int, ...] | None:
    shape = tensor.shape if isinstance(tensor, Tensor) else None
    is_plain = type(shape) is tuple and all(type(size) is int for size in shape)
    return shape if is_plain else None


def named_like(
    unnamed: Sequence[Tensor | Unusable], named: Mapping[str, Tensor | Unusable]
) -> dict[str, Tensor | Unusable]:
    """Return a list of tensors under the names of a state dict's parameters.

    Args:
        unnamed: The list.
        named: The state dict. Its parameters are all float tensors, except for the running
            statistics of BatchNorm and repeated tied tensors. The list may lack some of them.

    Returns:
        `{name: tensor}`; empty if the shapes do not match, or match in more than one way.
    """
    shapes = [_shape(tensor) for tensor in unnamed]
    if None in shapes:
        return {}
    seen = set()
    parameters = []
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATS:
            continue
        place = (tensor.storage.key, str((tensor.offset, tensor.shape, tensor.stride)))
        if place not in seen and name.rpartition(".")[2] not in _STATISTICS:
            seen.add(place)
            parameters.append(name)
    expected = [_shape(named[name]) for name in parameters]
    first = _matches(shapes, expected)
    last = _matches(shapes[::-1], expected[::-1])
    if first is None or last is None or first != [len(expected) - 1 - at for at in reversed(last)]:
        return {}
    return {parameters[at]: tensor for at, tensor in zip(first, unnamed, strict=True)}


def _matches(shapes: Sequence[object], expected: Sequence[object]) -> list[int] | None:
    """Return the first indices in `expected` at which `shapes` occur in order, or None."""
    places = []
    at = 0
    for shape in shapes:
        while at < len(expected) and expected[at] != shape:
            at += 1
        if at == len(expected):
            return None
        places.append(at)
        at += 1
    return places
