"""From a pickled `nn.Module` to what its `state_dict()` would give, without the module."""

from collections.abc import Iterator, Mapping
from typing import Any

from soupcore.strict.refusal import Refusal
from soupcore.strict.values import Inert

MOST_TENSORS = 100_000
DEEPEST = 100
MOST_NAME_BYTES = 32 << 20


def is_module(value: Any) -> bool:
    """Whether something unpickled is an instance of `nn.Module` (or of a class like it)."""
    return type(value) is Inert and all(
        isinstance(value.attributes.get(part), dict)
        for part in ("_parameters", "_buffers", "_modules")
    )


def module_entries(module: Inert, notes: list[str]) -> dict[str, Any]:
    """Return parameters and persistent buffers by name, in the order of `state_dict()`.

    Args:
        module: The pickled module.
        notes: Sentences on what `state_dict()` would do and this does not are added here.

    Raises:
        Refusal: The module holds itself, or unfolds to more than any model has.
    """
    return _Walk(notes).entries(module)


class _Walk:
    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._visits = 0
        self._name_bytes = 0
        self._found: dict[str, Any] = {}
        self._hooked = False

    def entries(self, module: Inert) -> dict[str, Any]:
        self._visit(module, "", ())
        return self._found

    def _visit(self, module: Inert, prefix: str, path: tuple[int, ...]) -> None:
        if id(module) in path:
            raise Refusal(f"Its module {prefix.rstrip('.')!r} holds itself.")
        if len(path) >= DEEPEST:
            raise Refusal(f"Its modules are nested more than {DEEPEST} deep.")
        attributes = module.attributes
        if not self._hooked and any(
            attributes.get(hooks) for hooks in ("_state_dict_hooks", "_state_dict_pre_hooks")
        ):
            self._hooked = True
            self._notes.append(
                f"The module {module.path} changes its state dict by hooks; these were not run."
            )
        for name, value in self._own_entries(attributes, prefix):
            if value is not None:
                self._found[prefix + name] = value
        for name, child in self._named(attributes["_modules"], prefix):
            if child is None:
                continue
            if not is_module(child):
                self._notes.append(f"The submodule {prefix}{name} is no module; it was left out.")
                continue
            self._visit(child, f"{prefix}{name}.", (*path, id(module)))

    def _own_entries(self, attributes: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        yield from self._named(attributes["_parameters"], prefix)
        skipped = attributes.get("_non_persistent_buffers_set")
        skipped = skipped if isinstance(skipped, set | frozenset) else frozenset[Any]()
        for name, value in self._named(attributes["_buffers"], prefix):
            if name not in skipped:
                yield name, value

    def _named(self, entries: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in entries.items():
            if type(name) is not str:
                raise Refusal(f"Its pickled module has a part whose name is {str(name)[:40]!r}.")
            # Modules that hold one module twice, and so on n times, unfold to 2ⁿ names.
            self._visits += 1
            self._name_bytes += len(prefix) + len(name)
            if self._visits > MOST_TENSORS or self._name_bytes > MOST_NAME_BYTES:
                raise Refusal(f"Its modules unfold to more than {MOST_TENSORS:,} tensors.")
            yield name, value
