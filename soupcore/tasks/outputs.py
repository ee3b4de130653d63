"""The one tensor that a network's outputs are about."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from soupcore.errors import TaskError


def tensor_of(outputs: Any) -> Tensor:
    """Return a network's outputs as one tensor.

    That is the tensor itself; the one called `logits` in a dict, a named tuple or a `ModelOutput`;
    or the only one in a dict, list or tuple.

    Raises:
        TaskError: There is no such tensor, or more than one could be meant.
    """
    if isinstance(outputs, Tensor):
        return outputs
    # A `ModelOutput` is both: a dict, and an object with attributes.
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else _logits(outputs)
    if isinstance(logits, Tensor):
        return logits
    held = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(held, list | tuple) and len(held) == 1 and isinstance(held[0], Tensor):
        return held[0]
    raise TaskError(
        f"The network returns {_in_words(outputs)}, and a task needs one tensor. Have "
        "`build_model` return a module that calls this network and returns the tensor to score; "
        "the prefix that this gives the names of the weights makes no difference."
    )


def _logits(outputs: Any) -> Any:
    return getattr(outputs, "logits", None)


def _in_words(outputs: Any) -> str:
    kind = type(outputs).__name__
    if isinstance(outputs, Mapping):
        return f"a {kind} with {', '.join(map(repr, outputs)) or 'nothing in it'}"
    if isinstance(outputs, list | tuple):
        return f"a {kind} of {len(outputs)} ({', '.join(type(each).__name__ for each in outputs)})"
    return "None" if outputs is None else f"a {kind}"
