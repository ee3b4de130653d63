"""Describes a task in a process of its own: `python -m soupcore.tasks.describing SPEC DESCRIPTOR`.

It imports no more than tasks need, as someone waits for the answer (see
`soupcore.jobs.descriptions`).
"""

import argparse
import json
import os
from typing import Any

from soupcore.errors import StockpotError
from soupcore.tasks.failures import place_of
from soupcore.tasks.loading import load_task


def describe(spec: str) -> dict[str, Any]:
    """Return a task's description as JSON, or `{"error": sentence}`; runs the task's file."""
    try:
        return load_task(spec).describe().to_json()
    except StockpotError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever the task's data or network raises
        what = f"{spec} could not be described: {type(error).__name__}: {error}. {place_of(error)}"
        return {"error": what.strip()}


def main() -> None:
    """Describe a task to a descriptor that is open already."""
    parser = argparse.ArgumentParser(prog="python -m soupcore.tasks.describing")
    parser.add_argument("spec", help="the task, path/to/file.py:attribute")
    parser.add_argument("descriptor", type=int, help="where the answer goes")
    arguments = parser.parse_args()
    os.set_inheritable(arguments.descriptor, False)
    answer = json.dumps(describe(arguments.spec)).encode()
    with os.fdopen(arguments.descriptor, "wb") as file:
        file.write(answer)


if __name__ == "__main__":
    main()
