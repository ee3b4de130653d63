"""Tables of measurements as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One figure, measured in each run."""

    figure: str
    ours: Sequence[float]
    baseline: Sequence[float]


def table(rows: Sequence[Row], ours: str, baseline: str) -> list[str]:
    """Return the lines of a table. A ratio above 1 means that soupcore takes less."""
    cells = [("", ours, baseline, "ratio")]
    for row in rows:
        own = median(row.ours)
        ratio = f"{median(row.baseline) / own:.2f}" if own else "–"
        cells.append((row.figure, spread(row.ours), spread(row.baseline), ratio))
    return lines(cells)


def multiples(
    measured: Mapping[str, Sequence[float]], what: str, goals: Mapping[str, str]
) -> list[str]:
    """Return the lines of a table of several methods, each as a multiple of the first.

    Args:
        measured: Measurements of each method, one per run.
        what: The unit.
        goals: Goals for the multiple, for some methods.
    """
    baseline = next(iter(measured.values()))
    cells = [("", what, "× the first", "goal")]
    for way, values in measured.items():
        multiple = median(ours / theirs for ours, theirs in zip(values, baseline, strict=True))
        cells.append((way, spread(values), f"{multiple:.2f}", goals.get(way, "")))
    return lines(cells)


def lines(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of text in columns, the first left-aligned and the others right-aligned."""
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        "   ".join([figure.ljust(first), *map(str.rjust, numbers, others)]).rstrip()
        for figure, *numbers in cells
    ]


def spread(values: Sequence[float]) -> str:
    """Return median, lowest and highest."""
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Format a number with about three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
