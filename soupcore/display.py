"""Numbers, sizes and names as text, and HTML tables for notebooks."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import islice

from soupcore import escaping

_MOST_ROWS = 60  # more rows push the next cell of the notebook out of view


def html_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, note: str = ""
) -> str:
    """Return a small table as HTML. All text is escaped.

    Args:
        title: Text above the table.
        columns: Column headers.
        rows: Cells. Numbers are rounded to four significant digits and right-aligned.
        note: Text below the table.
    """
    remaining = iter(rows)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in islice(remaining, _MOST_ROWS))
    if more := sum(1 for _ in remaining):
        body += f'<tr><td colspan="{len(columns)}">… and {more} more</td></tr>'
    head = "".join(f'<th style="text-align:left">{escaping.html(c)}</th>' for c in columns)
    below = f"<p>{escaping.html(note)}</p>" if note else ""
    return (
        f"<p><b>{escaping.html(title)}</b></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"
    )


def number(value: float | Fraction) -> str:
    """Format a number with four significant digits; a dash if it is NaN."""
    value = float(value)
    return "–" if math.isnan(value) else f"{value:.4g}"


def in_words(nbytes: float) -> str:
    """Return a size in bytes with a unit, such as `1.5 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 ingredient" or "1,200 ingredients"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def capitalised(text: str) -> str:
    """Return a text with a capital first letter, unless its first word has capitals, as `mAP`."""
    first = text.partition(" ")[0]
    return text if first[1:].lower() != first[1:] else text[:1].upper() + text[1:]


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value) if isinstance(value, int) else number(value)
        return f'<td style="text-align:right">{text}</td>'
    text = "" if value is None else str(value)
    return f'<td style="text-align:left">{escaping.html(text)}</td>'
