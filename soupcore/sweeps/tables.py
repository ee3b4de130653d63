"""Read tables, JSON and YAML files beside checkpoints, from spreadsheets, trackers and logs.

Such files may have semicolons or tabs, be in UTF-16 or start with a byte order mark, and contain
rows that are too short or cut off. Everything readable is read, and the rest is reported.
"""

import codecs
import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soupcore.checkpoints.names import clean

Scalar = str | int | float | bool | None

_LARGEST_FILE = 8 << 20  # bytes; parsing may take forty times as much memory
_LARGEST_YAML = 256 << 10  # bytes; its parser reads about 50 KiB per second
_MOST_COLUMNS = 1_000
_DEEPEST = 6  # levels of groups in YAML that become names with dots
_LONGEST_TEXT = 1_000  # characters of a value in YAML
_DELIMITERS = ",;\t|"
_MISSING = {"", "na", "n/a", "nan", "none", "null", "#n/a", "-nan", "<na>"}
_BOOLEANS = {"true": True, "false": False}
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)


class TableError(ValueError):
    """A table cannot be read. The message is a predicate that follows the name of the file."""


class Problems(list[str]):
    """Problems of a table that can be read in part, as predicates after the name of the file."""


@dataclass(frozen=True)
class Row:
    """A row of a table as `{column: value}`: raw, and as scalars."""

    raw: Mapping[str, Any]
    values: Mapping[str, Scalar]


def read_rows(path: Path, problems: Problems) -> list[Row]:
    """Read a table: CSV if the suffix is `.csv`, otherwise one JSON object per line.

    Args:
        path: The file.
        problems: Receives the problems found.

    Returns:
        The rows, each with its own columns.

    Raises:
        TableError: The file is too large or not a table.
    """
    text = _text(path, problems)
    rows = _csv_rows(text, problems) if path.suffix == ".csv" else _json_rows(text, problems)
    for row in rows:
        _check_columns(len(row.values))
    return rows


def read_log(path: Path, key: str, problems: Problems) -> list[Row]:
    """Read the list of objects under a key of a JSON object, such as `log_history`.

    Raises:
        TableError: The file is too large, or has no such list.
    """
    loaded = _json(_text(path, problems))
    entries = loaded.get(key) if isinstance(loaded, dict) else None
    if not isinstance(entries, list):
        raise TableError(f"has no list {key!r}")
    scalars = [_scalars(entry) for entry in entries if isinstance(entry, dict)]
    return [Row(values, values) for values in scalars]


def read_yaml(path: Path, problems: Problems) -> dict[str, Scalar]:
    """Read a YAML mapping; the names in groups are joined by dots.

    Every node is read as a string, a list or a mapping, whatever its tag: loggers write tags of
    Python objects, and SpeechBrain writes custom tags.

    Raises:
        TableError: The file is too large, or not a YAML mapping.
    """
    import yaml

    text = _text(path, problems, _LARGEST_YAML)
    try:
        # BaseLoader constructs no objects. The loader in C overflows its stack on deep nesting.
        loaded = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - it is safer than SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(getattr(error, "problem", "") or "it is nested too deep")
        raise TableError(f"is not YAML ({reason})") from None
    if not isinstance(loaded, dict):
        raise TableError("is not a YAML mapping")
    values: dict[str, Scalar] = {}
    _flatten(loaded, "", values, _DEEPEST)
    return values


def read_lines(path: Path, problems: Problems) -> dict[str, Scalar]:
    """Read lines of the form `name: value`.

    Raises:
        TableError: The file is too large.
    """
    lines = (line.partition(":") for line in _text(path, problems).splitlines())
    values = {clean(name.strip()): _of_yaml(text.strip()) for name, mark, text in lines if mark}
    _check_columns(len(values))
    return values


def _flatten(group: Mapping[Any, Any], prefix: str, values: dict[str, Scalar], depth: int) -> None:
    for key, value in group.items():
        name = f"{prefix}{clean(str(key))}"
        if isinstance(value, dict) and value.keys() <= {"value", "desc"} and "value" in value:
            value = value["value"]  # Weights & Biases
        if isinstance(value, dict) and value and depth > 1:
            _flatten(value, prefix if key == "<<" else f"{name}.", values, depth - 1)
        elif name not in values:
            values[name] = _of_yaml(value)
        _check_columns(len(values))


def _of_yaml(value: Any) -> Scalar:
    if not isinstance(value, str):
        # Aliases make a short text into a tree of any size, so only plain lists are written out.
        is_plain = isinstance(value, list) and all(isinstance(part, str) for part in value)
        text = f"[{', '.join(value)}]" if is_plain else f"({len(value)} entries)"
        return clean(text[:_LONGEST_TEXT])
    if value.lower() in ("", "~", "null", "none", ".nan"):
        return None
    return _BOOLEANS.get(value.lower(), _scalar(value[:_LONGEST_TEXT]))


