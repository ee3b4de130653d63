"""Task files in TOML."""

import json
from pathlib import Path
from typing import Any


def write_toml(kind: str, folder: Path, splits: dict[str, str], **settings: Any) -> str:
    """Write `task.toml` and return the task as `kind:path`.

    Values are those of JSON. A split that begins with `{` is written as it is, as a table.
    """
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    lines.append("[splits]")
    for name, split in splits.items():
        value = split if split.startswith("{") else json.dumps(split)
        lines.append(f"{json.dumps(name)} = {value}")
    (folder / "task.toml").write_text("\n".join(lines))
    return f"{kind}:{folder / 'task.toml'}"
