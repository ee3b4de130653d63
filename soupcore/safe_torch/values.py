"""The values of an unpickled object: plain values, and inert records of everything else."""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from soupcore.safe_torch.refusal import Refusal

_MOST_IN_A_KEY = 16
MOST_TUPLE_KEYS = 1_000
_LARGEST_INT_KEY = 1 << 60
_PLAIN = (str, int, float, bool, bytes, type(None))


class Global:
    """A class or function that the pickle names. It is neither imported nor called.

    Attributes:
        path: Module and name. A dot joins them, or a colon if the name itself has dots, so that a
            path identifies one import.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


@dataclass(eq=False, slots=True)
class Inert:
    """A record of a call, or of a new instance of a class.

    Attributes:
        path: Path of the class or function.
        args: The arguments.
        called: Whether the pickle calls it; if not, it creates an empty instance of a class.
        state: The state to set, usually the object's `__dict__`.
        items: The items to append or add.
        entries: The items to set by key.
    """

    path: str
    args: tuple[Any, ...]
    called: bool
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)

    @property
    def attributes(self) -> Mapping[Any, Any]:
        """The attributes that Python would set from `state`."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        # The second part of a pair holds the slots. Nothing is copied, since states may be shared.
        found = [part for part in parts[:2] if isinstance(part, dict)]
        return found[0] if len(found) == 1 else ChainMap(*reversed(found))


@dataclass(frozen=True, eq=False, slots=True)
class Blob:
    """A long run of bytes in the pickle that was not read.

    Attributes:
        nbytes: The number of bytes.
    """

    nbytes: int


class Ordered(dict[Any, Any]):
    """A `collections.OrderedDict`. Unlike a dict, it may have attributes, in `state`."""

    state: Any = None


class Keys:
    """Checks keys of dicts and elements of sets before they are hashed.

    Hashing n nested tuples, each of which contains the next one twice, takes 2ⁿ steps. Colliding
    hashes of numbers and of tuples of numbers are easy to find.
    """

    def __init__(self) -> None:
        self._tuples = 0

    def checked(self, key: Any) -> Any:
        """Check and return `key`.

        Raises:
            Refusal: It could take long to hash or to compare.
        """
        what = "a key, or an element of a set,"
        kind = type(key)
        if kind is str or kind is Global or kind is Inert:  # the hash of strings is randomised
            return key
        if kind is int and abs(key) >= _LARGEST_INT_KEY:
            raise Refusal(f"Its pickle has {what} that is an integer of more than 60 bits.")
        if kind is tuple or kind is frozenset:
            self._tuples += 1
            if self._tuples > MOST_TUPLE_KEYS:
                raise Refusal(
                    f"Its pickle has {what} that is a tuple, more than {MOST_TUPLE_KEYS:,} times."
                )
            if len(key) > _MOST_IN_A_KEY or any(type(part) not in _PLAIN for part in key):
                raise Refusal(
                    f"Its pickle has {what} that is a {kind.__name__} with more than "
                    f"{_MOST_IN_A_KEY} or other than plain values."
                )
        elif kind not in _PLAIN:
            raise Refusal(f"Its pickle has {what} that is a {kind.__name__}.")
        return key


def entries_of(value: Any) -> dict[Any, Any] | None:
    """Return the entries of a dict, or of an instance with entries; None for other values."""
    if isinstance(value, dict):
        return value
    return value.entries if type(value) is Inert and value.entries else None
