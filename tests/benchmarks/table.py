"""A plain table of what was measured: ours, the baseline's, and the ratio of the medians."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One figure, as measured in each run."""

    figure: str
    ours: Sequence[float]
    baseline: Sequence[float]


def table(rows: Sequence[Row], ours: str, baseline: str) -> list[str]:
    """Return the lines of a table; a ratio above 1 says that ours takes less."""
    cells = [("", ours, baseline, "ratio")]
    for row in rows:
        ratio = f"{median(row.baseline) / median(row.ours):.2f}"
        cells.append((row.figure, _spread(row.ours), _spread(row.baseline), ratio))
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        "   ".join([figure.ljust(first), *map(str.rjust, numbers, others)])
        for figure, *numbers in cells
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{_number(median(values))} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
