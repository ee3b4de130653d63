"""From a soup's manifest back to the soup, bit for bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soupcore.checkpoints import Checkpoint, open_checkpoint
from soupcore.errors import CheckpointError, RecipeError
from soupcore.recipes.soup import Soup
from soupcore.sweeps import FitReport, Ingredient, Sweep
from soupcore.sweeps.folder import find_checkpoints


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
            later version of Stockpot made the soup.
        SweepError: The folder does not exist.
    """
    folder = Path(folder)
    try:
        wanted: Mapping[str, str] = manifest["digests"]
        base = manifest.get("base")
    except (TypeError, KeyError):
        raise RecipeError(
            "This is no manifest of a soup: it has no digests. Take the JSON from the download "
            "page, or from the metadata of a saved soup under 'stockpot'."
        ) from None
    found = _find(wanted, folder)
    sweep = Sweep(
        folder,
        {name: Ingredient(name, found[name]) for name in wanted if name != base},
        Ingredient(base, found[base]) if base else None,
        FitReport(),
    )
    return Soup.from_json(sweep, manifest)


def _find(wanted: Mapping[str, str], folder: Path) -> dict[str, Checkpoint]:
    paths = find_checkpoints(folder)
    opened = {name: _open(paths[name]) for name in wanted if name in paths}
    found = {
        name: checkpoint
        for name, checkpoint in opened.items()
        if checkpoint is not None and checkpoint.digest == wanted[name]
    }
    if len(found) < len(wanted):  # somebody may have renamed them
        others = [_open(path) for name, path in paths.items() if name not in opened]
        by_digest = {c.digest: c for c in (*opened.values(), *others) if c is not None}
        found |= {name: by_digest[digest] for name, digest in wanted.items() if digest in by_digest}
    problems = []
    for name, digest in wanted.items():
        if name not in found:
            what = "is missing"
            if name in opened:
                what = "has other weights" if opened[name] else "cannot be read"
            problems.append(f"{name} {what} (those needed have the digest {digest[:16]}…)")
    if problems:
        raise RecipeError(f"{folder} cannot make this soup: {'; '.join(problems)}.")
    return found


def _open(path: Path) -> Checkpoint | None:
    try:
        return open_checkpoint(path)
    except (CheckpointError, OSError):
        return None
