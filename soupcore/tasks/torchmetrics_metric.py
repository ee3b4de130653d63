"""Metrics of torchmetrics in tasks.

torchmetrics is not required: its objects are recognised by their base class, without an import.
"""

import sys
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks.metrics import Metric, Source


class _Stateful(Protocol):
    """The interface used of a `torchmetrics.Metric`."""

    higher_is_better: bool | None
    plot_lower_bound: float | None
    plot_upper_bound: float | None

    def clone(self) -> "_Stateful": ...
    def reset(self) -> None: ...
    def update(self, preds: Tensor, target: Tensor) -> None: ...
    def compute(self) -> Any: ...


def is_torchmetric(metric: object) -> bool:
    """Return whether an object is a metric of torchmetrics."""
    module = sys.modules.get("torchmetrics")
    return module is not None and isinstance(metric, module.Metric)


def from_torchmetrics(
    metric: Any,
    name: str = "",
    *,
    of_classes: bool = False,
    higher_is_better: bool | None = None,
    unit: str = "",
) -> Metric:
    """Convert a metric of torchmetrics.

    Each computation clones and resets it, and updates it once with all examples of a split.
    `update` gets the targets and, in a classification, the probabilities of the classes (of the
    second class for a metric called `Binary…`), otherwise the predictions of the task.

    Args:
        metric: A `torchmetrics.Metric` whose `update` takes predictions and targets, and whose
            value is one number.
        name: Name for display; the name of its class by default.
        of_classes: Whether the outputs of the task are logits of classes.
        higher_is_better: Whether higher values are better, if the metric does not define it.
        unit: Unit of a value, such as "K".

    Raises:
        TaskError: Neither the metric nor `higher_is_better` defines which values are better.
    """
    stateful, kind = cast("_Stateful", metric), type(metric).__name__
    if higher_is_better is None:
        higher_is_better = stateful.higher_is_better
    if higher_is_better is None:
        raise TaskError(
            f"The torchmetrics metric {kind} does not define whether higher values are better. "
            "Pass `soupcore.tasks.from_torchmetrics(metric, higher_is_better=…)` instead."
        )
    low, high = stateful.plot_lower_bound, stateful.plot_upper_bound
    source: Source = "outputs" if of_classes else "predictions"
    return Metric(
        name or kind,
        higher_is_better,
        None if low is None or high is None else (float(low), float(high)),
        unit,
        compute=_computed(stateful, kind, of_classes=of_classes),
        source=source,
        definition=_definition(metric),
    )


def _computed(
    metric: _Stateful, kind: str, *, of_classes: bool
) -> Callable[[Tensor, Tensor], float]:
    own = metric.clone()
    own.reset()  # discard the state of other updates

    def compute(given: Tensor, targets: Tensor) -> float:
        if of_classes:
            given = given.double().softmax(1)
            given = given[:, 1] if kind.startswith("Binary") and given.shape[1] == 2 else given
        fresh = own.clone()
        with torch.inference_mode():
            fresh.update(given, targets)
            value = fresh.compute()
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise TypeError("its value is not one number; choose an `average`")
        return float(value)

    return compute


def _definition(metric: Any) -> str:
    """Return the class and the settings of a metric."""
    kinds = bool | int | float | str | None
    settings = {
        name: value
        for name, value in sorted(vars(metric).items())
        if isinstance(value, kinds) and not name.startswith("_") and name != "training"
    }
    return f"{type(metric).__module__}.{type(metric).__qualname__} {settings}"
