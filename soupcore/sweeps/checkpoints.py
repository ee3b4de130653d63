"""Opening every checkpoint of a sweep; what cannot be opened becomes a finding."""

from collections.abc import Callable, Mapping
from pathlib import Path

from soupcore.checkpoints import Checkpoint, open_checkpoint
from soupcore.errors import CheckpointError
from soupcore.sweeps.findings import Finding

Weights = str | Mapping[str, str]
"""Which weight sets to open: the name or title of one for all, or `{ingredient: name}`."""


def open_all(
    paths: Mapping[str, Path], weights: Weights = ""
) -> tuple[dict[str, Checkpoint], list[Finding]]:
    """Open checkpoints by reading their headers.

    Args:
        paths: `{name: path}`.
        weights: Which weight sets to open, where a file has several.
    """
    opened: dict[str, Checkpoint] = {}
    findings = []
    for name, path in paths.items():
        try:
            if isinstance(weights, str):
                opened[name] = checkpoint = _open_preferring(path, weights)
                findings += _not_what_was_asked(name, checkpoint, weights)
            else:
                opened[name] = checkpoint = open_checkpoint(path, weights.get(name))
        except (CheckpointError, OSError) as error:
            findings.append(_unusable(name, path, error))
        else:
            findings += [
                Finding("note", name, "", note, "Nothing to do, if that is what you mean.")
                for note in checkpoint.notes
            ]
    return opened, findings


def scan_all(
    opened: Mapping[str, Checkpoint],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
    """Read every byte of checkpoints that were not read before.

    Args:
        opened: `{name: checkpoint}`.
        on_progress: Called with bytes read and in all; raise in it to stop.

    Returns:
        Findings on those that are damaged.

    Raises:
        CheckpointError: A file was changed while it was read.
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
        except CheckpointError as error:
            if not checkpoint.is_scanned:  # changed or gone: nothing is known of it
                raise
            findings.append(_unusable(name, checkpoint.path, error))
        if known:
            on_bytes(checkpoint.nbytes)
    return findings


def _open_preferring(path: Path, weights: str) -> Checkpoint:
    if not weights:
        return open_checkpoint(path)
    try:
        opened = open_checkpoint(path)
    except CheckpointError:  # the set to take by convention may be the one that cannot be read
        return open_checkpoint(path, weights)
    named = [found.name for found in opened.weight_sets if weights in (found.name, found.title)]
    return open_checkpoint(path, named[0]) if named else opened


def _not_what_was_asked(name: str, checkpoint: Checkpoint, weights: str) -> list[Finding]:
    taken = {found.name: found.title for found in checkpoint.weight_sets}
    if not weights or not taken or weights in (checkpoint.weights, taken[checkpoint.weights]):
        return []
    return [
        Finding(
            "warning",
            name,
            "",
            f"holds no {weights!r}; its {taken[checkpoint.weights]} ({checkpoint.weights}) are "
            "taken, as without a choice",
            f"It has {', '.join(map(repr, taken))}: choose among these, or leave it out.",
        )
    ]


def _unusable(name: str, path: Path, error: CheckpointError | OSError) -> Finding:
    problem, way_out = str(error), ""
    if isinstance(error, CheckpointError):
        problem, way_out = error.problem, error.way_out
    # Said in the same words of every file, equal problems can be told together.
    problem = problem.removeprefix(f"{path}: ").replace(f"{path}/", "")
    problem = problem.replace(str(path), "the folder" if path.is_dir() else "the file")
    problem = problem.replace(f"{path.parent}/", "")
    way_out = way_out or "Leave it out, or replace it."
    return Finding("misfit", name, "", problem, way_out)
