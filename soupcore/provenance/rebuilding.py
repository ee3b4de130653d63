"""Rebuilding of a soup from its manifest, bit for bit."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.opening import open_run
from soupcore.checkpoints.recognition import suffix_of
from soupcore.checkpoints.renamed import named_like, without
from soupcore.errors import CheckpointError, RecipeError, SweepError
from soupcore.merges import merge_from_json
from soupcore.recipes.soup import Soup
from soupcore.remote import RemoteFile
from soupcore.sweeps import FitReport, Ingredient, Sweep
from soupcore.sweeps.adapters import is_lora
from soupcore.sweeps.folder import find_runs
from soupcore.sweeps.remote import RemoteSweep
from soupcore.sweeps.snapshots import Taken, all_of

_Source = tuple[str, str]
"""Name and digest of a checkpoint in a manifest."""

# Exceptions raised when a manifest is incomplete or malformed.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def rebuild(manifest: Mapping[str, Any], folder: str | Path | None = None) -> Soup:
    """Rebuild a soup from its manifest and the checkpoints in a folder.

    The manifest has the coefficients or the description of the merge, so nothing is evaluated or
    chosen again. Checkpoints are identified by the digest of their weights, so they may have been
    renamed or converted to another format.

    Args:
        manifest: The JSON of `Soup.to_json`, which is in the metadata of every saved soup.
        folder: Folder of the ingredients, and of the base if the soup uses it. Checkpoints that it
            lacks are downloaded if the manifest has their URLs, unless they are in the cache. It
            may be omitted if the manifest has the URLs of all.

    Returns:
        The soup. Saving it gives the same bytes as before.

    Raises:
        RecipeError: Checkpoints without URLs are missing or have other weights (then nothing is
            downloaded, and the message names all of them), a later version of Stockpot made the
            soup, or the manifest is invalid.
        RemoteError: A remote file is gone or changed, or access is refused.
        SweepError: The folder does not exist.
    """
    try:
        return _rebuild(manifest, [] if folder is None else [Path(folder)])
    except _BROKEN as error:
        raise RecipeError(
            "This is not a complete manifest of a soup. Use the JSON from the page of the soup, or "
            "from the metadata of a saved soup under 'stockpot'."
        ) from error


def _rebuild(manifest: Mapping[str, Any], folders: list[Path]) -> Soup:
    digests: Mapping[str, str] = manifest["digests"]
    soups = manifest.get("soups", {})
    wanted = [(name, digest) for name, digest in digests.items() if digest not in soups]
    wanted += [(file, digest) for digest, file in manifest.get("soup_files", {}).items()]
    found = _found(manifest, wanted, folders)
    if tensors := manifest.get("tensors"):  # tensor names in files may differ from the sweep's
        found = {source: _seen_as(c, tensors) for source, c in found.items()}
    by_digest = {digest: checkpoint for (_, digest), checkpoint in found.items()}

    @cache
    def checkpoint_of(digest: str) -> Checkpoint:
        described = soups.get(digest)
        return merge_from_json(described, checkpoint_of) if described else by_digest[digest]

    sources = {
        name: Ingredient(name, found.get((name, digest)) or checkpoint_of(digest))
        for name, digest in digests.items()
    }
    base = sources.pop(manifest["base"]) if manifest.get("base") else None
    sweep = Sweep(folders[0], sources, base, FitReport())
    try:
        return Soup.from_json(sweep, manifest)
    except SweepError as error:
        raise LookupError("The manifest lacks the digest of a source.") from error


def _found(
    manifest: Mapping[str, Any], wanted: Collection[_Source], folders: list[Path]
) -> dict[_Source, Checkpoint]:
    """Return the wanted checkpoints from `folders`, after downloading the rest.

    Nothing is downloaded if a missing checkpoint has no URL. The folder of the downloads is
    appended to `folders`.
    """
    remote: Mapping[str, Any] = manifest.get("remote") or {}
    if not folders and not remote:
        raise RecipeError(
            "The manifest of this soup has no URLs of its ingredients. Give the folder that "
            "contains them."
        )
    weight_sets = {*manifest.get("weight_sets", {}).values()}
    found, problems = _find(wanted, folders, weight_sets)
    claimed = {source: _claimed(source[0], remote) for source in wanted}
    unclaimed = remote.keys() - set().union(*claimed.values())
    local = {source: problem for source, problem in problems.items() if not claimed[source]}
    if problems and remote and (unclaimed or not local):
        needed = unclaimed.union(*(claimed[source] for source in problems))
        folders.append(_downloaded({path: remote[path] for path in remote if path in needed}))
        downloaded, problems = _find([*problems], folders[-1:], weight_sets)
        found |= downloaded
    elif local:
        problems = local
    if problems:
        where = " and ".join(map(str, folders)) or "its URLs alone"
        raise RecipeError(f"Cannot rebuild the soup from {where}: {'; '.join(problems.values())}.")
    return found


def _downloaded(files: Mapping[str, Any]) -> Path:
    """Download the files of `{path: pinned file as JSON}`, and return their folder."""
    sweep = RemoteSweep.of_files({at: RemoteFile.from_json(file) for at, file in files.items()})
    sweep.download()
    return sweep.folder


def _claimed(name: str, paths: Collection[str]) -> set[str]:
    """Return the paths of the remote files that a name or a path in a manifest may mean.

    Names come from files or from folders with files. A file without such a name, such as a shard,
    is not claimed.
    """
    for wanted in (name, name.partition("/")[0]):  # `run/epoch 3` is in the folder of the run
        found = {path for path in paths if wanted in _names(path)}
        if found:
            return found
    return set()


def _names(path: str) -> set[str]:
    parts = path.split("/")
    above = {"/".join(parts[:count]) for count in range(1, len(parts))}
    return {path, parts[-1], path.removesuffix(suffix_of(Path(path))), *above}


def _seen_as(checkpoint: Checkpoint, tensors: Mapping[str, Any]) -> Checkpoint:
    """Return a checkpoint with the tensors and tensor names that the sweep used."""
    if is_lora(checkpoint):  # its names are those of factors
        return checkpoint
    names = {*tensors["names"]}
    named = named_like(checkpoint, names, tensors["ties"])
    return without(named, [name for name in named.tensors if name not in names])


def _find(
    wanted: Collection[_Source], folders: Sequence[Path], weight_sets: Collection[str]
) -> tuple[dict[_Source, Checkpoint], dict[_Source, str]]:
    """Return the checkpoints in the folders, and why the others are not found."""
    snapshots = [each for folder in folders for each in all_of(find_runs(folder))]
    # Only files and subfolders of the folders are opened, whatever paths the manifest contains.
    places = {name: _places(name, snapshots) for name, _ in wanted}
    found = {
        (name, digest): checkpoint
        for name, digest in wanted
        for checkpoint in _search(places[name], {digest}, weight_sets).values()
    }
    missing = {digest for name, digest in wanted if (name, digest) not in found}
    elsewhere = _search(snapshots, missing, weight_sets)  # files may have been renamed
    problems = {}
    for name, digest in wanted:
        if digest in elsewhere:
            found.setdefault((name, digest), elsewhere[digest])
        elif (name, digest) not in found:
            problem = "is missing"
            if places[name]:
                readable = any(any(_weight_sets(place, weight_sets)) for place in places[name])
                problem = "has other weights" if readable else "cannot be read"
            problems[name, digest] = f"{name} {problem} (needed: SHA-256 {digest[:16]}…)"
    return found, problems


def _places(name: str, snapshots: Iterable[Taken]) -> list[Taken]:
    """Return the snapshots that a name or a path in a manifest may mean."""
    first = name.partition("/")[0]
    return [
        each
        for each in snapshots
        if first in (each.name, each.run.place.name) or f"{name}/".startswith(f"{each.name}/")
    ]


def _search(
    places: Iterable[Taken], digests: Collection[str], weight_sets: Iterable[str]
) -> dict[str, Checkpoint]:
    """Return the weight sets in snapshots that have one of the digests, by digest."""
    found: dict[str, Checkpoint] = {}
    for place in places:
        for digest, checkpoint in _weight_sets(place, weight_sets) if digests else ():
            if digest in digests:
                found[digest] = checkpoint
            if len(found) == len(digests):
                return found
    return found


def _weight_sets(place: Taken, first: Iterable[str]) -> Iterator[tuple[str, Checkpoint]]:
    """Yield all readable weight sets in a snapshot with their digests, starting with `first`."""
    names = [*first, None]
    for name in names:  # grows in the loop, since an open file lists its other sets
        try:
            checkpoint = open_run(place.run, place.choice, name)
            digest = checkpoint.digest
        except (CheckpointError, OSError):
            continue
        yield digest, checkpoint
        names += [other.name for other in checkpoint.weight_sets if other.name not in names]
