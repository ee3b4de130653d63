"""What there is to know about the ingredients of a sweep, before any work starts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from soupcore.errors import SweepError

Severity = Literal["misfit", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing to know about one ingredient.

    Attributes:
        severity: `misfit`: it cannot be averaged with the others and is left out. `warning`: it
            takes part, but look. `note`: how it was read, which is as it should be.
        ingredient: Its name.
        tensor: The tensor concerned, the first of several; empty where it is the whole file.
        problem: What is the matter.
        way_out: What to do about it.
    """

    severity: Severity
    ingredient: str
    tensor: str
    problem: str
    way_out: str


@dataclass(frozen=True)
class FitReport:
    """What was found about the ingredients of a sweep.

    Attributes:
        findings: One by one.
        reference: What the ingredients were compared with, for people.
        ignored: Files that a trainer leaves beside the weights, which were not looked at.
    """

    findings: tuple[Finding, ...] = field(default=())
    reference: str = ""
    ignored: tuple[str, ...] = field(default=())

    @property
    def misfits(self) -> set[str]:
        """Names of the ingredients that cannot be averaged with the others."""
        return {f.ingredient for f in self.findings if f.severity == "misfit"}


class NothingFitsError(SweepError):
    """None of the checkpoints in a folder can be used.

    Attributes:
        fit: Why not, one by one.
    """

    def __init__(self, folder: Path, fit: FitReport) -> None:
        first = next((f for f in fit.findings if f.severity == "misfit"), None)
        reason = f": {first.ingredient}: {first.problem.rstrip('.')}" if first else ""
        super().__init__(f"{folder} holds no checkpoint that can be used{reason}.")
        self.fit = fit


def some(names: Sequence[str]) -> str:
    """Return the first of many names, as text."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def tensors(count: int) -> str:
    """Return a number of tensors, as text."""
    return f"{count} tensor" if count == 1 else f"{count} tensors"


def and_more(count: int) -> str:
    """Return the end of a sentence that was told of the first of several tensors."""
    return f" (and {tensors(count)} more)" if count else ""
