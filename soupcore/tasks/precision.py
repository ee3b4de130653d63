"""Precision of evaluation.

The default is float32. A network that will be served in a half type can be evaluated in it: with
its weights cast, or by torch's autocast, which keeps the weights and computes most layers in it.
"""

from typing import Literal, get_args

import torch

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
