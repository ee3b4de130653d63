"""The description (`yaml`) that ultralytics keeps in a model, and builds it anew from in training.

It gives the text of `activation` to `eval`, and calls what the rows of `backbone` and `head` name
out of all that its module has imported (`parse_model` in ultralytics/nn/tasks.py).
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from soupcore.strict.known_classes import MODULE_CLASSES, MODULE_PATHS
from soupcore.strict.values import Inert

_UNUSUAL = "a model's yaml of an unusual form"
_ROW = 4  # from, number, module, arguments

_PREFIXES = {
    "torch.nn.modules.": "nn.",
    "torchvision.ops.": "torchvision.ops.",
    "ultralytics.nn.modules.": "",
}
_LAYERS = frozenset(
    written + name
    for package, written in _PREFIXES.items()
    for module, names in MODULE_CLASSES.items()
    if module.startswith(package)
    for name in names.split()
) | {"Silence"}  # of YOLOv9, replaced before it is looked up
_LITERAL = r"(?:True|False|None|-?[0-9]+(?:\.[0-9]*)?(?:e-?[0-9]+)?)"
_ARGUMENT = rf"\s*(?:[a-z_]+\s*=\s*)?{_LITERAL}\s*"
_ARGUMENTS = rf"{_ARGUMENT}(?:,{_ARGUMENT})*"
_ACTIVATION = re.compile(rf"(?:torch\.)?(nn\.[A-Za-z0-9]+)(?:\((?:{_ARGUMENTS})?\))?")


def run_by_ultralytics(instances: Iterable[Inert]) -> list[str]:
    """Return what would run, beyond layers that are known, when such a model is trained further."""
    found: dict[str, None] = {}
    seen: set[int] = set()
    for description in _descriptions(instances):
        if id(description) not in seen:
            seen.add(id(description))
            found.update(dict.fromkeys(_run_by_one(description, seen)))
    return list(found)


def _descriptions(instances: Iterable[Inert]) -> Iterator[Any]:
    for instance in instances:
        if instance.path in MODULE_PATHS:
            attributes = instance.attributes
            # An attribute of a module may also stand in one of these.
            inner = (attributes.get(part) for part in ("_parameters", "_buffers", "_modules"))
            for holder in (attributes, *inner):
                if isinstance(holder, dict) and "yaml" in holder:
                    yield holder["yaml"]


def _run_by_one(description: Any, seen: set[int]) -> Iterator[str]:
    if not isinstance(description, dict):  # the name of a file, say, which it would fetch
        yield _UNUSUAL
        return
    activation = description.get("activation")
    if type(activation) is str and not _is_activation(activation):
        yield f"eval({activation[:100]!r})"
    elif type(activation) not in (str, type(None)):
        yield _UNUSUAL
    for part in ("backbone", "head"):
        rows = description.get(part, [])
        if id(rows) in seen:
            continue
        seen.add(id(rows))
        if type(rows) is not list:
            yield _UNUSUAL
            continue
        for row in rows:
            layer = row[2] if type(row) in (list, tuple) and len(row) == _ROW else None
            if type(layer) is not str:
                yield _UNUSUAL
            elif layer not in _LAYERS:
                yield f"the layer {layer[:100]!r} of a model's yaml"


def _is_activation(text: str) -> bool:
    parts = _ACTIVATION.fullmatch(text)
    return parts is not None and parts[1] in _LAYERS
