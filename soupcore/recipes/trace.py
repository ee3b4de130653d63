"""What a recipe tells of its way: the steps it decided, the passes it learned in."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Step:
    """One decision of a recipe that goes through candidates.

    Attributes:
        candidate: Name of the ingredient that was tried.
        score: Score of the soup with it (without it, where it is to be dropped) on the split that
            was chosen on, or what that is at most.
        accepted: Whether it went in, or out where it is to be dropped.
        soup: Names in the soup after this step.
        gained: Examples that the soup tried gets right and the soup before did not.
        lost: Examples that it gets wrong and the soup before got right.
        action: What was tried: to `add` the candidate or to `drop` it.
        loss: Loss of the soup tried; NaN where it was not kept.
        is_bound: Whether it was rejected before it had seen all examples: its score is at most
            that, and gained and lost count what it had seen.
        examples: How many it had seen; 0 where that was not kept.
        interval: 95 % confidence interval of what accepting it gained (see
            `soupcore.evaluation.paired`): to know how sure it is, never to decide by. None for the
            first, and for what was rejected.
        p_value: That of McNemar's exact test of the same, None where the interval is.
    """

    candidate: str
    score: float
    accepted: bool
    soup: tuple[str, ...]
    gained: int
    lost: int
    action: Literal["add", "drop"] = "add"
    loss: float = math.nan
    is_bound: bool = False
    examples: int = 0
    interval: tuple[float, float] | None = None
    p_value: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON."""
        return _without_nan(asdict(self))

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Step":
        """Return the step that `to_json` described."""
        interval = body.get("interval")
        return cls(
            **_with_nan(body, "score", "loss")
            | {"soup": tuple(body["soup"]), "interval": tuple(interval) if interval else None}
        )


@dataclass(frozen=True)
class Pass:
    """One pass over the examples that coefficients are learned on.

    Attributes:
        number: 0 for the start, where all coefficients are equal.
        loss: Mean loss over the examples that are learned from.
        held_back_loss: That over the examples held back to know when to stop; NaN without any.
        held_back_score: Mean score over those.
        temperature: β, by which outputs are multiplied before the loss.
        best: Whether it is the best so far, and so the soup if learning stopped here.
    """

    number: int
    loss: float
    held_back_loss: float
    held_back_score: float
    temperature: float
    best: bool

    def to_json(self) -> dict[str, Any]:
        """Return the pass as JSON."""
        return _without_nan(asdict(self))

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Pass":
        """Return the pass that `to_json` described."""
        return cls(**_with_nan(body, "loss", "held_back_loss", "held_back_score", "temperature"))


# Takes the steps, or the passes, so far.
OnStep = Callable[[Sequence[Any]], None]


def no_step(trace: Sequence[Any]) -> None:
    """Take steps or passes as they come and do nothing with them."""


def none_if_nan(number: float) -> float | None:
    """Return the number as JSON has it, which has no NaN."""
    return None if math.isnan(number) else number


def _without_nan(body: dict[str, Any]) -> dict[str, Any]:
    return {k: none_if_nan(v) if isinstance(v, float) else v for k, v in body.items()}


def _with_nan(body: Mapping[str, Any], *numbers: str) -> dict[str, Any]:
    return {k: math.nan if k in numbers and v is None else v for k, v in body.items()}
