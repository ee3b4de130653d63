"""Code in a torch file that `torch.load` would run.

Nothing is ever called here, so the reader itself does not need this module. It protects users who
open a malicious file, by a refusal (`check_name`), and users who receive a soup in the form of such
a file, by a report of everything that is not on an exact list (`may_execute`,
`run_by_ultralytics`).
"""

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from soupcore.safe_torch.arrays import is_plain_numpy
from soupcore.safe_torch.known_classes import (
    APPENDED,
    CALLED,
    EMPTY,
    HARMFUL,
    HARMFUL_PACKAGES,
    MADE,
    MODULE_CLASSES,
    MODULE_PATHS,
    PACKAGES,
    SET_BY_KEY,
    TEXTS,
    USUAL_MODULES,
    USUAL_NAMES,
    VALUES,
)
from soupcore.safe_torch.machine import Machine
from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.tensors import is_dtype, is_storage_class
from soupcore.safe_torch.values import Inert

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
_MOST_PARTS = 10_000  # numbers and texts in a description; the largest models have a thousand
_NOT_PLAIN = object()


def check_name(path: str) -> None:
    """Refuse names that only malicious files contain.

    Raises:
        Refusal: It is such a name.
    """
    if _is_harmful(path):
        root, name = path.partition(".")[0], path.rpartition(".")[2]
        may_be_a_model = root in sys.stdlib_module_names and name[:1].isupper()
        raise Refusal(
            f"Its pickle names {path.replace(':', '.')}, which runs code or opens files when it is "
            "unpickled. No valid checkpoint needs that. Do not load it elsewhere.",
            f"If {root} is a module of your own, save model.state_dict() instead."
            if may_be_a_model
            else "",
        )


def may_execute(machine: Machine) -> list[str]:
    """Return the names that `torch.load` would import or run, beyond those known as harmless.

    A name counts if it is called, instantiated, filled, set as an attribute, or only named, since
    naming imports it.
    """
    known = CALLED | MADE | VALUES
    found = {path for path in machine.named if path not in known} | (machine.values - VALUES)
    found = {path for path in found if not (is_dtype(path) or is_storage_class(path))}
    found |= {f"the attribute {name}" for name in machine.hidden}
    for instance in machine.instances:
        if not _is_known(instance):
            found.add(instance.path)
        elif instance.path.startswith("numpy.") and not is_plain_numpy(instance):
            found.add("numpy.dtype of an unusual kind")
    return sorted(found)


def run_by_ultralytics(instances: Iterable[Inert]) -> list[str]:
    """Return the code that further training of an Ultralytics model would run.

    An Ultralytics model holds a description (`yaml`), from which training builds it again: it
    passes the text of `activation` to `eval`, and looks up the layers named in the rows of
    `backbone` and `head` in all that its module has imported (`parse_model` in
    ultralytics/nn/tasks.py). Known layers and activations are omitted.
    """
    found: dict[str, None] = {}
    seen: set[int] = set()
    for description in _descriptions(instances):
        if id(description) not in seen:
            seen.add(id(description))
            found.update(dict.fromkeys(_run_by_one(description, seen)))
    return list(found)


def ultralytics_network(instances: Iterable[Inert]) -> dict[str, Any] | None:
    """Return the description of an ultralytics model, as JSON would hold it.

    None if there is no description, if building its network would run code other than known
    layers, or if the description is not plain data of a usual size.
    """
    for description in _descriptions(instances):
        if isinstance(description, dict) and not list(_run_by_one(description, set())):
            found = _plain(description, [_MOST_PARTS])
            return found if isinstance(found, dict) else None
    return None


def _is_harmful(path: str) -> bool:
    if path in USUAL_NAMES:
        return False
    module, _, within = path.partition(":")
    # A dotted name may reach other modules that the first one has imported.
    steps = within.split(".")
    return (
        path in HARMFUL
        or path.startswith(HARMFUL_PACKAGES)
        or any(step.startswith("__") for step in steps)
        or _is_unusual_library(module if within else path.rpartition(".")[0])
        or _is_unusual_library(steps[0])
    )


def _is_unusual_library(module: str) -> bool:
    """Return whether a module belongs to the standard library but never to checkpoints."""
    root, _, inside = module.partition(".")
    if root not in sys.stdlib_module_names or root in USUAL_MODULES:
        return False
    return not inside or root in PACKAGES


def _is_known(instance: Inert) -> bool:
    path = instance.path
    return (
        path in (CALLED if instance.called else MADE)
        and not (instance.items and path not in APPENDED)
        and not (instance.entries and path not in SET_BY_KEY)
        and not (instance.args and path in EMPTY)
        and not (path in TEXTS and [type(arg) for arg in instance.args] != [str])
        and _has_known_state(instance)
    )


def _has_known_state(instance: Inert) -> bool:
    """Return whether `instance.attributes` gives all of its state."""
    state = instance.state
    if type(state) is tuple and instance.path not in MODULE_PATHS:
        slots = len(state) == 2 and all(part is None or isinstance(part, dict) for part in state)
        return slots or instance.path.startswith("numpy.")  # see is_plain_numpy
    return state is None or isinstance(state, dict)


def _plain(value: Any, left: list[int], depth: int = 6) -> Any:
    """Return a copy of plain data; `_NOT_PLAIN` where a part is something else or too many."""
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        return _NOT_PLAIN
    if value is None or type(value) in (bool, str, int, float):
        return value
    if type(value) in (list, tuple):
        parts = [_plain(part, left, depth - 1) for part in value]
        return _NOT_PLAIN if any(part is _NOT_PLAIN for part in parts) else parts
    if isinstance(value, dict):
        entries = {str(key): _plain(part, left, depth - 1) for key, part in value.items()}
        return _NOT_PLAIN if any(part is _NOT_PLAIN for part in entries.values()) else entries
    return _NOT_PLAIN


def _descriptions(instances: Iterable[Inert]) -> Iterator[Any]:
    for instance in instances:
        if instance.path in MODULE_PATHS:
            attributes = instance.attributes
            # An attribute of a module may also be stored in one of these.
            inner = (attributes.get(part) for part in ("_parameters", "_buffers", "_modules"))
            for holder in (attributes, *inner):
                if isinstance(holder, dict) and "yaml" in holder:
                    yield holder["yaml"]


def _run_by_one(description: Any, seen: set[int]) -> Iterator[str]:
    if not isinstance(description, dict):  # for example a file name, which it would download
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
