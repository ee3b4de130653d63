"""The command-line notation for the location of a task."""

from dataclasses import dataclass, replace
from pathlib import Path

from soupcore.errors import TaskError

#: Display names of the kinds of tasks that a file without Python describes, by their prefix.
KINDS = {
    "hf": "Hugging Face",
    "imagefolder": "image folders",
    "ultralytics": "Ultralytics",
    "command": "command",
}


@dataclass(frozen=True)
class TaskSpec:
    """Location of a task: `path/to/file.py:attribute`, or `kind:path/to/file.toml`.

    Attributes:
        path: The file.
        attribute: Name of the task in a Python file; "" for a TOML file.
        kind: Kind of the task in a TOML file, a key of `KINDS`; "" for a Python file.
    """

    path: Path
    attribute: str = ""
    kind: str = ""

    @classmethod
    def parse(cls, text: str) -> "TaskSpec":
        """Parse the command-line notation.

        Raises:
            TaskError: The text has another form, or there is no such file.
        """
        kind, _, file = text.partition(":")
        if kind in KINDS:
            spec = cls(Path(file), kind=kind)
        else:
            path, _, attribute = text.rpartition(":")
            spec = cls(Path(path), attribute)
        if not spec.path.is_file() or not (spec.kind or spec.attribute.isidentifier()):
            kinds = " or ".join(f"{kind}:path/to/file.toml" for kind in KINDS)
            raise TaskError(
                f"{text!r} names no task. Write it as path/to/file.py:attribute or as {kinds}, "
                "with a file that exists."
            )
        return spec

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}" if self.kind else f"{self.path}:{self.attribute}"

    @property
    def resolved(self) -> "TaskSpec":
        """The same with the absolute path of the file."""
        return replace(self, path=self.path.resolve())

    @property
    def label(self) -> str:
        """A short display name."""
        file = f"{self.path.parent.name}/{self.path.name}"
        return f"{file} ({KINDS[self.kind]})" if self.kind else f"{file}: {self.attribute}"
