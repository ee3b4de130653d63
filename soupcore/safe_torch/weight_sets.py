"""The sets of weights in a file, the preferred one first.

A file may hold one state dict, several copies of it (raw weights and their average), a network in
several state dicts (encoder and decoder), or several networks (generator and discriminator), at any
depth. `siblings` has the rules that distinguish these.

Every set that can be opened is listed. A set that omits other trained parts lists them in
`WeightSet.left_out`, because a copy of the file with a soup in this set would mix the soup with the
other parts of one run.
"""

from collections.abc import Iterable
from typing import Any

from soupcore.safe_torch.names import (
    AVERAGED,
    AVERAGES,
    EXTRA_STATE,
    FACTS,
    OF_LAYERS,
    PREFERENCE,
    TITLES,
    title_of,
    words_of,
)
from soupcore.safe_torch.places import (
    MOST_NAME_BYTES,
    MOST_TENSORS,
    AnyTensor,
    ArrayOf,
    Node,
    Places,
    by_outermost,
    find_tensors,
    is_weight_like,
)
from soupcore.safe_torch.refusal import Refusal, shown
from soupcore.safe_torch.siblings import Member, Siblings, WeightSet, joined_name, named_like
from soupcore.safe_torch.tensors import Tensor, Unusable
from soupcore.safe_torch.values import Global, Inert, entries_of

_JOINED = "joined weights"
_MOST_NAMED = 5
_MOST_SENTENCES = 20  # on omitted tensors
_MOST_COMPARED = 1_000_000  # tensors, in comparisons of lists without names with state dicts


def find_weight_sets(tree: Any, array_of: ArrayOf = lambda value: None) -> list[WeightSet]:
    """Find the sets of weights in an unpickled object, the conventional choice first.

    Args:
        tree: The unpickled object.
        array_of: Returns a tensor for a NumPy array; None for anything else.

    Raises:
        Refusal: There are no weights.
    """
    places = find_tensors(tree, PREFERENCE, array_of)
    sets = _Search().all_sets(places)
    if not any(found.tensors for found in sets):
        raise _none_found(tree, places)
    if len({id(tensor) for found in sets for tensor in found.tensors.values()}) > MOST_TENSORS:
        raise Refusal(f"It holds more tensors than the limit of {MOST_TENSORS:,}.")
    if "ds_version" in (entries_of(tree) or {}) and all(map(_is_empty, sets[0].tensors.values())):
        raise Refusal(
            "It is from DeepSpeed's ZeRO-3, which saves the weights in other files.",
            "Run the script zero_to_fp32.py in its folder, and open the file that it writes.",
        )
    if len(sets) == 1:
        sets[0].title = "weights"
    titles: set[str] = set()
    for found in sets:
        found.title = found.name if found.title in titles else found.title
        titles.add(found.title)
    if len(sets) > 1 or sets[0].parts:
        sets[0].notes.insert(0, _why_first(sets))
    for found in sets:
        if others := [place for place in found.left_out if place not in found.doubtful]:
            found.notes.append(
                f"{shown(found.name)} omits {_some(others)}, which the file also holds: another "
                "part of the network, or another network."
            )
        if found.doubtful:
            found.notes.append(
                f"{shown(found.name)} has the same names and shapes as {_some(found.doubtful)}. "
                "It is not clear whether these are copies or parts of one model."
            )
    return sets


