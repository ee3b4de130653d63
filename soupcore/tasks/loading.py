"""Load a task from a Python file, or from the description of a built-in kind of task."""

import hashlib
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from soupcore.errors import TaskError
from soupcore.task_spec import TaskSpec
from soupcore.tasks.failures import place_of
from soupcore.tasks.modules import import_from, modules_beside
from soupcore.tasks.task import Task

# The module of each kind of description. It has `load(path)`, which returns the task, and
# `signature(path)`, the identity of all files that define it.
_MODULES = {
    "hf": "soupcore.tasks.hugging_face",
    "imagefolder": "soupcore.tasks.image_folder",
    "ultralytics": "soupcore.tasks.yolo",
    "command": "soupcore.tasks.command",
}


def load_task(spec: str) -> Task:
    """Load a task by running the Python file that defines it, or from a description.

    Python files and commands are code: only load those that you would run yourself. A description
    of a Hugging Face network runs only the code of Stockpot and transformers.

    Args:
        spec: `path/to/file.py:attribute`; `hf:path/to/file.toml` for networks of Hugging Face (see
            `soupcore.tasks.hugging_face`); `imagefolder:path/to/file.toml` for image classifiers
            (see `soupcore.tasks.image_folder`); `ultralytics:path/to/data.yaml` for detectors (see
            `soupcore.tasks.yolo`); or `command:path/to/file.toml` for a command of your own (see
            `soupcore.tasks.command`).

    Raises:
        TaskError: The file is missing, raises an error, or defines no task.
    """
    found = TaskSpec.parse(spec)
    task: Task = (
        import_module(_MODULES[found.kind]).load(found.path)
        if found.kind
        else _load_python(found.path, found.attribute)
    )
    task.spec = str(found.resolved)
    return task


def _load_python(path: Path, attribute: str) -> Task:
    text = path.read_bytes()
    source = _digest(path, attribute)
    # Registered under a unique name, so that pickle finds the classes that it defines.
    module_name = f"stockpot_task_{source[:16]}"
    module = ModuleType(module_name)
    module.__file__ = str(path.resolve())
    sys.modules[module_name] = module
    import_from(path.resolve())
    try:
        # An import may run stale bytecode, of an earlier text with the same size and time.
        exec(compile(text, module.__file__, "exec"), module.__dict__)  # noqa: S102
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise TaskError(
            f"{path} could not be run: {type(error).__name__}: {error}. {place_of(error)}".rstrip()
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
    """Return a digest of the files that define a task and of its name, without running them.

    For a Python file these include the modules of its folder that it imports.

    Raises:
        TaskError: There is no such file.
    """
    found = TaskSpec.parse(spec)
    if found.kind:
        signature: str = import_module(_MODULES[found.kind]).signature(found.path)
        return signature
    return _digest(found.path, found.attribute)


def _digest(path: Path, attribute: str) -> str:
    """Return the identity of a task's file, of the modules beside it, and of the task's name."""
    sha = hashlib.sha256(attribute.encode() + b":" + path.read_bytes())
    for module in modules_beside(path.resolve()):
        name = module.relative_to(path.resolve().parent).as_posix()
        sha.update(f"\n{name}:".encode() + module.read_bytes())
    return sha.hexdigest()
