"""What the app was told when it was started."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soupcore.workspace import workspace_folder

_PROJECT = Path(__file__).parents[2]
SAMPLE_SWEEP = str(_PROJECT / "sample_data" / "digits" / "sweep")
SAMPLE_TASK = f"{_PROJECT / 'sample_data' / 'digits' / 'task.py'}:task"


@dataclass(frozen=True)
class Settings:
    """Where the app may look, and what code it may run.

    Attributes:
        roots: Folders that sweeps are looked for in; nothing outside them is opened.
        tasks: The tasks that can be chosen, `file.py:attribute`; no other code is run.
        hosts: Names under which the server answers.
        uploads: Where uploaded files are put; one of the roots.
        devices: Where the workers compute, one each.
        database: URL of the store's database; SQLite in the workspace where it is None.
    """

    roots: tuple[Path, ...]
    tasks: tuple[str, ...]
    hosts: list[str]
    uploads: Path
    devices: tuple[str, ...]
    database: str | None

    def allows(self, folder: Path) -> bool:
        """Whether a folder lies in one of the roots once links are followed."""
        resolved = folder.resolve()
        return any(resolved.is_relative_to(root) for root in self.roots)


_current: Settings | None = None


def configure(arguments: Sequence[str]) -> Settings:
    """Read the command line; exits with a message where it makes no sense."""
    global _current
    parser = argparse.ArgumentParser(prog="streamlit run app.py --", description="Stockpot")
    several: Any = {"action": "append", "default": []}
    parser.add_argument("--root", type=Path, help="a folder to look for sweeps in", **several)
    parser.add_argument("--task", help="FILE.py:ATTRIBUTE to offer; the file is run", **several)
    parser.add_argument("--host", help="another name under which the server answers", **several)
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1, mps or auto; again for a worker on another", **several
    )
    parser.add_argument(
        "--database",
        default=os.environ.get("STOCKPOT_DATABASE"),
        help="URL of a team's PostgreSQL; $STOCKPOT_DATABASE keeps its password off the list of "
        "processes",
    )
    parsed = parser.parse_args(arguments)
    for root in parsed.root:
        if not root.is_dir():
            parser.error(f"--root {root} is not a folder")
    for task in parsed.task:
        file, _, attribute = task.rpartition(":")
        if not attribute.isidentifier() or not Path(file).is_file():
            parser.error(f"--task {task}: write it as path/to/file.py:attribute")
    uploads = workspace_folder() / "uploads"
    uploads.mkdir(exist_ok=True)
    uploads.chmod(0o700)
    roots = [*parsed.root, _PROJECT / "sample_data", uploads]
    tasks = [_absolute(task) for task in parsed.task]
    _current = Settings(
        roots=tuple(dict.fromkeys(root.resolve() for root in roots)),
        tasks=tuple(dict.fromkeys([*tasks, SAMPLE_TASK])),
        hosts=["127.0.0.1", "localhost", "[::1]", *parsed.host],
        uploads=uploads.resolve(),
        devices=tuple(dict.fromkeys(parsed.device)) or ("auto",),
        database=parsed.database,
    )
    return _current


def current() -> Settings:
    """Return what the app was told; the defaults where it was told nothing."""
    return _current or configure([])


def _absolute(task: str) -> str:
    file, _, attribute = task.rpartition(":")
    return f"{Path(file).resolve()}:{attribute}"
