"""Plain values beside the weights: hyperparameters, metrics, and paths on the user's machine.

Training runs save hyperparameters as dicts, namespaces, dataclasses or OmegaConf trees, and metrics
as NumPy scalars or tensors of one element. The unpickled object holds inert records of all these.
"""

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO

from soupcore.safe_torch.arrays import SCALARS, number_of
from soupcore.safe_torch.names import BEST, HYPERPARAMETERS, MARKER
from soupcore.safe_torch.places import is_module
from soupcore.safe_torch.tensors import Tensor
from soupcore.safe_torch.values import Global, Inert, entries_of

Plain = str | int | float | bool | None

MOST_DETAILS = 200
LONGEST_TEXT = 200
MOST_SCALARS = 200
_MOST_PATHS = 50
_LONGEST_PATH = 500
_MOST_STEPS = 50_000
_DEEPEST = 4
_LONGEST_LIST = 8

_NOTHING = object()
_FORMS = {
    "float64": "<d",
    "float32": "<f",
    "float16": "<e",
    "int64": "<q",
    "int32": "<i",
    "int16": "<h",
    "int8": "<b",
    "uint8": "<B",
    "bool": "<?",
}
_Trail = tuple["_Trail", Any] | None  # the keys that lead to a value, the last one first


def details_of(
    tree: Any, number_of_tensor: Callable[[Tensor], Plain] = lambda tensor: None
) -> dict[str, Plain]:
    """Return the plain values of a checkpoint: those beside the weights, and hyperparameters.

    Nested names are joined by dots, without the name of the outermost group: `optimizer.lr`. If two
    groups have the same name, the second one is prefixed with the name of its group.

    Args:
        tree: The unpickled object.
        number_of_tensor: Returns the value of a tensor of one element beside the weights, else
            None.
    """
    entries = entries_of(tree) or {}
    if type(entries.get(MARKER)) is str:
        return {}  # a soup, whose file contains the settings of its first ingredient
    reading = _Reading(number_of_tensor)
    beside = reading.flat(entries, 1)
    details = dict(pair for pair in beside if pair[1] is not None)  # YOLO saves `model: None`
    groups = [(group, _fields(entries.get(group)) or {}) for group in HYPERPARAMETERS]
    for state in (entries_of(entries.get("callbacks")) or {}).values():
        callback = entries_of(state) or {}
        groups.append(("callbacks", {name: callback[name] for name in BEST if name in callback}))
    for group, fields in groups:
        for name, value in reading.flat(fields, _DEEPEST):
            details.setdefault(f"{group}.{name}" if name in details else name, value)
    return dict(list(details.items())[:MOST_DETAILS])


def values_of(tree: Any) -> dict[str, Plain]:
    """Return the plain values of a dict, a namespace or a dataclass such as `TrainingArguments`."""
    values = _Reading(lambda tensor: None).flat(_fields(tree) or {}, _DEEPEST)
    return dict(list(values)[:MOST_DETAILS])


