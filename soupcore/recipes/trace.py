"""The trace of a recipe: the decisions of greedy, the passes of learned soups."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Step:
    """One decision of a recipe that tries candidates.

    Attributes:
        candidate: Name of the ingredient tried.
        score: Score of the trial soup on the select split, or an upper bound of it (`is_bound`).
            The trial soup is the current soup with the candidate added or dropped.
        accepted: Whether the trial soup became the current soup.
        soup: Names in the soup after this step.
        gained: Number of examples that only the trial soup gets right, compared with the current
            soup. None unless all scores are 0 or 1.
        lost: Number of examples that only the current soup gets right; None as for `gained`.
        action: Whether the step tried to `add` or to `drop` the candidate.
        loss: Loss of the trial soup; NaN if it was not recorded.
        is_bound: Whether the candidate was rejected early. Its score is then an upper bound, and
            `gained` and `lost` count the evaluated examples.
        examples: Number of evaluated examples; 0 if it was not recorded.
        interval: 95 % confidence interval of the gain of an accepted step (see
            `soupcore.intervals`), for information only. None for the first step, for
            rejected candidates, and if there is no interval.
        p_value: P-value of McNemar's exact test of the same gain. None as for `interval`, and
            unless all scores are 0 or 1.
    """

    candidate: str
    score: float
    accepted: bool
    soup: tuple[str, ...]
    gained: int | None
    lost: int | None
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
        """Return the step from the JSON of `to_json`."""
        interval = body.get("interval")
        return cls(
            **_with_nan(body, "score", "loss")
            | {"soup": tuple(body["soup"]), "interval": tuple(interval) if interval else None}
        )


@dataclass(frozen=True)
class Pass:
    """One pass over the examples when learning coefficients.

    Attributes:
        number: Number of the pass; 0 is the start, with equal coefficients.
        loss: Mean loss over the train part, at `temperature`.
        held_back_loss: Mean loss over the held-out part; NaN without one. If β is learned, it is
            taken at the β that minimises it.
        held_back_score: Mean score over the held-out part; NaN without one.
        temperature: Current β, the factor of the outputs in the loss.
        best: Whether this pass is the best so far.
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
        """Return the pass from the JSON of `to_json`."""
        return cls(**_with_nan(body, "loss", "held_back_loss", "held_back_score", "temperature"))


# Called with all steps or passes so far.
OnStep = Callable[[Sequence[Any]], None]


def no_step(trace: Sequence[Any]) -> None:
    """Ignore the trace; the default of `on_step`."""


def none_if_nan(number: float) -> float | None:
    """Return the number, or None for NaN, which JSON does not have."""
    return None if math.isnan(number) else number


def _without_nan(body: dict[str, Any]) -> dict[str, Any]:
    return {k: none_if_nan(v) if isinstance(v, float) else v for k, v in body.items()}


def _with_nan(body: Mapping[str, Any], *numbers: str) -> dict[str, Any]:
    return {k: math.nan if k in numbers and v is None else v for k, v in body.items()}
