"""Where a task is, as people write it on a command line."""

from dataclasses import dataclass, replace
from pathlib import Path

from soupcore.errors import TaskError

#: Kinds of tasks that a file without Python describes, by their prefix.
KINDS = {
    "hf": "Hugging Face",
    "ultralytics": "Ultralytics",
    "command": "command",
}


@dataclass(frozen=True)
class TaskSpec:
    """Where a task is: `path/to/file.py:attribute`, or `kind:path/to/file.toml`.

    Attributes:
        path: The file.
        attribute: The name of the task in a Python file; "" in a description.
        kind: The prefix of a task that is described, one of `KINDS`; "" for a Python file.
    """

    path: Path
    attribute: str = ""
    kind: str = ""

    @classmethod
    def parse(cls, text: str) -> "TaskSpec":
        """Read it from a text.

        Raises:
            TaskError: The text has another form, or there is no such file.
        """
        kind, _, described = text.partition(":")
        if kind in KINDS:
            found = cls(Path(described), kind=kind)
        else:
            path, _, attribute = text.rpartition(":")
            found = cls(Path(path), attribute)
        if not found.path.is_file() or not (found.kind or found.attribute.isidentifier()):
            kinds = " or ".join(f"{kind}:path/to/file.toml" for kind in KINDS)
            raise TaskError(
                f"{text!r} names no task. Write it as path/to/file.py:attribute or as {kinds}, "
                "with a file that exists."
            )
        return found

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}" if self.kind else f"{self.path}:{self.attribute}"

    @property
    def resolved(self) -> "TaskSpec":
        """The same with the absolute path of the file."""
        return replace(self, path=self.path.resolve())

    @property
    def label(self) -> str:
        """A short name of it for people."""
        file = f"{self.path.parent.name}/{self.path.name}"
        return f"{file} ({KINDS[self.kind]})" if self.kind else f"{file}: {self.attribute}"
