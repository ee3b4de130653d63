"""Where Stockpot keeps what it computed and built, between sessions."""

import os
from pathlib import Path


def workspace_folder() -> Path:
    """Return the workspace: `$STOCKPOT_WORKSPACE`, or `~/.stockpot`. It is created if missing."""
    folder = Path(os.environ.get("STOCKPOT_WORKSPACE") or Path.home() / ".stockpot").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
