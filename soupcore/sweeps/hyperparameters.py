"""Hyperparameters and logged metrics of the runs, from tables and sidecar files beside them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from soupcore.checkpoints.names import clean
from soupcore.checkpoints.recognition import stem_of
from soupcore.display import counted
from soupcore.remote import is_url
from soupcore.remote.urls import scheme_of, without_credentials
from soupcore.sweeps.findings import Finding, some
from soupcore.sweeps.run_files import RunDetails, split_scores
from soupcore.sweeps.tables import Problems, Row, Scalar, TableError, read_object, read_rows

Values = Mapping[str, Scalar]
_Find = Callable[[str], str | None]

TABLES = ("sweep.jsonl", "sweep.csv")
# Columns that may name the checkpoint of a row, in upper or lower case. The one that names the most
# checkpoints is used, or the first of several here.
_NAME_COLUMNS = (
    "checkpoint", "name", "file", "filename", "path", "url", "uri", "run", "run_name", "run name",
    "tags.mlflow.runname", "model", "id",
)  # fmt: skip
# Columns whose text becomes the name of a checkpoint if the row names it by a URL.
_TITLE_COLUMNS = ("name", "run", "run_name", "run name", "tags.mlflow.runname")
# Tables link to pages of trackers, and a table from elsewhere must not name other local files.
_NO_CHECKPOINTS = ("file", "http", "https", "local")
_MOST_DETAILS = 12
_MOST_LOGGED = 6
_MOST_FINDINGS = 20  # more rows without a checkpoint become one finding


@dataclass(frozen=True)
class UrlRow:
    """A row of a sweep's table that names a checkpoint by a URL.

    Attributes:
        text: The URL in the table, perhaps as `NAME=URL`.
        title: The name of the checkpoint in another column; empty if there is none.
        here: A checkpoint in the sweep's folder that the row also names, such as a copy.
    """

    text: str
    title: str
    here: str | None


@dataclass
class Sidecars:
    """The contents of tables and sidecar files.

    Attributes:
        rows: `{ingredient: {column: value}}` of the ingredients described.
        origins: `{ingredient: file}`, the file of each row.
        exports: Rows of other tables that name ingredients, as `(file, rows)`.
        findings: Contents that could not be read or belong to no checkpoint.
        files: Names of the files.
    """

    rows: dict[str, dict[str, Scalar]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    exports: list[tuple[str, dict[str, dict[str, Scalar]]]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    files: set[str] = field(default_factory=set)

    def describe(self, name: str) -> RunDetails:
        """Return the hyperparameters of an ingredient from tables and sidecars."""
        found = RunDetails()
        if name in self.rows:
            found.add(*split_scores(self.rows[name]), self.origins[name])
        for file, rows in self.exports:
            if name in rows:
                found.add(*_split_export(rows[name]), file)
        return found


def read_sidecars(
    folder: Path,
    paths: Mapping[str, Path],
    is_allowed: Callable[[Path], bool] = lambda path: True,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> Sidecars:
    """Read hyperparameters from `sweep.jsonl` or `sweep.csv`, and from `<name>.json`.

    Other CSV files count if they name checkpoints, as exports of Weights & Biases and MLflow do.

    A faulty file never prevents a sweep from opening. Contents that cannot be read become findings.

    Args:
        folder: The sweep's folder.
        paths: `{ingredient: file or folder}`.
        is_allowed: Whether a file may be read, as links may leave the allowed folders.
        labels: `{text: ingredient}` of further texts that name ingredients, such as URLs.
    """
    find = _finder(paths, labels)
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    sidecars = _read_table([table for table in tables if is_allowed(table)], find)
    sidecars.origins = dict.fromkeys(sidecars.rows, tables[0].name) if tables else {}
    exports = [path for path in sorted(folder.glob("*.csv")) if path.name not in TABLES]
    _read_exports(sidecars, [path for path in exports if is_allowed(path)], find)
    for name, path in paths.items():
        stem = path.name if path.is_dir() else stem_of(path)
        stems = dict.fromkeys((name.rpartition("/")[2], stem))
        candidates = [path.with_name(f"{each}.json") for each in stems]
        sidecar = next((file for file in candidates if file.is_file()), None)
        if sidecar is None or not is_allowed(sidecar):
            continue
        sidecars.files.add(clean(sidecar.name))
        if name in sidecars.rows:
            continue
        problems = Problems()
        try:
            sidecars.rows[name] = read_object(sidecar, problems)
            sidecars.origins[name] = clean(sidecar.name)
        except TableError as error:
            problems.append(str(error))
        way_out = "Fix or remove it. It should contain a JSON object of hyperparameters."
        sidecars.findings += [
            Finding("warning", name, "", f"{clean(sidecar.name)} {problem}", way_out)
            for problem in problems
        ]
    return sidecars


def read_urls(
    folder: Path,
    paths: Mapping[str, Path],
    is_allowed: Callable[[Path], bool] = lambda path: True,
) -> tuple[str, list[UrlRow]]:
    """Return the name of a sweep's table, and its rows that name checkpoints by URLs.

    Args:
        folder: The sweep's folder.
        paths: `{ingredient: file or folder}` of the checkpoints in it.
        is_allowed: See `read_sidecars`.
    """
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None or not is_allowed(table):
        return "", []
    try:
        rows = read_rows(table, Problems())
    except TableError:  # `read_sidecars` reports it
        return "", []
    find = _finder(paths, {})
    owners = [name for _, name, _ in _owners(rows, find)]
    found = []
    for row, owner in zip(rows, owners, strict=True):
        cells = {column.lower(): _label(value) for column, value in row.raw.items()}
        texts = [text for text in map(cells.get, _NAME_COLUMNS) if text and _names_weights(text)]
        titles = (cells.get(column, "") for column in _TITLE_COLUMNS)
        title = next((each for each in titles if each and not is_url(each)), "")
        if texts:
            found.append(UrlRow(texts[0], title, find(title) or owner))
    # A file such as best.pt can be a copy of at most one of several such URLs.
    counts = Counter(row.here for row in found if not find(row.title))
    return table.name, [
        replace(row, here=None) if counts[row.here] > 1 and not find(row.title) else row
        for row in found
    ]


def _names_weights(text: str) -> bool:
    return is_url(text) and scheme_of(text) not in _NO_CHECKPOINTS


def choose_columns(described: Sequence[Values], others: Sequence[Values]) -> list[str]:
    """Choose the hyperparameters that the table of ingredients shows.

    Args:
        described: Hyperparameters of each ingredient from tables and sidecars. All become columns.
        others: Hyperparameters from the files of the runs and the checkpoints, often a hundred
            arguments. The first twelve that vary become columns, numbers before text.
    """
    named = dict.fromkeys(key for row in described for key in row)
    varying = _varying(others, named)
    varying.sort(key=lambda key: any(isinstance(row.get(key), str) for row in others))
    return [*named, *varying[:_MOST_DETAILS]]


def choose_logged(logged: Sequence[Values]) -> list[str]:
    """Choose the logged metrics that the table of ingredients shows.

    These are the first six that vary: scores before losses, and validation before training.
    """
    varying = _varying(logged, {})

    def rank(name: str) -> tuple[bool, bool, bool]:
        _, scores = split_scores({name: 0.5})
        return not scores, "train" in name.lower(), "loss" in name.lower()

    return sorted(varying, key=rank)[:_MOST_LOGGED]


def _varying(rows: Sequence[Values], known: Collection[str]) -> list[str]:
    keys = dict.fromkeys(key for row in rows for key in row if key not in known)
    return [key for key in keys if len({repr(row.get(key)) for row in rows}) > 1]


def run_columns(names: Iterable[str], ours: Collection[str]) -> dict[str, str]:
    """Return column names for hyperparameters in a table that has other columns too.

    Args:
        names: The hyperparameters.
        ours: Names of the other columns.

    Returns:
        `{hyperparameter: column}`, all of them unique.
    """
    names = list(names)
    taken = {*ours, *names}
    found = {}
    for name in names:
        column = name
        while column in ours or (column != name and column in taken):
            column += " (run)"
        taken.add(column)
        found[name] = column
    return found


def _read_exports(sidecars: Sidecars, tables: Sequence[Path], find: _Find) -> None:
    """Read tables that name checkpoints of this folder; other CSV files have other purposes."""
    for path in tables:
        problems = Problems()
        try:
            rows = read_rows(path, problems)
        except TableError:
            continue
        owners = _owners(rows, find)
        named = {
            name: {key: value for key, value in row.values.items() if key != column}
            for row, (column, name, _) in zip(rows, owners, strict=True)
            if name is not None
        }
        if not named:
            continue
        sidecars.exports.append((clean(path.name), named))
        sidecars.files.add(path.name)
        gone = [without_credentials(label) for _, name, label in owners if name is None and label]
        if gone:
            problems.append(f"describes {len(gone)} runs that are not in this folder: {some(gone)}")
        sidecars.findings += [
            Finding("note", clean(path.name), "", problem, "Nothing to do if this is intended.")
            for problem in problems
        ]


def _split_export(row: Values) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Split a row of an export; MLflow marks parameters and metrics by a prefix."""
    plain = {key: value for key, value in row.items() if "." not in key}
    hyperparameters, logged = split_scores(plain)
    for key, value in row.items():
        kind, dot, name = key.partition(".")
        if dot and kind == "metrics":
            logged[name] = value
        elif dot and kind != "tags":
            hyperparameters[name if kind == "params" else key] = value
    return hyperparameters, logged


