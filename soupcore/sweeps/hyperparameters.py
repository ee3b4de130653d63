"""What the files beside the checkpoints say of how each was trained."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soupcore.errors import SweepError

Scalar = str | int | float | bool | None
Row = Mapping[str, Scalar]

TABLES = ("sweep.jsonl", "sweep.csv")
_NAME_COLUMNS = ("checkpoint", "name")
_MOST_DETAILS = 12
_LARGEST_FILE = 8 << 20  # bytes; parsed, they may take forty times as many
_MOST_COLUMNS = 1_000


def read_table(folder: Path) -> dict[str, dict[str, Scalar]]:
    """Read `sweep.jsonl` or `sweep.csv`: `{checkpoint or name: hyperparameters}`.

    Raises:
        SweepError: There are both, or the file cannot be read or is too large, lacks a
            `checkpoint` or `name` column, or names a checkpoint twice.
    """
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if not tables:
        return {}
    if len(tables) > 1:
        raise SweepError(f"{folder} has both {' and '.join(TABLES)}; keep one of them.")
    (path,) = tables
    rows = _read_jsonl(path) if path.suffix == ".jsonl" else _read_csv(path)
    found: dict[str, dict[str, Scalar]] = {}
    for number, row in enumerate(rows, start=1):
        column = next((column for column in _NAME_COLUMNS if column in row), None)
        if column is None or not isinstance(row[column], str):
            raise SweepError(
                f"{path}, row {number}: there is no text under 'checkpoint' or 'name', "
                "so it is unclear which checkpoint it describes."
            )
        name = row[column]
        if name in found:
            raise SweepError(f"{path}, row {number}: {name!r} stands in the table twice.")
        found[name] = _scalars(path, {key: row[key] for key in row if key != column})
    return found


def read_sidecar(path: Path) -> dict[str, Scalar]:
    """Read the hyperparameters in `<name>.json`, an object.

    Raises:
        SweepError: The file is not a JSON object, or too large.
    """
    try:
        loaded = json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{path} is not JSON ({error}); mend or remove it.") from None
    if not isinstance(loaded, dict):
        raise SweepError(f"{path} is not a JSON object of hyperparameters; mend or remove it.")
    return _scalars(path, loaded)


def with_details(told: Row, details: Row) -> dict[str, Scalar]:
    """Add what a checkpoint says of its run to what people say of it, who know better."""
    return {**told, **{key: value for key, value in details.items() if key not in told}}


def choose_columns(told: Sequence[Row], details: Sequence[Row]) -> list[str]:
    """Choose what is worth a column of the table of runs.

    Args:
        told: What tables and sidecars say of each run: all of it.
        details: What the checkpoints say of it, a hundred arguments often: the first twelve that
            are not the same in all, numbers before text.
    """
    named = dict.fromkeys(key for row in told for key in row)
    others = dict.fromkeys(key for row in details for key in row if key not in named)
    varying = [key for key in others if len({repr(row.get(key)) for row in details}) > 1]
    varying.sort(key=lambda key: any(isinstance(row.get(key), str) for row in details))
    return [*named, *varying[:_MOST_DETAILS]]


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        text = _content(path).decode()
    except UnicodeDecodeError as error:
        raise SweepError(f"{path} is not UTF-8 text ({error}); save it as such.") from None
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # JSON text may hold other breaks
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SweepError(f"{path}, line {number} is not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise SweepError(f"{path}, line {number} is not a JSON object.")
        rows.append(row)
    return rows


def _read_csv(path: Path) -> list[dict[str, Any]]:
    import pandas as pd  # here, as its import takes half a second and few sweeps have a CSV

    content = _content(path)
    _check_columns(path, max(line.count(b",") for line in content.split(b"\n")))
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=dict.fromkeys(_NAME_COLUMNS, str))
    except (ValueError, pd.errors.ParserError) as error:
        raise SweepError(f"{path} is not a CSV table ({error}).") from None
    return table.astype(object).where(table.notna(), None).to_dict("records")  # type: ignore[return-value]


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise SweepError(
            f"{path} has more than {_LARGEST_FILE >> 20} MiB, which no hyperparameters take; "
            "shorten or remove it."
        )
    return content


def _check_columns(path: Path, count: int) -> None:
    if count > _MOST_COLUMNS:
        raise SweepError(
            f"{path} tells {count:,} things of a run; {_MOST_COLUMNS:,} are possible. "
            "Shorten or remove it."
        )


def _scalars(path: Path, row: Mapping[str, Any]) -> dict[str, Scalar]:
    _check_columns(path, len(row))
    return {key: _scalar(value) for key, value in row.items()}


def _scalar(value: Any) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)