class _Search:
    def __init__(self) -> None:
        self._records: list[Node] = []
        self._unnamed: list[Node] = []
        self._beside: list[str] = []  # sentences
        self._name_bytes = 0
        self._compared = 0

    def all_sets(self, places: Places) -> list[WeightSet]:
        """Return all sets, in order of preference."""
        sets = self._sets(places.root) if places.root else []
        while not sets and self._records:  # then the names of the records are misleading
            records, self._records = self._records, []
            sets = [found for node in records for found in self._sets(node)]
        records, self._records = self._records, []
        for node in records:
            copies = [
                found
                for found in self._sets(node)
                if sets
                and found.is_copy_of(sets[0])
                and any(map(_is_floats, found.tensors.values()))
            ]
            sets += copies
            taken = {id(tensor) for found in copies for tensor in found.tensors.values()}
            rest = [tensor for tensor in node.everything if id(tensor) not in taken]
            self._leave_out(node.place, sum(map(is_weight_like, rest)))
        for place, count in by_outermost(places.optimizers).items():
            self._leave_out(place, count)
        for place, count in by_outermost(places.arrays).items():
            what = f"{count} NumPy array{'' if count == 1 else 's'}"
            self._beside.append(f"{shown(place)} ({what}) was omitted.")
        if places.repeated:
            place, first = next(iter(places.repeated.items()))
            others = f" (and {len(places.repeated) - 1} more)" if len(places.repeated) > 1 else ""
            self._beside.append(f"{shown(place)} is the same object as {shown(first)}{others}.")
        if places.too_deep:
            self._beside.append(f"{_some(places.too_deep)}: nested too deeply, not searched.")
        self._add_unnamed(sets)
        if sets:
            sets[0].notes += self._beside[:_MOST_SENTENCES]
            if (more := len(self._beside) - _MOST_SENTENCES) > 0:
                sets[0].notes.append(f"{more} more places were omitted.")
        return sets

    def _leave_out(self, place: str, count: int) -> None:
        if count:
            self._beside.append(
                f"{shown(place)} ({_tensors(count)}) was omitted, since its name is not that of "
                "weights."
            )

    def _sets(self, node: Node) -> list[WeightSet]:
        """Return the sets in a container and in nested ones, in order of preference."""
        members = []
        for child in node.children:
            if child.is_record:
                self._records.append(child)
            elif found := self._sets(child):
                members.append(Member(child.key, found[0], found[1:]))
        if node.unnamed:
            self._unnamed.append(node)
        if any(_has_weights(member.main) for member in members):
            members = [
                member
                for member in members
                if _has_weights(member.main) or member.key.endswith(EXTRA_STATE)
            ]
        if not members:
            return [self._own(node)] if node.tensors else []
        self._add_own(node, members)
        extras = [member for member in members if member.key.endswith(EXTRA_STATE)]
        members = [member for member in members if member not in extras]
        if not members:
            return [extra.main for extra in extras]
        sets = Siblings(node, members, self._join).sets()
        return sets + [extra.main for extra in extras]

    def _own(self, node: Node) -> WeightSet:
        return WeightSet(
            node.place, title_of(node.place), node.tensors, node.notes, base=node.place
        )

    def _add_own(self, node: Node, members: list[Member]) -> None:
        """Add the direct entries of the container, unless they are facts about the run."""
        own = {
            name: tensor
            for name, tensor in node.tensors.items()
            if is_weight_like(tensor) or (_is_floats(tensor) and not FACTS & {*words_of(name)})
        }
        beside_known = any(member.is_known for member in members)
        names = [name for name in own if is_weight_like(own[name])]
        if beside_known and not any("." in name and OF_LAYERS.search(name) for name in names):
            self._leave_out_all(node.place, names)
        elif own:
            node.tensors = {n: t for n, t in node.tensors.items() if n in own or not _is_floats(t)}
            members.insert(0, Member("", self._own(node), []))

    def _leave_out_all(self, place: str, names: list[str]) -> None:
        if names:
            where = f"in {shown(place)}" if place else "beside the weights"
            self._beside.append(f"Tensors {where} were omitted ({_some(names)}).")

    def _join(self, node: Node, members: list[Member], is_whole: bool) -> WeightSet | None:
        """Return the members as one set; None if two tensors would have the same name."""
        joined = WeightSet(joined_name(node, members, is_whole), _JOINED, base=node.place)
        names = {member.main.name for member in members}
        count = 0
        for member in members:
            prefix = member.main.base[len(node.place) :].lstrip(".")
            prefix = f"{prefix}." if prefix else ""
            self._name_bytes += sum(len(prefix) + len(name) for name in member.main.tensors)
            if self._name_bytes > MOST_NAME_BYTES:
                raise Refusal(
                    f"The names of its tensors expand to more than {MOST_NAME_BYTES} bytes."
                )
            joined.tensors |= {prefix + name: t for name, t in member.main.tensors.items()}
            count += len(member.main.tensors)
            joined.notes += member.main.notes
            joined.left_out += [
                place
                for place in member.main.left_out
                if place not in names and place not in joined.left_out
            ]
            joined.problem = joined.problem or member.main.problem
        joined.parts = tuple(member.main.name for member in members)
        return joined if len(joined.tensors) == count else None

    def _add_unnamed(self, sets: list[WeightSet]) -> None:
        """Add lists of tensors with the names that follow from their shapes and order."""
        named = [*sets]
        for node in self._unnamed:
            if not any(map(is_weight_like, node.unnamed)):
                continue
            place = node.place
            is_average = bool(AVERAGES & {*words_of(place)})
            title = title_of(place)
            for found in named:
                self._compared += len(node.unnamed) + len(found.tensors)
                if self._compared > _MOST_COMPARED:
                    continue
                if tensors := named_like(node.unnamed, found.tensors):
                    missing = len(found.tensors) - len(tensors)
                    note = (
                        f"The tensors in {shown(place)} have no names. Their order and shapes are "
                        f"those of the parameters in {shown(found.name)}, whose names are used."
                    )
                    lack = f"It lacks {_tensors(missing)} of these." if missing else ""
                    notes = [f"{note} {lack}".rstrip()]
                    sets.append(WeightSet(place, title, tensors, notes, base=place))
                    break
            else:
                count = len(node.unnamed)
                if sets and not is_average:
                    self._beside.append(
                        f"{_at(place)} ({_tensors(count)} without names) was omitted."
                    )
                    continue
                problem = f"{_at(place)} is a list of {_tensors(count)} without names"
                problem += ", and no other weights in the file have its shapes." if sets else "."
                sets.append(
                    WeightSet(place, title, problem=(problem, "Save the average as a state dict."))
                )
                self._beside.append(problem)


