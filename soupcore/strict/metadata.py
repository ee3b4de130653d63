"""What a checkpoint says of the run that made it, as plain values.

Training runs keep their hyperparameters as dicts, namespaces, dataclasses or OmegaConf trees, and
their metrics as numbers of NumPy's. All come as inert notes, and are read from those.
"""

from collections.abc import Callable, Iterator
from typing import Any

from soupcore.strict.containers import entries_of
from soupcore.strict.modules import is_module
from soupcore.strict.numpy_values import SCALARS, number_of
from soupcore.strict.tensors import Tensor
from soupcore.strict.values import Global, Inert

Plain = str | int | float | bool | None

MOST_DETAILS = 200
LONGEST_TEXT = 200
_MOST_STEPS = 50_000
_DEEPEST = 4
_LONGEST_LIST = 8

# Where runs keep hyperparameters and metrics: Lightning, timm, torchvision, Ultralytics, mmengine.
_GROUPS = (
    "hyper_parameters",
    "hparams",
    "args",
    "train_args",
    "config",
    "cfg",
    "opt",
    "hyp",
    "meta",
    "metrics",
    "train_metrics",
    "val_metrics",
)
_BEST = ("monitor", "best_model_score")  # of Lightning's ModelCheckpoint, among its callbacks
_NOTHING = object()


def details_of(
    tree: Any, number_of_tensor: Callable[[Tensor], Plain] = lambda tensor: None
) -> dict[str, Plain]:
    """Return the plain values of a checkpoint: those beside the weights, and hyperparameters.

    Nested names are joined by dots, without the name of the outermost group: `optimizer.lr`. Where
    two groups have the same name for something, the second one keeps its group's name.

    Args:
        tree: What was unpickled.
        number_of_tensor: The value of a tensor that holds one number beside the weights; else None.
    """
    entries = entries_of(tree) or {}
    reading = _Reading(number_of_tensor)
    beside = reading.flat(entries, 1)
    found = dict(pair for pair in beside if pair[1] is not None)  # as in YOLO's `model: None`
    groups = [(group, _fields(entries.get(group)) or {}) for group in _GROUPS]
    for state in (entries_of(entries.get("callbacks")) or {}).values():
        kept = entries_of(state) or {}
        groups.append(("callbacks", {name: kept[name] for name in _BEST if name in kept}))
    for group, fields in groups:
        for name, value in reading.flat(fields, _DEEPEST):
            found.setdefault(f"{group}.{name}" if name in found else name, value)
    return dict(list(found.items())[:MOST_DETAILS])


class _Reading:
    def __init__(self, number_of_tensor: Callable[[Tensor], Plain]) -> None:
        self._number_of_tensor = number_of_tensor
        self._steps = 0

    def flat(
        self, entries: dict[Any, Any], depth: int, prefix: str = ""
    ) -> Iterator[tuple[str, Plain]]:
        for key, value in entries.items():
            self._steps += 1  # what is shared many times over would take for ever
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
                self._steps += len(value.attributes)  # which are looked through each time
            if depth > 1 and (inner := _fields(value)):
                yield from self.flat(inner, depth - 1, f"{name}.")


def plain_value(value: Any) -> Any:
    """Return something unpickled as a plain value; `_NOTHING` where it is none, or a long one."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT and value.isprintable() else _NOTHING
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int:
        return value if abs(value) < 1 << 53 else _NOTHING  # JSON keeps no more
    if isinstance(value, Global):
        return value.path
    if type(value) is Inert:
        return _plain_instance(value)
    if type(value) in (list, tuple) and 0 < len(value) <= _LONGEST_LIST:
        parts = [plain_value(part) for part in value if type(part) not in (list, tuple)]
        if len(parts) == len(value) and _NOTHING not in parts:
            return plain_value(", ".join(map(str, parts)))
    return _NOTHING


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
    is_named = value.called or value.path == "torch.torch_version.TorchVersion"  # as are Enums'
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
