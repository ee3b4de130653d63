"""The workspace folder, which holds the database, arrays and soups."""

import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from soupcore.errors import StoreError
from soupcore.new_files import create_private, new_file

_ID_FILE = "workspace.json"


def workspace_folder() -> Path:
    """Return the workspace: `$STOCKPOT_WORKSPACE`, or `~/.stockpot`. It is created if missing.

    Raises:
        StoreError: It cannot be created.
    """
    folder = Path(os.environ.get("STOCKPOT_WORKSPACE") or Path.home() / ".stockpot").expanduser()
    return private_folder(folder)


def private_folder(folder: Path) -> Path:
    """Create a folder of the workspace and its parents if they are missing, and return it.

    Only the owner may enter it, regardless of the umask. A folder with the set-group-ID bit is
    deliberately shared with its group and stays so; new files and folders in it inherit the bit. A
    read-only folder (see `is_writable`) stays unchanged.

    Raises:
        StoreError: It cannot be created.
    """
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The workspace folder {folder} cannot be created ({error.strerror}). Set "
            "STOCKPOT_WORKSPACE to a writable folder."
        ) from error
    mode = stat.S_IMODE(folder.stat().st_mode)
    wanted = 0o2770 if mode & stat.S_ISGID else 0o700
    if mode != wanted and is_writable(folder):
        with suppress(OSError):  # it belongs to another user
            folder.chmod(wanted)
    return folder


def workspace_file(name: str) -> Path:
    """Return the path of a file directly in the workspace, created private if it is missing."""
    path = workspace_folder() / name
    create_private(path)
    return path


def is_writable(path: Path) -> bool:
    """Return whether this process may write to an existing file or folder."""
    return os.access(path, os.W_OK)


def read_id(folder: Path) -> str | None:
    """Return the id in a workspace folder's `workspace.json`; None if it has none yet.

    Raises:
        StoreError: `workspace.json` holds no id.
    """
    path = folder / _ID_FILE
    try:
        return str(json.loads(path.read_bytes())["id"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} does not hold the id of a workspace. Restore it from a backup, or delete it "
            "if the workspace's database is in the same folder."
        ) from error


def write_id(folder: Path, workspace: str | None = None) -> str:
    """Write an id to a workspace folder, by default a new random one, and return it."""
    workspace = workspace or secrets.token_hex(16)
    with new_file(folder / _ID_FILE) as file:
        file.write(json.dumps({"id": workspace}).encode())
    return workspace
