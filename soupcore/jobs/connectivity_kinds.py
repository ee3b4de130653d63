"""The kinds of long work of the connectivity pages, as `kinds` has the others.

An end of a line or a corner of a plane is the name of an ingredient or of the base, or
`{"soup": id}` for a soup of the store.
"""

from collections.abc import Callable
from itertools import combinations

from soupcore.connectivity import Adaptive, evaluate_lines, geometry, plane, stored_geometry
from soupcore.connectivity.known_lines import Alphas
from soupcore.connectivity.lines import keep_stored_lines
from soupcore.jobs.kinds import Report, Request, Result, WarmState
from soupcore.mixtures import Mixture
from soupcore.progress import part
from soupcore.stored_soups import StoredSoups
from soupcore.sweeps import Sweep

ADAPTIVE = "adaptive"
End = str | dict[str, str]


def paths(warm: WarmState, request: Request, report: Report) -> Result:
    """Evaluate lines between `pairs` of ends, or between all pairs of `names`.

    `alphas` is a number of points or "adaptive"; `splits` which splits; `part`, where it is there,
    of how many examples of each; `beyond` α outside [0, 1].
    """
    sweep, evaluator = warm.sweep(request), warm.evaluator(request)
    pairs = request["pairs"] if "pairs" in request else combinations(request["names"], 2)
    lines = [(point_of(warm, sweep, a), point_of(warm, sweep, b)) for a, b in pairs]
    splits = [
        evaluator.task.part(split, request["part"]) if "part" in request else split
        for split in request["splits"]
    ]
    for index, split in enumerate(splits):
        evaluate_lines(
            lines,
            evaluator,
            alphas_of(request["alphas"]),
            split=split,
            beyond=request.get("beyond", ()),
            on_progress=part(report, index, len(splits)),
        )
    return {"paths": len(lines) * len(splits)}


def note_pairs(warm: WarmState, request: Request, report: Report) -> Result:
    """Keep summaries of the lines between all pairs of `names` whose evaluations are stored."""
    sweep, evaluator = warm.sweep(request), warm.evaluator(request)
    lines = [(sweep[a], sweep[b]) for a, b in combinations(request["names"], 2)]
    split = request["split"]
    if "part" in request:
        split = evaluator.task.part(split, request["part"])
    keep_stored_lines(lines, evaluator, alphas_of(request["alphas"]), split=split)
    return {}


def evaluate_plane(warm: WarmState, request: Request, report: Report) -> Result:
    """Evaluate the plane through three `corners` on a `split`, coarse grids first.

    `points`, where it is there, are other ends to be projected onto it.
    """
    sweep, evaluator = warm.sweep(request), warm.evaluator(request)
    corners = [point_of(warm, sweep, corner) for corner in request["corners"]]
    points = [point_of(warm, sweep, end) for end in request.get("points", ())]
    if stored_geometry(sweep, warm.store) is None:
        geometry(sweep, warm.store, on_progress=report)
    plane(
        sweep,
        evaluator,
        corners,
        request["size"],
        split=request["split"],
        points=points,
        on_progress=report,
    )
    return {"points": request["size"] ** 2}


def measure(warm: WarmState, request: Request, report: Report) -> Result:
    """Compute the inner products of all ingredients, for angles and distances."""
    sweep = warm.sweep(request)
    geometry(sweep, warm.store, on_progress=report)
    return {"ingredients": len(sweep)}


def point_of(warm: WarmState, sweep: Sweep, end: End) -> Mixture:
    """Return where an end lies.

    Raises:
        RecipeError: There is no such soup any more, or it cannot be made again.
        SweepError: There is no such ingredient.
    """
    if isinstance(end, str):
        return sweep[end].mixture
    return StoredSoups(warm.store, sweep)[end["soup"]].soup.mixture


def alphas_of(alphas: int | str) -> Alphas:
    """Return the α that a request names."""
    return Adaptive() if alphas == ADAPTIVE else int(alphas)


KINDS: dict[str, Callable[[WarmState, Request, Report], Result]] = {
    "line": paths,  # one, of a cell that was clicked: it goes before all pairs
    "paths": paths,
    "known pairs": note_pairs,
    "plane": evaluate_plane,
    "geometry": measure,
}
