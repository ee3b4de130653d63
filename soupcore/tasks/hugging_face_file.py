"""The file that describes a task of a Hugging Face network, and the tables that it names.

Its form is in `soupcore.tasks.hugging_face`.
"""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.new_files import new_file
from soupcore.tasks.description import Role
from soupcore.tasks.splits import Split
from soupcore.tasks.toml_file import COMMON_KEYS, TomlFile, json_object, read_text

if TYPE_CHECKING:
    import pandas as pd

_KEYS = {
    "task", "model", "tokenizer", "text", "image", "label", "metrics", "max_length", "block",
    "seed", "columns", "splits", "name", "group", "weight", *COMMON_KEYS,
}  # fmt: skip
_READ = (".json", ".txt", ".model", ".jinja")  # files of a network's folder that are read


class Description(TomlFile):
    """A TOML file that describes a task of a network of Hugging Face.

    Attributes:
        model: The folder with config.json.
        tokenizer: The folder of the tokenizer.
        config: The contents of config.json.
        identity: A digest of this file and of config.json: 64 hex digits.

    Raises:
        TaskError: The file is invalid, or there is no config.json, or it is not a JSON object.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _KEYS)
        self.model = path.parent / self.text("model")
        self.tokenizer = path.parent / self.text(
            "tokenizer" if "tokenizer" in self.settings else "model"
        )
        config = self.model / "config.json"
        if not config.is_file():
            raise TaskError(
                f"{path}: {config} does not exist. Give as `model` a folder with the config.json "
                "and the tokenizer of the runs, relative to this file."
            )
        text = read_text(config)
        self.config = json_object(config, text)
        self.identity = self.digest(text)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return self.texts("metrics")

    @property
    def class_numbers(self) -> dict[str, int]:
        """The numbers of the classes or tags by their names in config.json; empty without names."""
        return {str(name): number for name, number in (self.config.get("label2id") or {}).items()}

    @property
    def columns(self) -> list[str]:
        """The columns of the texts: one, or two for pairs."""
        found = self.settings.get("text")
        columns = [found] if isinstance(found, str) else found
        if not isinstance(columns, list) or not 1 <= len(columns) <= 2:
            raise TaskError(f"{self.path} needs `text`, the name of one column or a list of two.")
        return columns

    def groups(self, table: "pd.DataFrame") -> list[Any] | None:
        """Return the group of each row; None without a column of groups."""
        return table[self.text("group")].tolist() if "group" in self.settings else None

    def weights(self, table: "pd.DataFrame") -> Tensor | None:
        """Return the weight of each row, float64; None without a column of weights."""
        if "weight" not in self.settings:
            return None
        column = self.text("weight")
        try:
            return torch.tensor([float(weight) for weight in table[column]], dtype=torch.float64)
        except (TypeError, ValueError):
            raise TaskError(
                f"{self.path}: the column {column!r} contains a weight that is not a number."
            ) from None

    def make_splits(self, make: Callable[[Role, "pd.DataFrame"], Split]) -> dict[str, Split]:
        """Return the splits, each made from its table by `make`."""
        return self.held_out(
            {name: make(role, table) for name, (role, table, _) in self.tables().items()}
        )

    def tables(self) -> "dict[str, tuple[Role, pd.DataFrame, Path]]":
        """Return the role of each split, its table, and the file of the table."""
        found = self.splits("file", "data.csv")
        return {name: (role, self._table(path), path) for name, (role, path) in found.items()}

    def _table(self, path: Path) -> "pd.DataFrame":
        table = _read_table(path, self.texts("columns"))
        wanted = [*self.columns] if "text" in self.settings else []
        wanted += [
            self.text(key) for key in ("image", "label", "group", "weight") if key in self.settings
        ]
        missing = [column for column in wanted if column not in table]
        if missing:
            raise TaskError(
                f"{path} has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(str, table))}."
            )
        if table.empty:
            raise TaskError(f"{path} has no rows.")
        return table


def write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write a description, with absolute paths or paths relative to the file.

    Args:
        path: The TOML file, which is replaced.
        settings: Texts, lists of texts, numbers; and `splits`, `{name: {"file": path, "role":
            role}}`.

    Raises:
        TaskError: A text contains characters that TOML does not allow.
    """
    lines = [f"{key} = {_toml(value)}" for key, value in settings.items() if key != "splits"]
    lines.append("[splits]")
    lines += [f"{_toml(name)} = {_toml(split)}" for name, split in settings["splits"].items()]
    text = "\n".join([*lines, ""])
    try:
        is_read = tomllib.loads(text) == dict(settings)
    except tomllib.TOMLDecodeError:
        is_read = False
    if not is_read:
        raise TaskError("A name or a path contains characters that TOML does not allow.")
    with new_file(path) as file:
        file.write(text.encode())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and lists are the same in TOML


def paths_of(path: Path) -> list[Path]:
    """Return the files that a description names: data, configurations and tokenizers.

    Raises:
        TaskError: The file is invalid.
    """
    description = Description(path)
    folders = dict.fromkeys((description.model, description.tokenizer))
    files = [file for _, file in description.splits("file", "data.csv").values()]
    read = [file for folder in folders for file in folder.glob("*") if file.suffix in _READ]
    return [*folders, *read, *files]


def columns_of(path: Path, names: Sequence[str] = ()) -> list[str]:
    """Return the columns of a data file, read from its first row.

    Args:
        path: A CSV, TSV, JSONL or Parquet file.
        names: The names of the columns of a CSV or TSV file without a header.

    Raises:
        TaskError: The file cannot be read.
    """
    return [str(column) for column in _read_table(path, names, rows=1)]


def _read_table(path: Path, names: Sequence[str], rows: int | None = None) -> "pd.DataFrame":
    """Return a table; only its first rows if their number is given."""
    import pandas as pd

    header: Any = {"header": None, "names": names} if names else {}
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": lambda file: pd.read_csv(file, keep_default_na=False, nrows=rows, **header),
        ".tsv": lambda file: pd.read_csv(
            file, sep="\t", keep_default_na=False, quoting=3, nrows=rows, **header
        ),
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False, nrows=rows),
        ".parquet": pd.read_parquet,
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise TaskError(f"{path} has an unsupported extension; use {', '.join(readers)}.")
    try:
        return read(path)
    except (OSError, ValueError, ImportError) as error:  # Parquet needs a package
        raise TaskError(f"{path} cannot be read: {error}") from error
