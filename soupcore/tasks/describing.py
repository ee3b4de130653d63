"""Describes a task in a separate process: `python -m soupcore.tasks.describing SPEC DESCRIPTOR`.

It imports only what tasks need, since a user waits for the answer (see
`soupcore.jobs.descriptions`).
"""

import argparse
import json
import os
from typing import Any

from soupcore.errors import StockpotError
from soupcore.tasks.loading import load_task
from soupcore.tasks.task import place_of


def describe(spec: str) -> dict[str, Any]:
    """Run a task's file and return its description as JSON, or `{"error": sentence}`."""
    try:
        return load_task(spec).describe().to_json()
    except StockpotError as error:
        return {"error": str(error)}
    except Exception as error:  # the task's data or network may raise anything
        what = f"{spec} could not be described: {type(error).__name__}: {error}. {place_of(error)}"
        return {"error": what.strip()}


def main() -> None:
    """Write the description of a task to an open file descriptor."""
    parser = argparse.ArgumentParser(prog="python -m soupcore.tasks.describing")
    parser.add_argument("spec", help="the task, path/to/file.py:attribute")
    parser.add_argument("descriptor", type=int, help="file descriptor for the answer")
    arguments = parser.parse_args()
    os.set_inheritable(arguments.descriptor, False)
    answer = json.dumps(describe(arguments.spec)).encode()
    with os.fdopen(arguments.descriptor, "wb") as file:
        file.write(answer)


if __name__ == "__main__":
    main()
