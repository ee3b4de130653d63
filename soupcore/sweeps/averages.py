"""Detect ingredients that are averages of others, such as a soup saved next to its ingredients.

An average of such a file and its members would count the members twice. Stockpot's own soups have
their recipe in the metadata. Other averages (ESPnet's `ave_3best`, icefall's `avg-15`) are detected
by their values: an average is a combination of other checkpoints with coefficients between 0 and 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when they are first used
import torch

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.checkpoints.bounded_json import parse_object
from soupcore.checkpoints.recognition import stem_of
from soupcore.safe_torch.names import MARKER
from soupcore.sweeps.findings import Finding, some

_LARGEST_RECIPE = 8 << 20  # bytes
_MOST = 128  # with more checkpoints, no search for averages
_FEWEST_VALUES = 64  # smaller samples, as of toy networks, may be collinear by chance
_TENSORS = 64  # maximum number of tensors in a sample
_ROUNDING = 8  # tolerance in units of the dtype's epsilon, since tools sum in different ways
_SPREAD = 2  # minimum distance of members from an average, in units of the tolerance
_MAY_MISS = 0.01  # fraction of the values that may exceed the tolerance
_LEAST_SHARE = 1e-3
_WAY_OUT = "Exclude it, or exclude its members. Together they count twice."

Floats = npt.NDArray[np.float64]


def average_findings(
    checkpoints: Mapping[str, Checkpoint], base_name: str, base: Checkpoint | None
) -> list[Finding]:
    """Find ingredients that are averages of others, and soups saved by Stockpot.

    Args:
        checkpoints: The ingredients, scanned and with the same layout.
        base_name: Name of the base.
        base: The base, or None. It may be a member of an average too.
    """
    problems = {}
    for name, checkpoint in checkpoints.items():
        if recipe := _recipe_of(checkpoint):
            problems[name] = _problem_of_soup(recipe, name, checkpoints)
    points = dict(checkpoints) | ({base_name: base} if base is not None else {})
    for name, members in _averages(points).items():
        if name != base_name and name not in problems:
            listed = " and ".join(members) if len(members) == 2 else some(members)
            problems[name] = f"is an average of {listed}, which are in this sweep too"
    return [
        Finding("warning", name, "", problems[name], _WAY_OUT)
        for name in checkpoints
        if name in problems
    ]


def _recipe_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the recipe of a soup saved by Stockpot; empty for any other checkpoint."""
    text = checkpoint.metadata.get(MARKER)
    try:
        content = text.encode() if text is not None else _beside(checkpoint.path)
        recipe = parse_object(content) if content else {}
    except ValueError:
        return {}
    return recipe if isinstance(recipe.get("recipe"), str) else {}


def _beside(path: Path) -> bytes:
    beside = path.with_name(f"{stem_of(path)}.recipe.json")
    try:
        with beside.open("rb") as file:
            return file.read(_LARGEST_RECIPE)
    except OSError:
        return b""


def _problem_of_soup(
    recipe: Mapping[str, Any], soup: str, checkpoints: Mapping[str, Checkpoint]
) -> str:
    digests = recipe.get("digests")
    known = {*digests.values()} if isinstance(digests, dict) else set()
    members = [n for n, c in checkpoints.items() if n != soup and c.digest in known]
    what = f"is a soup saved by Stockpot ({recipe['recipe']})"
    return f"{what} of {some(members)}, which are in this sweep too" if members else what


def _averages(points: Mapping[str, Checkpoint]) -> dict[str, list[str]]:
    """Return the points whose values are averages of others: `{name: members}`."""
    if not 3 <= len(points) <= _MOST:
        return {}
    names = [*points]
    sample = _sample([*points.values()], max(1024, 8 * len(names)))
    if len(sample) < max(_FEWEST_VALUES, 4 * len(names)):
        return {}
    rounding = _ROUNDING * max(map(_last_digit, points.values()))
    found = {}
    for index in _dependent(sample, rounding):
        others = [i for i in range(len(names)) if i != index]
        shares = _shares(sample[:, index], sample[:, others], rounding)
        members = [names[i] for i, share in zip(others, shares, strict=True) if share]
        if len(members) > 1:
            found[names[index]] = members
    return found


