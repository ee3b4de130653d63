"""Whether the checkpoints of a sweep can be averaged, for people."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

import pandas as pd
import streamlit as st

from pages.components.text import plain
from soupcore import Finding, FitReport
from soupcore.sweeps.findings import Severity

_MOST_ROWS = 8  # more are scrolled
_HEIGHT = 600  # pixels
_BADGES: dict[Severity, str] = {
    "misfit": ":red-badge[left out]",
    "warning": ":orange-badge[look]",
    "note": ":gray-badge[note]",
}


def show(fit: FitReport) -> None:
    """Show what was found about the checkpoints, where anything was."""
    if not fit.findings and not fit.ignored:
        return
    with st.expander(_title(fit), icon=":material/rule:", expanded=bool(fit.misfits)):
        if fit.findings:
            _table(fit)
        st.caption(" ".join([*_compared_with(fit), *_ignored(fit)]))


def grouped(findings: Iterable[Finding]) -> list[tuple[list[str], Finding]]:
    """Return findings, the gravest first, and the names of all that share each."""
    found: dict[tuple[str, ...], tuple[list[str], Finding]] = {}
    for finding in sorted(findings, key=lambda finding: [*_BADGES].index(finding.severity)):
        key = (finding.severity, finding.tensor, finding.problem, finding.way_out)
        names, _ = found.setdefault(key, ([], finding))
        names.append(finding.ingredient)
    return list(found.values())


def _title(fit: FitReport) -> str:
    looks = {f.ingredient for f in fit.findings if f.severity == "warning"} - fit.misfits
    if not fit.misfits and not looks:
        return "Fit report: all fit"
    return f"Fit report: {len(fit.misfits)} left out, {len(looks)} to look at"


def _table(fit: FitReport) -> None:
    rows = grouped(fit.findings)
    # A plain table, because it wraps: a way out that is cut off is none.
    st.table(
        pd.DataFrame(
            {
                "": _BADGES[finding.severity],
                "checkpoint": ", ".join(f"**{plain(name)}**" for name in names),
                "what is the matter": plain(_sentence(finding)),
                "way out": plain(finding.way_out),
            }
            for names, finding in rows
        ),
        border="horizontal",
        hide_index=True,
        height=_HEIGHT if len(rows) > _MOST_ROWS else "content",
    )


def _sentence(finding: Finding) -> str:
    if finding.tensor and finding.tensor not in finding.problem:
        return f"{finding.tensor}: {finding.problem}"
    first, _, _ = finding.problem.partition(" ")
    if "." in first or "_" in first:  # a file's or a tensor's name stays as it is written
        return finding.problem
    return finding.problem[:1].upper() + finding.problem[1:]


def _compared_with(fit: FitReport) -> list[str]:
    return [f"Compared with {plain(fit.reference)}, tensor by tensor."] if fit.reference else []


def _ignored(fit: FitReport) -> list[str]:
    names = Counter(PurePosixPath(path).name for path in fit.ignored)
    shown = [plain(name) + (f" ({n} times)" if n > 1 else "") for name, n in names.items()]
    if not shown:
        return []
    return [f"Not looked at, as trainers leave them beside the weights: {', '.join(shown)}."]
