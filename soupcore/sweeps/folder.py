"""Find and name the runs in a folder, report its other entries, and detect changes of its files.

Writing a large file, by training or copying, may take minutes. A file counts as settled once two
consecutive listings agree on its size and time of change.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted, ns

from soupcore.checkpoints.digest import stamp
from soupcore.checkpoints.models import Model, models_in, why_distributed
from soupcore.checkpoints.names import clean
from soupcore.checkpoints.recognition import (
    OTHER_SUFFIXES,
    holds_weights,
    is_checkpoint_name,
    is_distributed,
    is_leftover,
    stem_of,
)
from soupcore.checkpoints.run_folders import Run, read_run, run_of_file
from soupcore.errors import SweepError
from soupcore.sweeps.findings import Finding

_DEPTH = "the folder, its subfolders, and the folders in those where tools put weights"
_DEEPEST = 6  # levels of subfolders to search for weights, for a finding
_DEEPEST_RUNS = 3  # levels of subfolders with runs, if there are none above
_MOST_ENTRIES = 5_000  # entries inspected in this search
_MOST_LISTED = 20_000  # files in a listing
_MOST_FOLDERS = 300  # subfolders of a level to search for runs

IsAllowed = Callable[[Path], bool]


@dataclass(frozen=True)
class Entries:
    """The entries of a sweep's folder other than its checkpoints.

    Attributes:
        findings: Entries that look like checkpoints but are not opened, with the reason.
        ignored: Files that trainers leave beside the weights, relative to the folder.
        others: All other entries, which are not checkpoints by name or first bytes.
    """

    findings: list[Finding]
    ignored: list[str]
    others: list[str]


class Status(NamedTuple):
    """Size of a file in bytes, and its time of change in nanoseconds."""

    size: int
    modified: int


Listing = Mapping[str, Status]
"""The checkpoints in a folder and its subfolders, by path relative to the folder."""


@dataclass(frozen=True)
class Changes:
    """The checkpoints that changed after a listing.

    Attributes:
        settled: New, changed and removed ones that were the same in the last two listings.
        unsettled: Those that are being written, with their current sizes in bytes.
    """

    settled: tuple[str, ...]
    unsettled: Mapping[str, int]


def stays_within(roots: Collection[Path] | None) -> IsAllowed:
    """Return a function that checks whether a path, with links resolved, is in `roots`.

    Without roots, all paths are.
    """
    if roots is None:
        return lambda path: True
    resolved = [root.resolve() for root in roots]

    def is_allowed(path: Path) -> bool:
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # a link to itself
            return False
        return any(target.is_relative_to(root) for root in resolved)

    return is_allowed


def find_runs(folder: Path, within: Collection[Path] | None = None) -> dict[str, Run]:
    """Return the runs in a folder by name, in natural order: files and subfolders with weights.

    If there are none, the runs in its subfolders count, as in `runs/detect/train` of Ultralytics,
    under names such as `detect/train`.

    Args:
        folder: The folder. Hidden entries are ignored.
        within: Folders that links must not leave; by default, links may lead anywhere.

    Raises:
        SweepError: The folder does not exist or cannot be read.
    """
    is_allowed = stays_within(within)
    found: dict[str, Run] = {}
    for level in _levels(folder, is_allowed):
        prefix = "" if level.folder == folder else f"{level.folder.relative_to(folder)}/"
        for run in sorted(level.runs, key=_preference):
            name = usual = prefix + _name(run)
            if name in found:
                name = prefix + clean(run.place.name)
            count = 1
            while name in found:
                count += 1
                name = f"{usual} ({count})"
            found[name] = run
    return {name: found[name] for name in natsorted(found, alg=ns.FLOAT)}


def find_entries(
    folder: Path, runs: Mapping[str, Run], within: Collection[Path] | None = None
) -> Entries:
    """Return the entries of a folder other than its checkpoints.

    Args:
        folder: The folder.
        runs: Its runs; see `find_runs`.
        within: See `find_runs`.
    """
    is_allowed = stays_within(within)
    found = Entries([], find_leftovers(folder), [])
    taken = {run.place for run in runs.values()}
    taken |= {file for run in runs.values() for file in run.files}
    taken |= {folder / name for name in found.ignored}
    levels = {folder, *(above for run in runs.values() for above in _above(run.place, folder))}
    for level in natsorted(levels, key=str):
        for entry in natsorted(_entries(level), key=lambda path: path.name):
            if entry in taken or entry in levels:
                continue
            name = clean(entry.relative_to(folder).as_posix())
            problem, way_out = _why_not(entry, is_allowed)
            if problem:
                found.findings.append(Finding("warning", name, "", problem, way_out))
            else:
                found.others.append(name)
    return found


def find_leftovers(folder: Path) -> list[str]:
    """Return the files that training tools leave beside the weights, relative to the folder."""
    files = [file for file in _looked_at(folder) if is_leftover(file)]
    return natsorted(file.relative_to(folder).as_posix() for file in files)


def folder_signature(folder: str | Path) -> str:
    """Return a text that changes whenever a file in the folder or its subfolders changes."""
    folder = Path(folder)
    return "\n".join(map(_stamp, sorted(file for file in _looked_at(folder) if file.is_file())))


def _stamp(file: Path) -> str:
    try:
        return stamp([file])
    except OSError as error:  # removed meanwhile, or not readable
        return f"{file}: {error.strerror}"


def list_checkpoints(folder: str | Path) -> Listing:
    """List the files in a folder that are checkpoints by name; empty if it cannot be read.

    Links to folders are not followed, since they may leave the folders that may be read.
    """
    found: dict[str, Status] = {}
    for count, entry in enumerate(_listed(str(folder), 0)):
        if count >= _MOST_LISTED:
            break
        path = Path(entry.path)
        if not is_checkpoint_name(path) or is_leftover(path):
            continue
        try:
            status = entry.stat()
        except OSError:  # removed meanwhile, or a link to nothing
            continue
        if stat.S_ISREG(status.st_mode):
            name = path.relative_to(folder).as_posix()
            found[name] = Status(status.st_size, status.st_mtime_ns)
    return found


def changes(before: Listing, last: Listing, now: Listing) -> Changes:
    """Return the checkpoints that changed after a listing.

    Args:
        before: The listing to compare with, such as that of the displayed sweep.
        last: The listing before `now`.
        now: The current listing.
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    settled = [name for name in names if last.get(name) == now.get(name)]
    unsettled = {name: now[name].size for name in natsorted({*names} & now.keys() - {*settled})}
    return Changes(tuple(natsorted(settled)), unsettled)


