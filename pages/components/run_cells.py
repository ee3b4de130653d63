"""The text in the cells of the run table, which stay numbers so that they sort as numbers."""

from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from pages.components.run_table import INK, NAME, RunTable
from pages.components.soup_links import cell_text
from soupcore.tasks.unit import UNKNOWN

_THOUSAND, _MILLION, _LONGEST = 1e3, 1e6, 1e15


def styled(table: RunTable, frame: pd.DataFrame, rows: list[int]) -> Styler:
    """Return rows with the text of each cell. The browser sorts them by the numbers."""
    shown = frame.copy()
    for title, texts in table.texts.items():
        cells = [Cell(value, texts[row]) for value, row in zip(frame[title], rows, strict=True)]
        shown[title] = pd.Series(cells, dtype=object)
    shown[NAME] = shown[NAME].map(cell_text)
    forms: dict[str, Any] = {
        "text": _text,
        "score": _cell_text,
        "loss": number_text,
        "number": number_text,
        "count": number_text,
    }
    formats = {title: forms[column.form] for title, column in table.columns.items()}
    is_baseline = (frame[NAME] == table.baseline).tolist()

    def emphasised(column: "pd.Series[Any]") -> list[str]:
        return ["font-weight: bold" if each else "" for each in is_baseline]

    made: Styler = (
        shown.style.format(formats)
        .map(lambda ink: f"color: {ink}; background-color: {ink}", subset=[INK])
        .apply(emphasised, subset=[title for title in table.columns if title != INK])
    )
    return made


class Cell(float):
    """A number in a table with its own display text."""

    text: str

    def __new__(cls, value: float, text: str) -> "Cell":
        """Return the number with its text."""
        cell = super().__new__(cls, value)
        cell.text = text
        return cell


def _text(value: Any) -> str:
    return UNKNOWN if pd.isna(value) else str(value)


def _cell_text(value: Any) -> str:
    return value.text if isinstance(value, Cell) else UNKNOWN


def number_text(value: Any) -> str:
    """Return a number with three significant digits; whole numbers in full."""
    if pd.isna(value):
        return UNKNOWN
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.0f}" if _THOUSAND <= abs(value) < _MILLION else f"{value:.3g}"
    return str(int(value)) if abs(value) < _LONGEST else f"{float(value):.3g}"
