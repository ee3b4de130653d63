"""How the network of a task is run: its precision, the output to score, and its BatchNorm layers.

The default precision is float32. A network that will be served in a half type can be evaluated in
it: with its weights cast, or by torch's autocast, which keeps the weights and computes most layers
in it.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from soupcore.errors import TaskError

Precision = Literal["float32", "bfloat16", "float16", "bfloat16 autocast", "float16 autocast"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision: object, where: str) -> None:
    """Check that a precision is one of `Precision`.

    Raises:
        TaskError: The precision is unknown.
    """
    if precision not in get_args(Precision):
        raise TaskError(
            f"The `precision` of {where} must be one of {', '.join(get_args(Precision))}, not "
            f"{precision!r}."
        )


def cast_dtype(precision: Precision) -> torch.dtype | None:
    """Return the dtype to cast weights and inputs to; None to leave them unchanged."""
    return _DTYPES.get(precision)


def autocast_dtype(precision: Precision) -> torch.dtype | None:
    """Return the dtype of autocast; None without autocast."""
    name, _, how = precision.partition(" ")
    return _DTYPES[name] if how else None


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers of a network that have running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


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