def _read_table(tables: Sequence[Path], find: _Find) -> Sidecars:
    """Read the first of the tables, and report that the others are not used."""
    sidecars = Sidecars(files={table.name for table in tables})
    if not tables:
        return sidecars
    path = tables[0]
    problems = Problems()
    try:
        rows = read_rows(path, problems)
    except TableError as error:
        rows = []
        problems.append(f"{error}, so it is not used")
    if len(tables) > 1:
        problems.append(f"is used instead of {tables[1].name}")
    owner = _owners(rows, find)
    _add_rows(sidecars, path.name, rows, owner)
    if rows and all(column is None for column, _, _ in owner):
        columns = ", ".join(map(repr, [*rows[0].raw][:3]))
        problems.append(
            f"has no column with names of checkpoints in this folder (columns: {columns}"
            + (", …)" if len(rows[0].raw) > 3 else ")")
        )
    sidecars.findings += [
        Finding("warning", path.name, "", problem, "Fix or remove it.") for problem in problems
    ]
    return sidecars


def _add_rows(
    sidecars: Sidecars,
    table: str,
    rows: Sequence[Row],
    owner: Sequence[tuple[str | None, str | None, str]],
) -> None:
    """Add the rows of a table; if a checkpoint has several, the last one counts."""
    counts = Counter(name for _, name, _ in owner if name is not None)
    gone: dict[str, None] = {}
    nameless = 0
    for row, (column, name, label) in zip(rows, owner, strict=True):
        if name is not None:
            sidecars.rows[name] = {key: v for key, v in row.values.items() if key != column}
        elif label:
            gone[without_credentials(label)] = None
        else:
            nameless += 1
    sidecars.findings += [
        Finding(
            "note",
            name,
            "",
            f"has {count} rows in {table}; the last one is used",
            "Nothing to do if this is intended. Otherwise keep one row per checkpoint.",
        )
        for name, count in counts.items()
        if count > 1
    ]
    way_out = "Copy the checkpoint here, or remove the row."
    if len(gone) > _MOST_FINDINGS:
        problem = f"describes {len(gone)} checkpoints that do not exist: {some([*gone])}"
        sidecars.findings.append(Finding("warning", table, "", problem, way_out))
    else:
        problem = "is described in the sweep's table, but there is no such checkpoint"
        sidecars.findings += [Finding("warning", label, "", problem, way_out) for label in gone]
    if nameless:
        rows_ = counted(nameless, "row")
        problem = f"has {rows_} without the name of a checkpoint"
        way_out = "Fill in the name, or remove the row."
        sidecars.findings.append(Finding("warning", table, "", problem, way_out))