def _has_weights(found: WeightSet) -> bool:
    return found.problem is not None or any(map(is_weight_like, found.tensors.values()))


def _is_floats(tensor: AnyTensor) -> bool:
    return isinstance(tensor, Unusable) or "float" in tensor.dtype


def _is_empty(tensor: AnyTensor) -> bool:
    return isinstance(tensor, Tensor) and isinstance(tensor.shape, tuple) and 0 in tensor.shape


def _why_first(sets: list[WeightSet]) -> str:
    first = sets[0]
    parts = [name for name in first.parts if any(found.name == name for found in sets)]
    others = [found.name for found in sets[1:] if found.name not in parts]
    if first.parts:
        joined = f"The network has {len(first.parts)} parts, which were joined under their keys"
        joined += f" ({_some(first.parts)}); each can be opened alone." if parts else "."
        return f"{joined} The file also holds {_some(others)}." if others else joined
    if first.title == AVERAGED:
        why = "holds the average of the weights in this file, which the tool evaluates"
    elif all(_last(found.name) in TITLES for found in sets):
        why = f"({first.title}) holds the weights that the tool with these keys evaluates"
    else:
        return f"{shown(first.name)} was opened; the file also holds {_some(others)}."
    return f"{shown(first.name)} {why}; it was opened and not {_some(others)}."


def _none_found(tree: Any, places: Places) -> Refusal:
    way_out = "Choose the file that holds the model, or save model.state_dict()."
    entries = entries_of(tree)
    seen = [
        f"{_tensors(count)} in {_at(place)}" for place, count in by_outermost(places.seen).items()
    ]
    more = f" and {len(seen) - 3} more" if len(seen) > 3 else ""
    where = f": {', '.join(seen[:3])}{more}" if seen else ""
    if entries is None:
        what = "one tensor without a name" if isinstance(tree, AnyTensor) else _kind(tree)
        return Refusal(f"It holds {what}, and no named weights{where}.", way_out)
    if "param_groups" in entries or any("optim" in str(key).lower() for key in entries):
        return Refusal(f"It holds the state of an optimizer, and no weights{where}.", way_out)
    if any(isinstance(value, AnyTensor) for value in entries.values()):
        return Refusal(f"Its tensors have no names ({shown(str(next(iter(entries))))}).", way_out)
    if where:
        return Refusal(f"It holds no named tensors{where}.", way_out)
    names = f" ({_some(list(map(str, entries))[:_MOST_NAMED])})" if entries else ""
    return Refusal(f"It holds no tensors{names}.", way_out)


def _kind(value: Any) -> str:
    path = value.path if isinstance(value, Inert | Global) else type(value).__name__
    return f"an object of type {path}"


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _at(place: str) -> str:
    return shown(place) if place else "its top level"


def _some(names: Iterable[str]) -> str:
    texts = [shown(name) for name in names]
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return ", ".join(texts[:_MOST_NAMED]) + more


def _tensors(count: int) -> str:
    return f"{count} tensor" if count == 1 else f"{count} tensors"
