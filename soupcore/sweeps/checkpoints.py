"""Open all checkpoints of a sweep. Checkpoints that cannot be opened become findings."""

from collections.abc import Callable, Mapping
from pathlib import Path

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.opening import open_run
from soupcore.errors import CheckpointError
from soupcore.sweeps.findings import Finding, some
from soupcore.sweeps.snapshots import Taken

Weights = str | Mapping[str, str]
"""The weight set to open: one name or title for all files, or `{ingredient: name}`."""


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
                findings += _not_what_was_asked(name, checkpoint, weights)
            else:
                opened[name] = checkpoint = open_run(each.run, each.choice, weights.get(name))
        except (CheckpointError, OSError) as error:
            findings.append(_unusable(name, each.run.place, error))
        else:
            findings += _not_the_snapshot_that_was_asked(name, each)
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


def _no_such_snapshot(taken: Taken) -> CheckpointError:
    return CheckpointError(
        f"{taken.run.place} has no snapshot {taken.missing!r}.",
        f"Choose one of its snapshots ({_listed(taken)}).",
    )


def _not_the_snapshot_that_was_asked(name: str, taken: Taken) -> list[Finding]:
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


def _not_what_was_asked(name: str, checkpoint: Checkpoint, weights: str) -> list[Finding]:
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
