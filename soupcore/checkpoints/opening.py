"""Opening of checkpoints and of snapshots of runs, in any format."""

import os
from collections.abc import Iterator
from pathlib import Path

from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.models import Model, why_distributed
from soupcore.checkpoints.names import clean
from soupcore.checkpoints.recognition import (
    BEGINNING,
    INDEX_SUFFIXES,
    OTHER_SUFFIXES,
    SUFFIXES,
    check_beginning,
    holds_weights,
    is_distributed,
    is_safetensors,
    suffix_of,
)
from soupcore.checkpoints.run_folders import Choice, Run, read_run
from soupcore.checkpoints.safetensors_format import SafetensorsCheckpoint
from soupcore.checkpoints.sharded import ShardedCheckpoint, open_index
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import CheckpointError
from soupcore.safe_torch.refusal import INCOMPLETE

_ZIP, _END_OF_ZIP = b"PK\3\4", b"PK\5\6"  # signatures
_LENGTH_OF_END = 22  # bytes of the last record of an archive of torch.save, which has no comment


def open_checkpoint(path: str | Path, weights: str | None = None) -> Checkpoint:
    """Open a checkpoint by reading only its header. No code in it is executed.

    Args:
        path: A `.safetensors` file; a file written by torch (a state dict, a model, or a training
            checkpoint) with the suffix `.pt`, `.pth`, `.bin`, `.ckpt` or `.pth.tar`, or with
            another name if its first bytes are torch's; a `*.index.json` of shards; or the folder
            of a model or of a training run, of which the snapshot that the training tool prefers is
            opened (see `soupcore.checkpoints.tools`).
        weights: Name of the weight set to open if the file has several (see
            `Checkpoint.weight_sets`). By default the conventional choice.

    Raises:
        CheckpointError: The file is missing, damaged, or not a checkpoint.
    """
    return _open(Path(path), weights)


def open_run(run: Run, choice: Choice | None, weights: str | None = None) -> Checkpoint:
    """Open a snapshot of a run; see `open_checkpoint`.

    Args:
        run: The run.
        choice: The snapshot. None if it is unclear which one represents the run: then its files are
            opened as one checkpoint if no two of them have the same tensor.
        weights: Name of the weight set to open.

    Raises:
        CheckpointError: It is unclear what to open, or the files are incomplete or damaged.
    """
    checkpoint = _joined(run) if choice is None else _open_model(choice.snapshot.model, weights)
    if checkpoint is None:
        raise _unclear(run)
    if choice is not None:
        checkpoint.notes += tuple(_notes_on(run, choice))
    return checkpoint


def _open(path: Path, weights: str | None) -> Checkpoint:
    if path.is_dir():
        return _open_folder(path, weights)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    if not holds_weights(path):
        if path.name.lower().endswith(OTHER_SUFFIXES):
            with path.open("rb") as file:
                check_beginning(path, file.read(BEGINNING))
        raise CheckpointError(
            f"{path} is not a checkpoint by its name or its first bytes; expected "
            f"{', '.join(SUFFIXES)}."
        )
    is_index = suffix_of(path) in INDEX_SUFFIXES
    checkpoint = open_index(path, _open_file) if is_index else _open_file(path, weights)
    # TorchCheckpoint checks the name, since even a single weight set may have one.
    if weights and not isinstance(checkpoint, TorchCheckpoint):
        raise CheckpointError(f"{path} has only one set of weights, and none named {weights!r}.")
    return checkpoint


def _open_file(path: Path, weights: str | None = None) -> Checkpoint:
    # The first bytes decide on the format, since users and download tools choose the names.
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LENGTH_OF_END))
        end = file.read(_LENGTH_OF_END)
    if is_safetensors(beginning, size):
        return SafetensorsCheckpoint(path)
    check_beginning(path, beginning)
    if beginning.startswith(_ZIP) and not end.startswith(_END_OF_ZIP):
        # Checked without a child process, because the cache misses each time for a file that is
        # still being written.
        problem = "It does not end like a zip archive: it was truncated, or something was appended."
        raise CheckpointError(f"{path} cannot be opened. {problem}", INCOMPLETE)
    if suffix_of(path) == ".safetensors" and not beginning.startswith((_ZIP, b"\x80")):
        return SafetensorsCheckpoint(path)
    try:
        return TorchCheckpoint(path, weights)
    except CheckpointError as error:
        if suffix_of(path) != ".safetensors":
            raise
        problem = f"{error.problem} (Despite its name, it is not a safetensors file.)"
        raise CheckpointError(problem, error.way_out) from None


def _open_model(model: Model, weights: str | None) -> Checkpoint:
    if model.trouble is not None:
        problem, way_out = model.trouble
        raise CheckpointError(f"{model.path} {problem}.", way_out)
    if not model.path.is_dir():
        return _open(model.path, weights)
    return ShardedCheckpoint(model.path, [_open_file(shard) for shard in model.files])


def _open_folder(folder: Path, weights: str | None) -> Checkpoint:
    run = read_run(folder)
    if not run.snapshots:
        is_empty = next(folder.iterdir(), None) is None
        problem = "is an empty folder" if is_empty else "is a folder without checkpoints"
        way_out = "Put a checkpoint there, or remove it."
        if any(map(is_distributed, folder.iterdir())):
            problem, way_out = why_distributed(folder)
        raise CheckpointError(f"{folder} {problem}.", way_out)
    return open_run(run, run.chosen, weights)


def _joined(run: Run) -> Checkpoint | None:
    """Return safetensors files as one checkpoint if no two of them have the same tensor."""
    paths = [snapshot.path for snapshot in run.snapshots]
    if any(path.parent != run.place or suffix_of(path) != ".safetensors" for path in paths):
        return None
    parts = [_open_file(path) for path in paths]
    names = [name for part in parts for name in part.tensors]
    return ShardedCheckpoint(run.place, parts) if len({*names}) == len(names) else None


def _unclear(run: Run) -> CheckpointError:
    names = [snapshot.name for snapshot in run.snapshots]
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return CheckpointError(
        f"{run.place} holds {len(names)} snapshots ({shown}), and it is not clear which one to "
        "open.",
        "Choose one of them, the last one, or all of them (`snapshot` of Sweep.from_folder), or "
        "keep only one.",
    )


def _notes_on(run: Run, choice: Choice) -> Iterator[str]:
    """Yield sentences on which of several files of a run is opened."""
    model = choice.snapshot.model
    rest = [other.name for other in run.snapshots if other.name != choice.snapshot.name]
    rest += [clean(other.name) for other in run.others]
    if rest and choice.reason:
        shown = ", ".join(rest[:4]) + (f" and {len(rest) - 4} more" if len(rest) > 4 else "")
        yield f"{choice.snapshot.name} is opened ({choice.reason}), not {shown}."
    for file, why in model.left_out:
        yield f"{clean(model.files[0].name)} is opened, not {clean(file)}: {why}."
