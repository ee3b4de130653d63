"""In which precision a task evaluates a network.

float32 unless told. Networks that are served in a half type are evaluated as they are served: with
weights cast to it, or by torch's autocast, which keeps the weights and computes most layers in it.
"""

from typing import Literal, get_args

import torch

from soupcore.errors import TaskError

Precision = Literal["float32", "bfloat16", "float16", "bfloat16 autocast", "float16 autocast"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision: object, where: str) -> None:
    """Make sure that a precision is one of `Precision`.

    Raises:
        TaskError: It is not.
    """
    if precision not in get_args(Precision):
        raise TaskError(
            f"The `precision` of {where} is one of {', '.join(get_args(Precision))}, not "
            f"{precision!r}."
        )


def cast_dtype(precision: Precision) -> torch.dtype | None:
    """Return the dtype that weights and inputs are cast to; None where they stay as they are."""
    return _DTYPES.get(precision)


def autocast_dtype(precision: Precision) -> torch.dtype | None:
    """Return the dtype that autocast computes in; None without autocast."""
    name, _, how = precision.partition(" ")
    return _DTYPES[name] if how else None