def _check_is_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SweepError(f"{folder} is not a folder.")


def _entries(folder: Path) -> list[Path]:
    _check_is_folder(folder)
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise SweepError(f"{folder} cannot be read ({error.strerror}).") from None


def _name(run: Run) -> str:
    if run.place.is_dir():
        return clean(run.place.name)
    stem = stem_of(run.place)
    end = next((end for end in OTHER_SUFFIXES if stem.lower().endswith(end) and stem != end), "")
    return clean(stem.removesuffix(stem[len(stem) - len(end) :]) if end else stem)


def _preference(run: Run) -> tuple[bool, str]:
    return not run.place.is_dir(), run.place.name


@dataclass(frozen=True)
class _Level:
    """A folder with runs, or above folders with runs."""

    folder: Path
    runs: list[Run]
    folders: list[Path]  # all searched folders


def _levels(folder: Path, is_allowed: IsAllowed = lambda path: True) -> list[_Level]:
    """Return the folder, or if it has no runs, its subfolders with runs."""
    first = _level(folder, is_allowed)
    levels, above = [first], [first]
    if first.runs or next(_weights_below(folder), None) is None:
        return levels
    for _ in range(_DEEPEST_RUNS):
        inner = [
            inner
            for level in above
            for inner in level.folders[1:]
            if inner.parent == level.folder and is_allowed(inner)
        ]
        above = [_level(each, is_allowed) for each in inner[:_MOST_FOLDERS]]
        levels += above
        if any(level.runs for level in above):
            break
    return levels


def _level(folder: Path, is_allowed: IsAllowed) -> _Level:
    try:
        entries = _entries(folder)
    except SweepError:
        if not folder.is_dir():
            raise
        return _Level(folder, [], [folder])
    files = [
        entry
        for entry in entries
        if entry.is_file() and not is_leftover(entry) and holds_weights(entry)
    ]
    runs = [run_of_file(_beside_others(model)) for model in models_in(folder, files)]
    folders = [folder]
    for entry in natsorted((entry for entry in entries if entry.is_dir()), key=lambda p: p.name):
        try:
            run = read_run(entry)
        except OSError:  # not readable, which becomes a finding
            continue
        folders += run.folders
        if run.snapshots:
            runs.append(run)
    return _Level(folder, [run for run in runs if not _leads_out(run, is_allowed)], folders)