def _owners(rows: Sequence[Row], find: _Find) -> list[tuple[str | None, str | None, str]]:
    """Return for each row the column that names its checkpoint, the ingredient, and the text there.

    If no column in `_NAME_COLUMNS` names a checkpoint, any other column that does is used.
    """
    naming: defaultdict[str, set[str]] = defaultdict(set)
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row.raw)
        for column, value in row.raw.items():
            naming[column].update(name for name in [find(_label(value))] if name is not None)
    named = {column: len(names) for column, names in naming.items()}
    rank = {name: index for index, name in enumerate(_NAME_COLUMNS)}
    order = sorted(
        (column for column in columns if column.lower() in rank),
        key=lambda column: (-named[column], rank[column.lower()]),
    )
    if not any(named[column] for column in order):
        order = sorted((c for c in columns if named[c]), key=lambda c: -named[c]) + order
    found: list[tuple[str | None, str | None, str]] = []
    for row in rows:
        labels = [(c, label) for c in order if c in row.raw and (label := _label(row.raw[c]))]
        label = labels[0][1] if labels else ""
        found.append((labels[0][0] if labels else None, find(label), label))
    return found


def _label(value: Any) -> str:
    is_label = isinstance(value, str | int) and not isinstance(value, bool)
    return clean(str(value)).strip() if is_label else ""


def _finder(paths: Mapping[str, Path], labels: Mapping[str, str]) -> _Find:
    """Return a function that finds the ingredient of a text: a name, a file, or a path to one."""
    by_label: defaultdict[str, set[str]] = defaultdict(set)
    for name, path in paths.items():
        for label in (name, clean(path.name), clean(stem_of(path))):
            by_label[label].add(name)
    known = {label: next(iter(names)) for label, names in by_label.items() if len(names) == 1}
    known |= {clean(path.name): name for name, path in paths.items()} | {n: n for n in paths}
    known |= labels

    def find(label: str) -> str | None:
        if label in known:
            return known[label]
        for part in reversed(label.replace("\\", "/").split("/")):
            for text in (part, stem_of(Path(part))):
                if text and text in known:
                    return known[text]
        return None

    return find
