"""Load a task from a Python file, or from the description of a built-in kind of task.

A Python file may import the modules in its folder. They are part of the identity of the task, and
are run from their source as it is now.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.machinery import FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from soupcore.errors import TaskError
from soupcore.task_spec import TaskSpec
from soupcore.tasks.task import Task, place_of

# The module of each kind of description. It has `load(path)`, which returns the task, and
# `signature(path)`, the identity of all files that define it.
_MODULES = {
    "hf": "soupcore.tasks.hugging_face",
    "imagefolder": "soupcore.tasks.image_folder",
    "ultralytics": "soupcore.tasks.yolo",
    "command": "soupcore.tasks.command",
}

_Import = tuple[int, tuple[str, ...]]
"""Levels up of a relative import, 0 for an absolute one; and the parts of the name."""


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
    _import_from(path.resolve())
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
    for module in _modules_beside(path.resolve()):
        name = module.relative_to(path.resolve().parent).as_posix()
        sha.update(f"\n{name}:".encode() + module.read_bytes())
    return sha.hexdigest()


def _modules_beside(path: Path) -> list[Path]:
    """Return the files in a task's folder that its file imports, directly or through others.

    They are found by their import statements, without running them.
    """
    folder = path.parent
    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        try:
            imports = _imports(file.read_bytes())
        except OSError:  # the import raises the error
            continue
        package = file.parent.relative_to(folder).parts
        for level, parts in imports:
            above = package[: len(package) - level + 1] if level else ()
            for module in _files(folder, (*above, *parts)):
                if module != path and module not in found:
                    found[module] = None
                    waiting.append(module)
    return sorted(found)


@lru_cache(maxsize=1024)
def _imports(text: bytes) -> list[_Import]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # running it raises the error
        return []
    found: list[_Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, tuple(alias.name.split("."))) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            found += [(node.level, (*module, alias.name)) for alias in node.names]
    return found


def _files(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Return the files of a module and of its parent packages."""
    place = folder
    for part in parts:
        if (module := place / f"{part}.py").is_file():
            yield module
            return
        place /= part
        if (module := place / "__init__.py").is_file():
            yield module


class _FromText(SourceFileLoader):
    """Runs a module's source, never its bytecode, which may be stale."""

    def get_code(self, fullname: str) -> CodeType:
        file = self.get_filename(fullname)
        return compile(self.get_data(file), file, "exec", dont_inherit=True)


class _Beside:
    """Finds modules in a task's folder that no other finder provides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module; None if it is not beside the task."""
        for place in map(Path, path or [str(self.folder)]):
            if not place.is_relative_to(self.folder):
                continue
            if not [*_files(place, [name.rpartition(".")[2]])]:
                continue
            other = PathFinder.find_spec(name, path)
            if other is None or not other.origin or place in Path(other.origin).parents:
                return FileFinder(str(place), (_FromText, [".py"])).find_spec(name)
        return None


def _import_from(path: Path) -> None:
    """Let a task's file import the current source of modules in its folder.

    Modules beside other tasks are removed from `sys.modules`, since they may have the same names.
    """
    beside = set(_modules_beside(path))
    names = tuple(file.name for file in beside)
    for name, module in [*sys.modules.items()]:
        known = getattr(module, "__dict__", {})  # without the `__getattr__` of lazy modules
        file = known.get("__file__")
        is_ours = isinstance(known.get("__loader__"), _FromText)
        # There are thousands of modules, and making a path of each would take 0.1 s.
        if is_ours or (file and file.endswith(names) and Path(file) in beside):
            del sys.modules[name]
    others = [finder for finder in sys.meta_path if getattr(finder, "folder", None) != path.parent]
    sys.meta_path[:] = [_Beside(path.parent), *others]