def read_object(path: Path, problems: Problems) -> dict[str, Scalar]:
    """Read a JSON object, or the last object of a list, as in logs.

    Raises:
        TableError: The file is too large, or contains neither.
    """
    loaded = _json(_text(path, problems))
    if isinstance(loaded, list):
        entries = [entry for entry in loaded if isinstance(entry, dict)]
        if entries:
            if len(loaded) > 1:
                problems.append(f"contains a list of {len(loaded)}; its last entry is used")
            loaded = entries[-1]
    if not isinstance(loaded, dict):
        raise TableError("is not a JSON object of hyperparameters")
    _check_columns(len(loaded))
    return _scalars(loaded)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TableError(f"is not JSON ({error})") from None


def _text(path: Path, problems: Problems, largest: int = _LARGEST_FILE) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise TableError(f"cannot be read ({error.strerror})") from None
    if len(content) > largest:
        size = f"{largest >> 20} MiB" if largest >> 20 else f"{largest >> 10} KiB"
        raise TableError(f"has more than {size}, the limit for such files")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        problems.append("is not UTF-8 text and was read as Windows-1252")
        return content.decode("cp1252", "replace")


def _json_rows(text: str, problems: Problems) -> list[Row]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, list):
        lines = [(number, entry) for number, entry in enumerate(whole, start=1)]
    else:
        lines = [*_parsed_lines(text, problems)]
    rows = []
    for number, row in lines:
        if isinstance(row, dict):
            values = _scalars(row)
            rows.append(Row(dict(zip(values, row.values(), strict=False)), values))
        else:
            problems.append(f"line {number} is not a JSON object and was skipped")
    return rows


def _parsed_lines(text: str, problems: Problems) -> Iterable[tuple[int, Any]]:
    # Not splitlines: JSON strings may contain other line separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            problems.append(f"line {number} is not JSON and was skipped")


def _csv_rows(text: str, problems: Problems) -> list[Row]:
    header, _, _ = text.partition("\n")
    delimiter = max(_DELIMITERS, key=header.count)
    _check_columns(header.count(delimiter) + 1)
    try:
        lines = [line for line in csv.reader(text.splitlines(True), delimiter=delimiter) if line]
    except csv.Error as error:
        raise TableError(f"is not a CSV table ({error})") from None
    if not lines:
        raise TableError("is empty")
    columns = _unique_columns(lines[0], problems)
    ragged = [number for number, line in enumerate(lines, 1) if len(line) != len(columns)]
    if ragged:
        problems.append(
            f"has {len(columns)} columns, but row {ragged[0]} has {len(lines[ragged[0] - 1])} cells"
            + (f" (and {len(ragged) - 1} more such rows)" if len(ragged) > 1 else "")
        )
    cells = [[*line[: len(columns)], *[""] * (len(columns) - len(line))] for line in lines[1:]]
    values = [_typed([row[index] for row in cells]) for index in range(len(columns))]
    return [
        Row(dict(zip(columns, raw, strict=True)), dict(zip(columns, row, strict=True)))
        for raw, row in zip(cells, zip(*values, strict=True), strict=True)
    ]


def _unique_columns(header: Sequence[str], problems: Problems) -> list[str]:
    columns: dict[str, None] = {}
    for number, name in enumerate(header, start=1):
        column = first = clean(name.strip()) or f"column {number}"
        count = 1
        while column in columns:
            count += 1
            column = f"{first} ({count})"
        if count > 1:
            problems.append(f"has several columns {first!r}; one is renamed to {column!r}")
        columns[column] = None
    return [*columns]


def _typed(cells: Sequence[str]) -> list[Scalar]:
    """Return the cells of a column as numbers if all non-empty cells are numbers."""
    texts = [cell.strip() for cell in cells]
    filled = [text for text in texts if text.lower() not in _MISSING]
    convert: Callable[[str], Scalar] = clean
    if all(_INTEGER.fullmatch(text) for text in filled):
        convert = _integer
    elif all(_FLOAT.fullmatch(text) or _INFINITE.fullmatch(text) for text in filled):
        convert = _float
    elif all(text.lower() in _BOOLEANS for text in filled):
        convert = _boolean
    return [convert(text) if text.lower() not in _MISSING else None for text in texts]


def _scalars(row: dict[Any, Any]) -> dict[str, Scalar]:
    return {clean(str(key)): _scalar(value) for key, value in row.items()}


def _scalar(value: Any) -> Scalar:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return _integer(str(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, str):
        return clean(json.dumps(value, ensure_ascii=False))
    if _INTEGER.fullmatch(value):
        return _integer(value)
    # YAML parsers read 1e-4 as text, so it often ends up as text in JSON.
    return _float(value) if _FLOAT.fullmatch(value) else clean(value)


def _boolean(text: str) -> bool:
    return _BOOLEANS[text.lower()]


def _integer(text: str) -> int | str:
    """Return an integer; as text if it exceeds the 64 bits of a column in a data frame."""
    if len(text) > 20:
        return text
    return number if -(1 << 63) <= (number := int(text)) < 1 << 63 else text


def _float(text: str) -> Scalar:
    number = float(text)
    return number if math.isfinite(number) else None


def _check_columns(count: int) -> None:
    if count > _MOST_COLUMNS:
        raise TableError(f"has {count:,} columns; the limit is {_MOST_COLUMNS:,}")
