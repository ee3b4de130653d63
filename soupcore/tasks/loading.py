"""Loading a task from a Python file."""

import hashlib
import sys
from pathlib import Path
from types import ModuleType

from soupcore.errors import TaskError
from soupcore.tasks.task import Task


def load_task(spec: str) -> Task:
    """Load a task by executing the file that defines it.

    The file is code: only load one that you would run yourself.

    Args:
        spec: `path/to/file.py:attribute`.

    Raises:
        TaskError: The file is missing, fails, or the attribute is not a `Task`.
    """
    path, attribute = _parse(spec)
    text = path.read_bytes()
    source = _digest(attribute, text)
    # Registered under a name of its own, so that classes defined in it can be found again.
    module_name = f"stockpot_task_{source[:16]}"
    module = ModuleType(module_name)
    module.__file__ = str(path.resolve())
    sys.modules[module_name] = module
    try:
        # Not by an import, which may run the bytecode of an earlier text of the same size and age.
        exec(compile(text, module.__file__, "exec"), module.__dict__)  # noqa: S102
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise TaskError(
            f"{path} could not be run: {type(error).__name__}: {error}. "
            "Run it with Python by itself to see where."
        ) from error
    task = getattr(module, attribute, None)
    if not isinstance(task, Task):
        raise TaskError(
            f"{path} defines no Task called {attribute!r} "
            f"(it is {'missing' if task is None else 'a ' + type(task).__name__})."
        )
    task.source_digest = source
    return task


def task_signature(spec: str) -> str:
    """Return a digest of the attribute's name and the file's text, without running the file.

    Raises:
        TaskError: There is no such file.
    """
    path, attribute = _parse(spec)
    return _digest(attribute, path.read_bytes())


def _digest(attribute: str, text: bytes) -> str:
    return hashlib.sha256(attribute.encode() + b":" + text).hexdigest()


def _parse(spec: str) -> tuple[Path, str]:
    path_text, _, attribute = spec.rpartition(":")
    path = Path(path_text)
    if not path_text or not path.is_file():
        raise TaskError(f"{spec!r} names no task; write it as path/to/file.py:attribute.")
    return path, attribute