def _beside_others(model: Model) -> Model:
    """Return a model in a sweep's own folder, where shards need an index."""
    if not model.path.is_dir():
        return model
    problem = f"is one of {len(model.files)} shards without their index"
    trouble = problem, "Copy the index beside them, or move them into a separate folder."
    return Model(model.name, model.files[0], model.files, model.left_out, trouble)


def _looked_at(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those of its subfolders that belong to runs."""
    _check_is_folder(folder)
    seen: set[Path] = set()
    for level in _levels(folder):
        for inner in (*level.folders, *(each / ".hydra" for each in level.folders[1:])):
            if inner not in seen:
                seen.add(inner)
                yield from (file for file in inner.glob("*") if file.is_file())


def _above(place: Path, folder: Path) -> Iterator[Path]:
    return (above for above in place.parents if above != folder and folder in above.parents)


def _leads_out(run: Run, is_allowed: IsAllowed) -> bool:
    """Return whether a run, or a file in its folder, is a link that leaves the allowed folders."""
    return not all(map(is_allowed, (run.place, *run.folders, *run.files)))


def _why_not(entry: Path, is_allowed: IsAllowed) -> tuple[str, str]:
    """Return why an entry that may be a checkpoint is not opened, and how to fix it."""
    if entry.is_symlink() and not entry.exists():
        target = clean(str(entry.readlink()))
        return f"is a link to {target}, which does not exist", "Copy the file, or remove the link."
    if not is_allowed(entry) or (entry.is_dir() and _folder_leads_out(entry, is_allowed)):
        return (
            "is or contains a link that leads out of the allowed folders",
            "Copy the checkpoint itself, or allow the folder that the link leads to.",
        )
    if not entry.is_dir():
        if not entry.is_file() and is_checkpoint_name(entry):
            return "is not a regular file", "Copy the checkpoint itself, or remove it."
        return "", ""
    if not os.access(entry, os.R_OK | os.X_OK):
        return "is a folder without read permission", "Change its permissions, or remove it."
    deep = next(_weights_below(entry), None)
    if deep is None and (parts := next(_files_below(entry, is_distributed), None)):
        return why_distributed(parts.parent)
    if deep is None:
        return "", ""
    return (
        f"contains weights too deep inside ({clean(deep.relative_to(entry).as_posix())}). "
        f"Stockpot searches {_DEPTH}",
        "Open that folder as a separate sweep, or move the checkpoints up.",
    )


def _folder_leads_out(folder: Path, is_allowed: IsAllowed) -> bool:
    try:
        return _leads_out(read_run(folder), is_allowed)
    except OSError:
        return False


def _weights_below(folder: Path) -> Iterator[Path]:
    """Yield files named like checkpoints in a folder that is not a run."""
    return _files_below(folder, lambda path: is_checkpoint_name(path) and not is_leftover(path))


def _files_below(folder: Path, is_wanted: Callable[[Path], bool]) -> Iterator[Path]:
    inside = (
        (Path(at), name)
        for at, folders, names in os.walk(folder)
        for name in _pruned(folders, Path(at), folder, names)
    )
    for at, name in islice(inside, _MOST_ENTRIES):
        path = at / name
        if is_wanted(path):
            yield path


def _pruned(folders: list[str], at: Path, top: Path, names: Sequence[str]) -> list[str]:
    """Make `os.walk` skip hidden and too deep folders; return the files that are not hidden."""
    deep = len(at.relative_to(top).parts) >= _DEEPEST
    folders[:] = [] if deep else sorted(n for n in folders if not n.startswith("."))
    return sorted(name for name in names if not name.startswith("."))


def _listed(folder: str, depth: int) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder and its subfolders, except hidden ones."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return
    for entry in visible:
        if not entry.is_dir(follow_symlinks=False):
            yield entry
        elif depth < _DEEPEST:
            yield from _listed(entry.path, depth + 1)
