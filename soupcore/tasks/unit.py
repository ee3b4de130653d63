"""Formats of scores: values of the metric, as percentages if they are shares."""

import math
from dataclasses import dataclass, fields
from typing import Any

UNKNOWN = "–"
_PLAIN_DIGITS = 4
_DIFFERENCE_DIGITS = 3
_WHOLE = 1e4  # plain numbers of at least this magnitude have no decimals


@dataclass(frozen=True)
class Unit:
    """Format of the scores of a task.

    Higher scores are better. If lower values of the metric are better, the score is minus the
    value; the value is written.

    Attributes:
        is_share: Whether values are shares of 1. Shares are written as percentages and their
            differences as percentage points (pp).
        sign: 1 if higher values are better, -1 if lower ones are.
        suffix: Unit of values that are not shares, such as "K".
        counts_errors: Whether 1 minus the score is an error rate, as for accuracies but not for F1
            or mAP.
    """

    is_share: bool
    sign: int = 1
    suffix: str = ""
    counts_errors: bool = False

    @property
    def factor(self) -> float:
        """Factor from a score to its written value."""
        return self.sign * self.scale

    @property
    def scale(self) -> float:
        """Factor from a gain to its written value: positive is better."""
        return 100.0 if self.is_share else 1.0

    @property
    def bound(self) -> str:
        """Sign before a value that bounds a score from above."""
        return "≤" if self.sign == 1 else "≥"

    @property
    def decimals(self) -> int | None:
        """Decimals in a cell of a figure; None for three significant digits."""
        return 2 if self.is_share else None

    @property
    def symbol(self) -> str:
        """Symbol after a score."""
        return " %" if self.is_share else self._suffix

    @property
    def difference_symbol(self) -> str:
        """Symbol after a difference of scores."""
        return " pp" if self.is_share else self._suffix

    def number(self, score: float | None) -> str:
        """Return a score without its unit, such as 86.30; a dash if unknown."""
        if score is None or not math.isfinite(score):
            return UNKNOWN
        value = self.factor * score + 0.0  # no "-0.00"
        return f"{value:.2f}" if self.is_share else _plain(value)

    def cell(self, score: object) -> str:
        """Return the text of a table cell with a score times `factor`."""
        return self.number(self._unscaled(score))

    def difference_cell(self, difference: object) -> str:
        """Return the text of a table cell with a difference times `factor`."""
        return self.difference(self._unscaled(difference))

    def text(self, score: float | None) -> str:
        """Return a score with its unit, such as 86.30 %."""
        return _with(self.number(score), self.symbol)

    def difference(self, difference: float | None) -> str:
        """Return a difference of scores with its sign and without its unit, such as +0.42."""
        return self._signed(difference, self.factor)

    def difference_interval(self, ends: tuple[float, float] | None) -> str:
        """Return an interval of differences, such as "+0.10 to +0.42".

        A dash stands for no interval, and for zero width, which would suggest certainty.
        """
        if ends is None or not ends[0] < ends[1]:
            return UNKNOWN
        low, high = ends[:: self.sign]
        return f"{self.difference(low)} to {self.difference(high)}"

    def gain(self, difference: float | None) -> str:
        """Return a difference of scores as a gain, without its unit: positive is better."""
        return self._signed(difference, self.scale)

    def difference_text(self, difference: float | None) -> str:
        """Return a difference of scores with its sign and unit, such as +0.42 pp."""
        return _with(self.difference(difference), self.difference_symbol)

    def gap(self, difference: float | None) -> str:
        """Return the advantage of one score over another, such as 0.42 pp."""
        return _with(self.gain(difference).removeprefix("+"), self.difference_symbol)

    def label(self, what: str) -> str:
        """Return the title of an axis or a column of scores, such as "accuracy, %"."""
        return f"{what}, {self.symbol.strip()}" if self.symbol else what

    def difference_label(self, what: str) -> str:
        """Return the title of an axis or a column of differences of scores."""
        return f"{what}, {self.difference_symbol.strip()}" if self.symbol else what

    def hover(self, variable: str) -> str:
        """Return plotly's hover template for a score times `factor`."""
        digits = ".2f" if self.is_share else f".{_PLAIN_DIGITS}g"
        return f"%{{{variable}:{digits}}}{self.symbol}"

    def difference_hover(self, variable: str) -> str:
        """Return plotly's hover template for a difference times `factor`."""
        digits = "+.2f" if self.is_share else f"+.{_DIFFERENCE_DIGITS}g"
        return f"%{{{variable}:{digits}}}{self.difference_symbol}"

    def _signed(self, difference: float | None, factor: float) -> str:
        if difference is None or not math.isfinite(difference):
            return UNKNOWN
        value = factor * difference + 0.0  # no "-0.00"
        if self.is_share:
            return f"{value:+.2f}"
        return f"{'' if value < 0 else '+'}{_plain(value, _DIFFERENCE_DIGITS)}"

    @property
    def _suffix(self) -> str:
        return f" {self.suffix}" if self.suffix else ""

    def _unscaled(self, value: object) -> float | None:
        return value / self.factor if isinstance(value, int | float) else None


SHARE = Unit(is_share=True, counts_errors=True)
PLAIN = Unit(is_share=False)


@dataclass(frozen=True)
class Labels:
    """The names of a task's loss and score, and the unit of the score."""

    loss_name: str = "loss"
    score_name: str = "score"
    score_unit: Unit = PLAIN

    @property
    def for_figures(self) -> dict[str, Any]:
        """The labels as keyword arguments of functions in `soupcore.figures`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _with(number: str, unit: str) -> str:
    return number if number == UNKNOWN else number + unit


def _plain(value: float, digits: int = _PLAIN_DIGITS) -> str:
    if _WHOLE <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


NO_LABELS = Labels()
