"""Findings about the ingredients of a sweep, and the fit report that collects them."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from soupcore.checkpoints import Checkpoint
from soupcore.display import counted, html_table
from soupcore.errors import SweepError

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["misfit", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """A finding about one ingredient.

    Attributes:
        severity: `misfit`: the ingredient cannot be averaged with the others and is excluded.
            `warning`: it is used, but needs attention. `note`: information on how it was read.
        ingredient: Name of the ingredient.
        tensor: The affected tensor, or the first of several; empty if the whole file is affected.
        problem: The problem, as a predicate ("is empty").
        way_out: How to fix it, as a sentence.
    """

    severity: Severity
    ingredient: str
    tensor: str
    problem: str
    way_out: str


_COLUMNS = [field.name for field in fields(Finding)]


@dataclass(frozen=True)
class SnapshotChoice:
    """The snapshots of a run that has several.

    Attributes:
        run: Name of the run.
        tool: Name of its tool; empty if it is unclear.
        names: Its snapshots, by time.
        taken: Those that were opened: one, several, or none if it is unclear which one to open.
    """

    run: str
    tool: str
    names: tuple[str, ...]
    taken: tuple[str, ...]


@dataclass(frozen=True)
class FitReport:
    """The result of the compatibility check of a sweep.

    Attributes:
        findings: All findings.
        reference: Display name of the checkpoint that the ingredients were compared with.
        ignored: Files that trainers leave beside the weights and that were not opened.
        others: All other entries of the folder, except hidden ones, that are not checkpoints by
            name or first bytes.
        snapshots: The runs with several snapshots, and which ones are used.
    """

    findings: tuple[Finding, ...] = field(default=())
    reference: str = ""
    ignored: tuple[str, ...] = field(default=())
    others: tuple[str, ...] = field(default=())
    snapshots: tuple[SnapshotChoice, ...] = field(default=())

    @property
    def misfits(self) -> set[str]:
        """Names of the ingredients that cannot be averaged with the others."""
        return {f.ingredient for f in self.findings if f.severity == "misfit"}

    @property
    def grouped(self) -> list[tuple[list[str], Finding]]:
        """Distinct findings, each with the names of its ingredients."""
        found: dict[Finding, list[str]] = {}
        for finding in self.findings:
            found.setdefault(replace(finding, ingredient=""), []).append(finding.ingredient)
        return [(names, finding) for finding, names in found.items()]

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per finding."""
        import pandas as pd

        return pd.DataFrame([*map(astuple, self.findings)], columns=_COLUMNS)

    def __repr__(self) -> str:
        misfits, others = self.misfits, [f for f in self.findings if f.severity != "misfit"]
        excluded = f"excluded: {', '.join(sorted(misfits))}" if misfits else "nothing excluded"
        return f"FitReport({excluded}; {len(others)} other findings)"

    def _repr_html_(self) -> str:
        reference = f"Compared with {self.reference}." if self.reference else ""
        return html_table("Fit report", _COLUMNS, map(astuple, self.findings), note=reference)


class UnusableSweepError(SweepError):
    """A folder cannot be opened as a sweep.

    Attributes:
        fit: The findings about each file.
    """

    def __init__(self, message: str, fit: FitReport) -> None:
        super().__init__(message)
        self.fit = fit


class NothingFitsError(UnusableSweepError):
    """No checkpoint in a folder can be used, except perhaps the base."""

    def __init__(self, folder: Path, fit: FitReport, base: str = "") -> None:
        first = next((f for f in fit.findings if f.severity == "misfit"), None)
        beside = f" except the base {base!r}" if base else ""
        reason = f": {first.ingredient}: {first.problem.rstrip('.')}" if first else ""
        super().__init__(f"{folder} has no usable checkpoint{beside}{reason}.", fit)


def without_misfits(
    checkpoints: Mapping[str, Checkpoint], findings: Sequence[Finding]
) -> dict[str, Checkpoint]:
    """Return the checkpoints without a finding of severity `misfit`."""
    misfits = {finding.ingredient for finding in findings if finding.severity == "misfit"}
    return {name: c for name, c in checkpoints.items() if name not in misfits}


def some(names: Sequence[str]) -> str:
    """Return up to three names as text, with an ellipsis if there are more."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def tensors(count: int) -> str:
    """Return a number of tensors as text."""
    return counted(count, "tensor")


def and_more(count: int) -> str:
    """Return the end of a sentence about the first of several tensors."""
    return f" (and {tensors(count)} more)" if count else ""
