"""The tensor to score among a network's outputs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from soupcore.errors import TaskError


def tensor_of(outputs: Any) -> Tensor:
    """Return a network's outputs as one tensor.

    It is the output itself; or `logits` in a dict, a named tuple or a `ModelOutput`; or the only
    entry of a dict, list or tuple.

    Raises:
        TaskError: There is no such tensor, or the choice is ambiguous.
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
        f"The network returns {_in_words(outputs)}, but a task needs one tensor. Have "
        "`build_model` return a module that calls this network and returns the tensor to score. "
        "Stockpot ignores the prefix that this adds to the names of the weights."
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
