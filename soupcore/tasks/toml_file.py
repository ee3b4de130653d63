"""TOML files that describe tasks, and the small text and JSON files that they name."""

import hashlib
import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from soupcore.errors import TaskError
from soupcore.tasks.description import Role
from soupcore.tasks.networks import Precision, check_precision
from soupcore.tasks.parts import hold_out
from soupcore.tasks.splits import Split

_MOST_BYTES = 1 << 20  # of a description, or a configuration beside weights

#: Roles of splits by their usual names.
ROLES: dict[str, Role] = {
    "train": "train", "select": "select", "val": "select", "validation": "select",
    "report": "report", "test": "report",
}  # fmt: skip

#: The keys of all descriptions of tasks with examples.
COMMON_KEYS = {"hold_out", "hold_out_seed", "precision"}


class TomlFile:
    """A TOML file that describes a task.

    Args:
        path: The file.
        keys: The known keys.

    Attributes:
        path: The file.
        settings: The parsed settings.

    Raises:
        TaskError: The file cannot be read, is not TOML, or has unknown keys.
    """

    def __init__(self, path: Path, keys: Collection[str]) -> None:
        self.path = path
        self._text = read_text(path)
        try:
            self.settings: dict[str, Any] = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            raise TaskError(f"{path} is not valid TOML: {error}.") from None
        self.check_keys(self.settings, keys)

    def check_keys(self, settings: Mapping[str, Any], known: Collection[str]) -> None:
        """Check that a table of the file has known keys only."""
        unknown = settings.keys() - set(known)
        if unknown:
            raise TaskError(
                f"{self.path}: unknown setting {', '.join(sorted(unknown))}; known settings: "
                f"{', '.join(sorted(known))}."
            )

    def text(self, key: str) -> str:
        """Return a setting that is a text."""
        value = self.settings.get(key)
        if not isinstance(value, str) or not value.strip():
            raise TaskError(f"{self.path} needs `{key}`, a text.")
        return value

    def number(self, key: str, default: int | None = None) -> int | None:
        """Return a setting that is a positive integer."""
        value = self.settings.get(key, default)
        if value is not None and (type(value) is not int or value < 1):
            raise TaskError(f"{self.path}: `{key}` must be an integer > 0, not {value!r}.")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a setting that is a list of texts; empty without it."""
        found = self.settings.get(key, [])
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise TaskError(f"{self.path}: `{key}` must be a list of texts.")
        return found

    @property
    def name(self) -> str:
        """Name of the task, for display."""
        return self.text("name") if "name" in self.settings else self.path.stem

    def splits(self, place: str, example: str) -> dict[str, tuple[Role, Path]]:
        """Return the role and the path of each split in the table [splits].

        Args:
            place: The key of the path in the table of a split, such as "file".
            example: An example of a path for messages, such as "data.csv".
        """
        found = self.settings.get("splits")
        if not isinstance(found, dict) or not found:
            raise TaskError(f'{self.path} needs a table [splits], such as select = "{example}".')
        splits = {}
        for name, entry in found.items():
            of = entry if isinstance(entry, dict) else {place: entry}
            default = "shift" if name.startswith("shift") else ROLES.get(name)
            role, path = of.get("role", default), of.get(place)
            if role not in get_args(Role) or not isinstance(path, str):
                raise TaskError(
                    f"{self.path}: the split {name!r} needs a {place} and a role, as in {name!r} = "
                    f'{{ {place} = "{example}", role = "{role or "report"}" }}; roles are '
                    f"{', '.join(get_args(Role))}."
                )
            splits[name] = (cast("Role", role), self.path.parent / path)
        return splits

    @property
    def precision(self) -> Precision:
        """Precision of evaluation; float32 by default."""
        found = self.settings.get("precision", "float32")
        check_precision(found, str(self.path))
        return cast("Precision", found)

    def held_out(self, splits: dict[str, Split]) -> dict[str, Split]:
        """Return the splits, with a part of the select split held out if `hold_out` is set.

        Raises:
            TaskError: The value is not between 0 and 1, or there is a report split.
        """
        seed = self.settings.get("hold_out_seed", 0)
        if "hold_out" not in self.settings:
            return splits
        share = self.settings["hold_out"]
        if type(share) not in (int, float) or type(seed) is not int:
            raise TaskError(
                f"{self.path}: `hold_out` must be a number between 0 and 1, and `hold_out_seed` an "
                "integer."
            )
        try:
            return hold_out(splits, share, seed)
        except TaskError as error:
            raise TaskError(f"{self.path}: `hold_out`: {error}") from None

    def digest(self, *parts: str) -> str:
        """Return the identity of the file and of other texts: 64 hex digits."""
        return hashlib.sha256("\n".join([self._text, *parts]).encode()).hexdigest()


def read_text(path: Path) -> str:
    """Return the text of a small file.

    Raises:
        TaskError: The file cannot be read, or is larger than 1 MiB.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise TaskError(f"{path} is larger than {_MOST_BYTES >> 20} MiB.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}") from None


def json_object(path: Path, text: str) -> dict[str, Any]:
    """Parse the text of a JSON file.

    Args:
        path: The file, for errors.
        text: Its text.

    Raises:
        TaskError: It is not a JSON object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise TaskError(f"{path} is not a JSON object, but a {type(found).__name__}.")
    return found
