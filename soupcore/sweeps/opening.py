"""Open the checkpoints of a folder, check that they fit, and read the details of their runs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.contents import NotRead, remembered_only
from soupcore.checkpoints.run_folders import Run
from soupcore.errors import SweepError
from soupcore.progress import Progress, no_progress, part
from soupcore.sweeps.findings import (
    Finding,
    FitReport,
    NothingFitsError,
    UnusableSweepError,
    without_misfits,
)
from soupcore.sweeps.fit import check_fit
from soupcore.sweeps.folder import stays_within
from soupcore.sweeps.hyperparameters import Sidecars, choose_columns, choose_logged, read_sidecars
from soupcore.sweeps.members import Members
from soupcore.sweeps.remote import Plan, RemoteSweep
from soupcore.sweeps.run_files import RunDetails, RunFiles, split_scores
from soupcore.sweeps.snapshots import (
    Snapshots,
    Taken,
    Weights,
    open_all,
    scan_all,
    snapshot_choices,
    take,
)
from soupcore.sweeps.tables import Scalar

BASE = "base"


@dataclass(frozen=True)
class Opened:
    """The checkpoints of a folder that can be averaged, and the details of their runs.

    Attributes:
        checkpoints: The ingredients by name, in natural order.
        base: The base; None if there is no usable one.
        report: The findings about all files.
        details: Hyperparameters and logged metrics of each ingredient, in the same order.
        columns: Hyperparameters to show as columns.
        logged_columns: Logged metrics to show as columns.
        urls: The URLs of a remote sweep.
    """

    checkpoints: Mapping[str, Checkpoint]
    base: Checkpoint | None
    report: FitReport
    details: Mapping[str, RunDetails]
    columns: list[str]
    logged_columns: list[str]
    urls: tuple[str, ...]


def open_folder(
    folder: Path,
    base: str | None,
    weights: Weights,
    snapshot: Snapshots,
    *,
    within: Collection[Path] | None,
    refresh: bool,
    on_progress: Progress,
) -> Opened:
    """Open the checkpoints in a folder; see `Sweep.from_folder`, also for the errors."""
    base_name = base or BASE
    plans: list[Plan] = []

    def complete(place: RemoteSweep | Members, on_progress: Progress) -> Progress:
        """Download missing files, and return the progress callback for the next steps."""
        if refresh:
            place.refresh()
        downloading: Progress = no_progress
        if not place.is_complete(base_name, snapshot):
            downloading, on_progress = part(on_progress, 0, 2), part(on_progress, 1, 2)
        plans.append(place.complete(base_name, snapshot, downloading))
        return on_progress

    remote = RemoteSweep.at(folder)
    if remote is not None:
        on_progress = complete(remote, on_progress)
    members = Members.find(folder, within)
    on_progress = complete(members, on_progress)
    findings = members.findings
    runs = members.runs
    taken = take(runs, snapshot, base_name)
    if not isinstance(weights, str) and (unknown := weights.keys() - taken.keys()):
        raise SweepError(f"{folder} has no checkpoint {min(unknown)!r}, which `weights` names.")
    opened, unusable = open_all(taken, weights)
    findings += unusable + scan_all(opened, on_progress)
    findings += _copies_in_runs(without_misfits(opened, findings), taken)
    findings += [finding for each in plans for finding in each.findings]
    # Plans have all snapshots of remote runs, also those that are not downloaded.
    choices = [*snapshot_choices(taken), *(c for each in plans for c in each.snapshots)]
    places = {name: run.place for name, run in runs.items()}
    is_allowed = stays_within(members.roots(within))
    sidecars = read_sidecars(folder, places, is_allowed, members.named.labels)
    findings += sidecars.findings
    fit = check_fit(without_misfits(opened, findings), base_name)
    files = RunFiles(members.folders, is_allowed)
    details = {
        name: _described(sidecars, files, name, taken[name], checkpoint)
        for name, checkpoint in fit.checkpoints.items()
    }
    findings += files.findings + fit.findings
    known = {*sidecars.files, *(f.ingredient for each in plans for f in each.findings)}
    others = [name for name in members.entries.others if name not in known]
    report = FitReport(
        tuple(findings),
        fit.reference,
        tuple(name for name in members.entries.ignored if name not in files.files),
        tuple(others),
        tuple({choice.run: choice for choice in choices}.values()),
    )
    if base and fit.base is None:
        raise _bad_base(folder, base, report)
    if not fit.checkpoints:
        raise NothingFitsError(folder, report, base_name if fit.base else "")
    rows = [sidecars.describe(taken[name].name).hyperparameters for name in details]
    return Opened(
        fit.checkpoints,
        fit.base,
        report,
        details,
        choose_columns(rows, [_without_name(d, taken[name].run) for name, d in details.items()]),
        choose_logged([d.logged_metrics for d in details.values()]),
        remote.urls if remote is not None else (),
    )


def is_scanned(
    folder: str | Path,
    weights: Weights = "",
    snapshot: Snapshots = "",
    *,
    within: Collection[Path] | None = None,
) -> bool:
    """Return whether opening the sweep reads only headers, because all files were read before."""
    remote = RemoteSweep.at(Path(folder))
    if remote is not None and not remote.is_complete(BASE, snapshot):
        return False
    try:
        with remembered_only():
            members = Members.find(Path(folder), within)
            if not members.is_complete(BASE, snapshot):
                return False
            opened, _ = open_all(take(members.runs, snapshot, BASE), weights)
    except NotRead:
        return False
    return all(checkpoint.is_scanned for checkpoint in opened.values())


def _described(
    sidecars: Sidecars, files: RunFiles, name: str, taken: Taken, checkpoint: Checkpoint
) -> RunDetails:
    """Return the details of an ingredient from tables, its run folder and its checkpoint."""
    found = sidecars.describe(taken.name)
    if taken.choice is not None:
        files.describe(found, name, taken.run, taken.choice.snapshot, checkpoint.details)
    found.add(*split_scores(checkpoint.details), checkpoint.path.name)
    return found


def _without_name(described: RunDetails, run: Run) -> dict[str, Scalar]:
    """Return hyperparameters except those that only repeat the name of the run, as `save_dir`."""
    name = run.place.name
    return {k: v for k, v in described.hyperparameters.items() if Path(str(v)).name != name}


def _copies_in_runs(opened: Mapping[str, Checkpoint], taken: Mapping[str, Taken]) -> list[Finding]:
    """Exclude snapshots with the weights of another one of their run, such as its last epoch."""
    first: dict[tuple[str, str], str] = {}
    findings = []
    for name, checkpoint in opened.items():
        original = first.setdefault((taken[name].name, checkpoint.digest), name)
        if original != name:
            problem = f"has the same weights as {original}"
            findings.append(Finding("misfit", name, "", problem, "Nothing to do."))
    return findings


def _bad_base(folder: Path, name: str, fit: FitReport) -> UnusableSweepError:
    misfits = (f for f in fit.findings if f.ingredient == name and f.severity == "misfit")
    found = next(misfits, None)
    problem = "it does not exist"
    if found is not None:
        where = f"tensor {found.tensor!r}: " if found.tensor else ""
        problem = where + found.problem.rstrip(".")
    return UnusableSweepError(f"{folder}: the base {name!r} cannot be used: {problem}.", fit)