def _sample(checkpoints: Sequence[Checkpoint], count: int) -> Floats:
    """Return the values of a sample of weights in each checkpoint, shape [values, checkpoints].

    The sample is taken from tensors that differ between checkpoints. If possible, it contains only
    matrices, since tools do not always average BatchNorm statistics.
    """
    differing = [
        name
        for name, info in checkpoints[0].tensors.items()
        if info.dtype.is_floating_point and info.numel and not are_known_alike(checkpoints, name)
    ]
    matrices = [name for name in differing if len(checkpoints[0].tensors[name].shape) > 1]
    if sum(checkpoints[0].tensors[name].numel for name in matrices) >= _FEWEST_VALUES:
        differing = matrices
    chosen = differing[:: -(-len(differing) // _TENSORS) or 1]
    each = -(-count // max(len(chosen), 1))

    def values(checkpoint: Checkpoint) -> Iterable[torch.Tensor]:
        for name in chosen:
            numel = checkpoint.tensors[name].numel
            start = max(0, (numel - each) // 2)
            yield checkpoint.read_elements(name, start, min(numel, start + each)).double()

    columns = [torch.cat([*values(checkpoint)]) for checkpoint in checkpoints if chosen]
    return torch.stack(columns, dim=1).numpy() if columns else np.empty((0, len(checkpoints)))


def _dependent(sample: Floats, rounding: float) -> list[int]:
    """Return the points that are affine combinations of others, within rounding.

    For points in general position there are none. An SVD shows this at once, whereas trying all
    subsets would take exponential time.
    """
    differences = sample[:, 1:] - sample[:, :1]
    _, lengths, directions = np.linalg.svd(differences, full_matrices=False)
    noise = rounding * np.abs(sample).max() * np.sqrt(len(sample))
    null = directions[lengths <= noise]
    loads = np.abs(np.concatenate([null.sum(axis=1, keepdims=True), null], axis=1))
    return [int(i) for i in np.flatnonzero((loads > _LEAST_SHARE).any(axis=0))]


def _shares(point: Floats, others: Floats, rounding: float) -> Floats:
    """Return the convex combination of `others` that equals `point`; all 0 if there is none.

    Args:
        point: Shape [values].
        others: Shape [values, k].
        rounding: Tolerance relative to the largest magnitude at the same position.
    """
    largest = np.abs(others).max(axis=1)
    tolerance = rounding * np.maximum(largest, np.abs(point)) + 1e-30
    heavy = 1e3  # weight of the constraint that the sum is 1
    scaled = np.vstack([others / tolerance[:, None], np.full(others.shape[1], heavy / rounding)])
    target = np.append(point / tolerance, heavy / rounding)
    shares, _ = scipy.optimize.nnls(scaled, target)
    shares[shares < _LEAST_SHARE] = 0
    if not shares.any() or abs(shares.sum() - 1) > _LEAST_SHARE:
        return np.zeros_like(shares)
    misses = np.abs(others @ shares - point) > tolerance
    apart = np.median(np.abs(others[:, shares > 0] - point[:, None]) / tolerance[:, None])
    is_average = misses.mean() <= _MAY_MISS and apart >= _SPREAD
    return shares if is_average else np.zeros_like(shares)


def _last_digit(checkpoint: Checkpoint) -> float:
    """Return the relative rounding error; at least that of float32, which most tools use."""
    dtypes = {info.dtype for info in checkpoint.tensors.values() if info.dtype.is_floating_point}
    return max(torch.finfo(dtype).eps for dtype in {*dtypes, torch.float32})
