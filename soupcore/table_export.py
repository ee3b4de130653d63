"""Tables as text: CSV and JSON Lines for programs, LaTeX and Markdown for papers."""

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from soupcore import escaping

if TYPE_CHECKING:
    import pandas as pd

TableForm = Literal["CSV", "JSONL", "LaTeX", "Markdown"]
SUFFIXES: Mapping[TableForm, str] = {
    "CSV": ".csv",
    "JSONL": ".jsonl",
    "LaTeX": ".tex",
    "Markdown": ".md",
}

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_DIGITS = 6  # significant ones of a number without given decimals


def export_table(
    table: "pd.DataFrame",
    form: TableForm,
    *,
    units: Mapping[str, str] | None = None,
    decimals: Mapping[str, int] | None = None,
) -> str:
    """Return a table as text.

    Args:
        table: The table. A named index becomes the first columns; levels of columns are joined.
        form: `CSV` and `JSONL` have all digits, and JSONL has null for NaN. `LaTeX` (for the
            package booktabs) and `Markdown` have rounded numbers, and – for missing values.
        units: `{column: unit}`, which follows the name of the column: `accuracy, %`.
        decimals: `{column: decimals}` of LaTeX and Markdown; by default, six significant digits.

    Raises:
        ValueError: The form is unknown.
    """
    if form not in get_args(TableForm):
        raise ValueError(f"Unknown form {form!r}; available: {', '.join(get_args(TableForm))}.")
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    names = [_joined(column) for column in table.columns]
    heads = [f"{name}, {units[name]}" if units and name in units else name for name in names]
    flat = table.set_axis(heads, axis=1)
    if form == "CSV":
        text: str = flat.to_csv(index=False)
        return text
    rows = [[_plain(value) for value in row] for row in flat.itertuples(index=False, name=None)]
    if form == "JSONL":
        lines = [json.dumps(dict(zip(heads, row, strict=True)), ensure_ascii=False) for row in rows]
        return "".join(f"{line}\n" for line in lines)
    places = [(decimals or {}).get(name) for name in names]
    cells = [[_shown(v, d) for v, d in zip(row, places, strict=True)] for row in rows]
    numeric = [
        any(_is_number(row[i]) for row in rows)
        and all(row[i] is None or _is_number(row[i]) for row in rows)
        for i in range(len(heads))
    ]
    return (_latex if form == "LaTeX" else _markdown)(heads, cells, numeric)


def _latex(heads: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    def line(cells: list[str]) -> str:
        return " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in cells) + r" \\"

    columns = "".join("r" if is_number else "l" for is_number in numeric)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            line(heads),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _markdown(heads: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rule = ["---:" if is_number else "---" for is_number in numeric]
    texts = [
        [
            c if is_number else escaping.markdown(c)
            for c, is_number in zip(row, numeric, strict=True)
        ]
        for row in rows
    ]
    return "\n".join([*map(line, [list(map(escaping.markdown, heads)), rule, *texts]), ""])


def _joined(column: Any) -> str:
    parts = column if isinstance(column, tuple) else (column,)
    return re.sub(r"\s+", " ", ": ".join(str(part) for part in parts if str(part)))


def _plain(value: Any) -> Any:
    """Return a cell as a plain value of Python; None if it is missing."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None if value is None or math.isnan(value) else str(value)
    return value if isinstance(value, str | int | float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any, decimals: int | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) or (decimals is not None and _is_number(value)):
        return f"{value:.{_DIGITS}g}" if decimals is None else f"{value:.{decimals}f}"
    return re.sub(r"\s+", " ", str(value))
