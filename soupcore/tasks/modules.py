"""Find and import the modules beside a task's file."""

import ast
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.machinery import FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

_Import = tuple[int, tuple[str, ...]]
"""Levels up of a relative import, 0 for an absolute one; and the parts of the name."""


def modules_beside(path: Path) -> list[Path]:
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


def import_from(path: Path) -> None:
    """Let a task's file import the current source of modules in its folder.

    Modules beside other tasks are removed from `sys.modules`, since they may have the same names.
    """
    beside = set(modules_beside(path))
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
