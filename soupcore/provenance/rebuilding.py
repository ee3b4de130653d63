"""From a soup's manifest back to the soup, bit for bit."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from soupcore.checkpoints import Checkpoint, open_checkpoint
from soupcore.checkpoints.renamed import named_like
from soupcore.errors import CheckpointError, RecipeError, SweepError
from soupcore.merges import merge_from_json
from soupcore.recipes.soup import Soup
from soupcore.sweeps import FitReport, Ingredient, Sweep
from soupcore.sweeps.folder import find_checkpoints

Who = tuple[str, str]
"""Name and digest."""

# What reading a manifest raises where something is not there, or not of its kind.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def rebuild(manifest: Mapping[str, Any], folder: str | Path) -> Soup:
    """Make a soup again from its manifest and the checkpoints in a folder.

    Nothing is evaluated and nothing chosen again: the manifest says the coefficients, or how the
    weights are computed. Checkpoints are known by the digest of their weights, so they may have
    other names or file formats than they had.

    Args:
        manifest: What `Soup.to_json` gave; it is in the metadata of every saved soup.
        folder: Where the ingredients, and the base where it took part, are.

    Returns:
        The soup; saved, it gives the bytes that were saved before.

    Raises:
        RecipeError: Checkpoints are missing or have other weights; all of them are named. Or a
            later version of Stockpot made the soup, or it is no manifest.
        SweepError: The folder does not exist.
    """
    try:
        return _rebuild(manifest, Path(folder))
    except _BROKEN as error:
        raise RecipeError(
            "This is no manifest of a soup, or not a whole one. Take the JSON from the download "
            "page, or from the metadata of a saved soup under 'stockpot'."
        ) from error


def _rebuild(manifest: Mapping[str, Any], folder: Path) -> Soup:
    digests: Mapping[str, str] = manifest["digests"]
    soups = manifest.get("soups", {})
    wanted = [(name, digest) for name, digest in digests.items() if digest not in soups]
    wanted += [(file, digest) for digest, file in manifest.get("soup_files", {}).items()]
    found = _find(wanted, folder, {*manifest.get("weight_sets", {}).values()})
    if tensors := manifest.get("tensors"):  # files may have other names than the sweep had
        found = {who: named_like(c, tensors["names"], tensors["ties"]) for who, c in found.items()}
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
    sweep = Sweep(folder, sources, base, FitReport())
    try:
        return Soup.from_json(sweep, manifest)
    except SweepError as error:
        raise LookupError("It is made of what it has no digest of.") from error


def _find(
    wanted: Collection[Who], folder: Path, weight_sets: Collection[str]
) -> dict[Who, Checkpoint]:
    paths = find_checkpoints(folder)
    by_name = {path.name: path for path in paths.values()} | paths
    # A file in a folder of its own is found with its folder; nothing else that is named is opened.
    places = {name: by_name.get(name.partition("/")[0]) for name, _ in wanted}
    found = {
        (name, digest): checkpoint
        for name, digest in wanted
        if (path := places[name]) is not None
        for checkpoint in _search(path, {digest}, weight_sets).values()
    }
    missing = {digest for name, digest in wanted if (name, digest) not in found}
    elsewhere: dict[str, Checkpoint] = {}  # somebody may have renamed them
    for path in paths.values():
        elsewhere |= _search(path, missing - elsewhere.keys(), weight_sets)
    problems = []
    for name, digest in wanted:
        if digest in elsewhere:
            found.setdefault((name, digest), elsewhere[digest])
        elif (name, digest) not in found:
            what = "is missing"
            if (place := places[name]) is not None:
                readable = any(_weight_sets(place, weight_sets))
                what = "has other weights" if readable else "cannot be read"
            problems.append(f"{name} {what} (those needed have the digest {digest[:16]}…)")
    if problems:
        raise RecipeError(f"{folder} cannot make this soup: {'; '.join(problems)}.")
    return found


def _search(
    path: Path, digests: Collection[str], weight_sets: Iterable[str]
) -> dict[str, Checkpoint]:
    """Return what a file holds of the weights with these digests, by digest."""
    found: dict[str, Checkpoint] = {}
    for digest, checkpoint in _weight_sets(path, weight_sets) if digests else ():
        if digest in digests:
            found[digest] = checkpoint
        if len(found) == len(digests):
            break
    return found


def _weight_sets(path: Path, first: Iterable[str]) -> Iterator[tuple[str, Checkpoint]]:
    """Give all sets of weights in a file that can be read, with their digests; some come first."""
    names = [*first, None]
    for name in names:  # which grow, as a file tells what else is in it
        try:
            checkpoint = open_checkpoint(path, name)
            digest = checkpoint.digest
        except (CheckpointError, OSError):
            continue
        yield digest, checkpoint
        names += [other.name for other in checkpoint.weight_sets if other.name not in names]
