"""HTML tables of results, as notebooks show them."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import islice

from soupcore import escaping

_MOST_ROWS = 60  # more of them hide the next cell of the notebook


def html_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, note: str = ""
) -> str:
    """Return a small table as HTML. All text is shown as it is and never as markup.

    Args:
        title: Text above the table.
        columns: Heads of the columns.
        rows: Cells. Numbers are rounded to four digits and aligned to the right.
        note: Text below the table.
    """
    several = iter(rows)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in islice(several, _MOST_ROWS))
    if more := sum(1 for _ in several):
        body += f'<tr><td colspan="{len(columns)}">… and {more} more</td></tr>'
    head = "".join(f'<th style="text-align:left">{escaping.html(c)}</th>' for c in columns)
    below = f"<p>{escaping.html(note)}</p>" if note else ""
    return (
        f"<p><b>{escaping.html(title)}</b></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"
    )


def number(value: float | Fraction) -> str:
    """Return a number with four digits; a dash if it is NaN."""
    value = float(value)
    return "–" if math.isnan(value) else f"{value:.4g}"


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value) if isinstance(value, int) else number(value)
        return f'<td style="text-align:right">{text}</td>'
    text = "" if value is None else str(value)
    return f'<td style="text-align:left">{escaping.html(text)}</td>'
