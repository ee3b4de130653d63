"""What a pickle's program makes here: plain values, and notes of all others."""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from soupcore.strict.refusal import Refusal

MOST_IN_A_KEY = 16
MOST_TUPLE_KEYS = 1_000
_LARGEST_INT_KEY = 1 << 60
_PLAIN = (str, int, float, bool, bytes, type(None))


class Global:
    """Something that the pickle names: a class, a function. It is neither imported nor called.

    Attributes:
        path: Module and name. A dot joins them, or a colon where the name itself has dots, so that
            each path stands for one import only.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


@dataclass(eq=False, slots=True)
class Inert:
    """What the pickle wanted to make by a call or from a class, as a note of how.

    Attributes:
        path: Path of the class or function.
        args: What it was to be given.
        called: Whether it was to be called, or, being a class, only to make an empty instance.
        state: What the object was to be set to, most often its `__dict__`.
        items: What was to be appended or added to it.
        entries: What was to be set in it by key.
    """

    path: str
    args: tuple[Any, ...]
    called: bool
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)

    @property
    def attributes(self) -> Mapping[Any, Any]:
        """The object's attributes, as Python would have set them from `state`."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        # The second one of a pair holds the slots. Nothing is copied, as many may share one state.
        found = [part for part in parts[:2] if isinstance(part, dict)]
        return found[0] if len(found) == 1 else ChainMap(*reversed(found))


class Ordered(dict[Any, Any]):
    """A `collections.OrderedDict`, which unlike a dict may be given attributes, as its `state`."""

    state: Any = None


class Keys:
    """Decides what may be hashed: keys of dicts and elements of sets.

    A tuple that holds another twice, and so on n times, takes 2ⁿ steps to hash; and of numbers, and
    of tuples of numbers, as many of one hash can be found as one likes.
    """

    def __init__(self) -> None:
        self._tuples = 0

    def checked(self, key: Any) -> Any:
        """Return `key`.

        Raises:
            Refusal: It could take long to hash, or to tell from others.
        """
        what = "a key, or an element of a set,"
        kind = type(key)
        if kind is str or kind is Global or kind is Inert:  # text is hashed with a secret
            return key
        if kind is int and abs(key) >= _LARGEST_INT_KEY:
            raise Refusal(f"Its pickle has {what} that is a number of more than 60 bits.")
        if kind is tuple or kind is frozenset:
            self._tuples += 1
            if self._tuples > MOST_TUPLE_KEYS:
                raise Refusal(f"Its pickle has {what} that is a tuple, too often.")
            if len(key) > MOST_IN_A_KEY or any(type(part) not in _PLAIN for part in key):
                raise Refusal(f"Its pickle has {what} that is a {kind.__name__} of other things.")
        elif kind not in _PLAIN:
            raise Refusal(f"Its pickle has {what} that is a {kind.__name__}.")
        return key