def plain_value(value: Any) -> Any:
    """Return an unpickled object as a plain value; `_NOTHING` if it is not plain, or too long."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT and value.isprintable() else _NOTHING
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int:
        return value if abs(value) < 1 << 53 else _NOTHING  # many JSON readers use doubles
    if isinstance(value, Global):
        return value.path
    if type(value) is Inert:
        return _plain_instance(value)
    if type(value) in (list, tuple) and 0 < len(value) <= _LONGEST_LIST:
        parts = [plain_value(part) for part in value if type(part) not in (list, tuple)]
        if len(parts) == len(value) and _NOTHING not in parts:
            return plain_value(", ".join(map(str, parts)))
    return _NOTHING


class Scalars:
    """Reads tensors of one element from a file, as plain numbers.

    It reads a few bytes per tensor, and at most `MOST_SCALARS` tensors.

    Args:
        file: The file, seekable.
        places: `{key: (offset in the file, …)}` of its storages.
        weights: Tensors to omit.
    """

    def __init__(
        self,
        file: BinaryIO,
        places: Mapping[str, tuple[int, int, int | None]],
        weights: Collection[Any],
    ) -> None:
        self._file = file
        self._places = places
        self._weights = weights
        self._read = 0

    def number_of(self, tensor: Tensor) -> int | float | bool | None:
        """Return the one element; None for more elements, or if it is not a plain number."""
        form = _FORMS.get("float32" if tensor.dtype == "bfloat16" else tensor.dtype)
        if tensor in self._weights or not form or tensor.negative or tensor.problem():
            return None
        if any(size != 1 for size in tensor.shape) or self._read == MOST_SCALARS:
            return None
        self._read += 1
        self._file.seek(self._places[tensor.storage.key][0] + tensor.offset * tensor.nbytes)
        content = self._file.read(tensor.nbytes)
        if tensor.dtype == "bfloat16":  # the upper half of a float32
            content = bytes(2) + content
        (number,) = struct.unpack(form, content)
        return number  # type: ignore[no-any-return]


def local_paths_of(tree: Any) -> list[tuple[str, str]]:
    """Return strings that look like paths on the machine where the file was saved.

    Returns:
        `[(place, path)]`, such as `("train_args.data", "/home/anna/data.yaml")`; at most 50.
    """
    paths = []
    for trail, text in _texts(tree):
        if _is_local_path(text):
            paths.append((_place(trail), text[:_LONGEST_PATH]))
            if len(paths) == _MOST_PATHS:
                break
    return paths


class _Reading:
    def __init__(self, number_of_tensor: Callable[[Tensor], Plain]) -> None:
        self._number_of_tensor = number_of_tensor
        self._steps = 0

    def flat(
        self, entries: dict[Any, Any], depth: int, prefix: str = ""
    ) -> Iterator[tuple[str, Plain]]:
        for key, value in entries.items():
            self._steps += 1  # bounds the time for parts that are shared many times
            if self._steps > _MOST_STEPS:
                return
            if type(key) is not str or not key.isprintable():
                continue
            name = prefix + key
            plain = plain_value(value)
            if type(value) is Tensor and (number := self._number_of_tensor(value)) is not None:
                plain = plain_value(number)
            if plain is not _NOTHING and len(name) <= LONGEST_TEXT:
                yield name, plain
                continue
            if type(value) is Inert:
                self._steps += len(value.attributes)  # `_fields` reads all of them
            if depth > 1 and (inner := _fields(value)):
                yield from self.flat(inner, depth - 1, f"{name}.")


def _plain_instance(value: Inert) -> Any:
    if value.path in SCALARS:
        number = number_of(value)
        return _NOTHING if number is None else number
    texts = [part for part in value.args if isinstance(part, str)]
    if value.path.startswith("pathlib.") and len(texts) == len(value.args):
        return plain_value("/".join(texts).replace("//", "/", 1))
    if value.path == "torch.device":
        return plain_value(":".join(str(plain_value(part)) for part in value.args[:2]))
    if value.path.startswith("omegaconf.nodes."):
        inner = value.attributes.get("_val")
        return _NOTHING if type(inner) is Inert else plain_value(inner)
    if value.path == "omegaconf.listconfig.ListConfig":
        inner = value.attributes.get("_content")
        return plain_value(inner) if type(inner) is list else _NOTHING
    # Members of Enums are pickled as calls with their value.
    is_named = value.called or value.path == "torch.torch_version.TorchVersion"
    if is_named and len(value.args) == 1 and type(value.args[0]) in (str, int, float):
        return plain_value(value.args[0])
    return _NOTHING


def _fields(value: Any) -> dict[Any, Any] | None:
    """Return the named parts of a dict, a namespace, a dataclass or an OmegaConf tree."""
    if isinstance(value, dict):
        return value
    if type(value) is not Inert or is_module(value):
        return None
    attributes = value.attributes
    if value.path.startswith("omegaconf."):
        content = attributes.get("_content")
        return content if isinstance(content, dict) else None
    if value.entries:
        return value.entries
    return {key: part for key, part in attributes.items() if not str(key).startswith("_")}


def _texts(tree: Any) -> Iterator[tuple[_Trail, str]]:
    """Yield each string once, with the keys that lead to it."""
    seen: set[int] = set()
    stack: list[tuple[_Trail, Any]] = [(None, tree)]
    while stack:
        trail, value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        below: list[tuple[_Trail, Any]] = []
        for key, part in _inner(value):
            if type(part) is Inert and part.path.startswith("pathlib."):
                part = plain_value(part)
            if type(part) is str:
                yield (trail, key), part
            elif isinstance(part, dict | list | tuple | Inert):
                below.append(((trail, key), part))
        stack.extend(reversed(below))


def _inner(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    if type(value) is Inert:
        state = ((None, value.state),)
        return chain(enumerate(value.args), state, enumerate(value.items), value.entries.items())
    return ()


def _place(trail: _Trail) -> str:
    keys = []
    while trail:
        trail, key = trail
        if key is not None:
            keys.append(str(key)[:60])
    return ".".join(reversed(keys[:8]))


def _is_local_path(text: str) -> bool:
    if len(text) > _LONGEST_PATH or not text.isprintable():
        return False
    if text.startswith("/"):
        return text.count("/") >= 2 and text[1:2].isalnum()
    drive = text[:1].isalpha() and text[1:3] in (":\\", ":/")
    return drive or text.startswith(("~/", "\\\\", "file://"))
