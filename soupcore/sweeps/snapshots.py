"""Choose the snapshot and the weight set of each run, and open them.

Checkpoints that cannot be opened become findings.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.opening import open_run
from soupcore.checkpoints.run_folders import Choice, Run
from soupcore.errors import CheckpointError, SweepError
from soupcore.sweeps.findings import Finding, SnapshotChoice, some

Snapshots = str | Mapping[str, str]
"""The snapshot of every run, or `{run: snapshot}`, with `"*"` for all other runs."""

Weights = str | Mapping[str, str]
"""The weight set to open: one name or title for all files, or `{ingredient: name}`."""

EVERY = "every"
OTHERS = "*"
_BY_USER = "requested"


@dataclass(frozen=True)
class Taken:
    """A snapshot that becomes an ingredient.

    Attributes:
        name: Name of its run.
        run: The run.
        choice: The snapshot; None if it is unclear which one represents the run.
        missing: The requested snapshot, if the run lacks it.
        is_required: Whether the user named this snapshot for this run; then no other may replace
            it.
    """

    name: str
    run: Run
    choice: Choice | None
    missing: str = ""
    is_required: bool = False


def take(runs: Mapping[str, Run], wanted: Snapshots, base_name: str = "") -> dict[str, Taken]:
    """Return the snapshots to open, by the names of the ingredients.

    Args:
        runs: The runs of the sweep.
        wanted: `""` for the rule of each tool; `best`, `last`, `final`; `epoch 3`, `step 500` or
            another name of a snapshot; `every` for an ingredient for each, named `run/epoch 3`; or
            `{run: one of these, or a file}`.
        base_name: Name of the base, which follows the rule of its tool unless it is named.

    Raises:
        SweepError: A run that is named does not exist.
    """
    each = {OTHERS: wanted} if isinstance(wanted, str) else wanted
    if unknown := each.keys() - runs.keys() - {OTHERS}:
        raise SweepError(f"There is no checkpoint {min(unknown)!r}, which `snapshot` names.")
    taken: dict[str, Taken] = {}
    for name, run in runs.items():
        requested = each.get(name, "" if name == base_name else each.get(OTHERS, ""))
        if requested == EVERY and len(run.snapshots) > 1:
            taken |= {
                f"{name}/{snapshot.name}": Taken(name, run, Choice(snapshot, ""))
                for snapshot in run.snapshots
            }
            continue
        choice = run.named(requested) if requested not in ("", EVERY) else run.chosen
        if choice is not None:
            is_name = requested not in ("", EVERY, "best", "last")
            taken[name] = Taken(name, run, Choice(choice.snapshot, _BY_USER) if is_name else choice)
        elif name in each:
            taken[name] = Taken(name, run, None, requested, is_required=True)
        else:
            missing = requested if len(run.snapshots) > 1 else ""
            taken[name] = Taken(name, run, run.chosen, missing)
    return taken


def snapshot_choices(taken: Mapping[str, Taken]) -> tuple[SnapshotChoice, ...]:
    """Return the runs that have several snapshots, with the chosen ones."""
    opened: dict[str, list[str]] = {}
    for each in taken.values():
        names = opened.setdefault(each.name, [])
        names += [each.choice.snapshot.name] if each.choice else []
    runs = {each.name: each.run for each in taken.values()}
    return tuple(
        SnapshotChoice(
            name,
            run.tool.name if run.tool else "",
            tuple(snapshot.name for snapshot in run.snapshots),
            tuple(opened[name]),
        )
        for name, run in runs.items()
        if len(run.snapshots) > 1
    )


def all_of(runs: Mapping[str, Run]) -> list[Taken]:
    """Return all snapshots of runs in all forms, those that represent their runs first."""
    choices = [(name, run, run.chosen) for name, run in runs.items()]
    for name, run in runs.items():
        choices += [(name, run, Choice(snapshot, "")) for snapshot in run.snapshots]
        forms = (file for snapshot in run.snapshots for file, _ in snapshot.model.left_out)
        choices += [(name, run, run.named(file)) for file in forms]
    return [Taken(*choice) for choice in choices]


def open_all(
    taken: Mapping[str, Taken], weights: Weights = ""
) -> tuple[dict[str, Checkpoint], list[Finding]]:
    """Open checkpoints by reading their headers.

    Args:
        taken: `{name: snapshot}`.
        weights: The weight set to open in files that have several.
    """
    opened: dict[str, Checkpoint] = {}
    findings = []
    for name, each in taken.items():
        try:
            if each.is_required:
                raise _no_such_snapshot(each)
            if isinstance(weights, str):
                opened[name] = checkpoint = _open_preferring(each, weights)
                findings += _other_weights(name, checkpoint, weights)
            else:
                opened[name] = checkpoint = open_run(each.run, each.choice, weights.get(name))
        except (CheckpointError, OSError) as error:
            findings.append(_unusable(name, each.run.place, error))
        else:
            findings += _other_snapshot(name, each)
            findings += [
                Finding("note", name, "", note, "Nothing to do if this is intended.")
                for note in checkpoint.notes
            ]
    return opened, findings


def scan_all(
    opened: Mapping[str, Checkpoint],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
    """Read all checkpoints in full, except those that were read before.

    Args:
        opened: `{name: checkpoint}`.
        on_progress: Called with the number of bytes read and in total. Raise in it to cancel.

    Returns:
        Findings for files that are damaged or that changed while they were read.
    """
    total = sum(checkpoint.nbytes for checkpoint in opened.values())
    done = 0

    def on_bytes(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        on_progress(done, total)

    findings = []
    for name, checkpoint in opened.items():
        known = checkpoint.is_scanned
        try:
            checkpoint.scan(on_bytes)
        except (CheckpointError, OSError) as error:
            findings.append(_unusable(name, checkpoint.path, error))
        if known:
            on_bytes(checkpoint.nbytes)
    return findings


def snapshots_from_text(text: str) -> Snapshots:
    """Return a choice of snapshots from text: one for all runs, or a JSON object."""
    if not text.startswith("{"):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return {run: name for run, name in found.items() if isinstance(name, str)}


def snapshots_to_text(wanted: Snapshots) -> str:
    """Return a choice of snapshots as text, for `snapshots_from_text`."""
    return wanted if isinstance(wanted, str) else json.dumps(dict(wanted), ensure_ascii=False)


def _no_such_snapshot(taken: Taken) -> CheckpointError:
    return CheckpointError(
        f"{taken.run.place} has no snapshot {taken.missing!r}.",
        f"Choose one of its snapshots ({_listed(taken)}).",
    )


def _other_snapshot(name: str, taken: Taken) -> list[Finding]:
    """Return a finding if another snapshot is used than the requested one."""
    if not taken.missing or taken.choice is None:
        return []
    problem = f"has no snapshot {taken.missing!r}; {taken.choice.snapshot.name} is used"
    way_out = f"Choose one of its snapshots ({_listed(taken)}), or exclude it."
    return [Finding("warning", name, "", problem, way_out)]


def _listed(taken: Taken) -> str:
    return some([snapshot.name for snapshot in taken.run.snapshots])


def _open_preferring(taken: Taken, weights: str) -> Checkpoint:
    if not weights:
        return open_run(taken.run, taken.choice)
    try:
        opened = open_run(taken.run, taken.choice)
    except CheckpointError:  # the default set may be the one that cannot be read
        return open_run(taken.run, taken.choice, weights)
    named = [found.name for found in opened.weight_sets if weights in (found.name, found.title)]
    return open_run(taken.run, taken.choice, named[0]) if named else opened


def _other_weights(name: str, checkpoint: Checkpoint, weights: str) -> list[Finding]:
    """Return a finding if another weight set is used than the requested one."""
    taken = {found.name: found.title for found in checkpoint.weight_sets}
    if not weights or not taken or weights in (checkpoint.weights, taken[checkpoint.weights]):
        return []
    return [
        Finding(
            "warning",
            name,
            "",
            f"has no weight set {weights!r}; the default is used: {taken[checkpoint.weights]} "
            f"({checkpoint.weights})",
            f"Choose one of its sets ({', '.join(map(repr, taken))}), or exclude it.",
        )
    ]


def _unusable(name: str, path: Path, error: CheckpointError | OSError) -> Finding:
    problem, way_out = str(error), ""
    if isinstance(error, CheckpointError):
        problem, way_out = error.problem, error.way_out
    # Without paths, equal problems of several files can be grouped.
    problem = problem.removeprefix(f"{path}: ").replace(f"{path}/", "")
    problem = problem.replace(str(path), "the folder" if path.is_dir() else "the file")
    problem = problem.replace(f"{path.parent}/", "")
    way_out = way_out or "Exclude or replace it."
    return Finding("misfit", name, "", problem, way_out)
