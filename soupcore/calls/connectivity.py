"""Calls about lines and planes between models, and about the geometry of their weights.

An end of a line or a corner of a plane is the name of an ingredient or of the base, or
`{"soup": id}` for a soup of the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from soupcore.calls.base import Call, Report, Result
from soupcore.calls.code import Code, soup_again
from soupcore.calls.context import Context
from soupcore.connectivity import (
    Adaptive,
    Geometry,
    PairSummaries,
    Plane,
    evaluate_lines,
    geometry,
    known_pairs,
    plane,
    stored_geometry,
    stored_lines,
    stored_plane,
)
from soupcore.connectivity.lines import Lines, keep_stored_lines
from soupcore.connectivity.path import Alphas
from soupcore.mixtures import Mixture
from soupcore.progress import part

ADAPTIVE = "adaptive"
End = str | Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Paths(Call):
    """The evaluations of the lines between `pairs` of ends, or between all pairs of `names`.

    Attributes:
        alphas: Number of evenly spaced α values, or "adaptive".
        splits: The splits.
        names: The ingredients, or None.
        pairs: Pairs of ends, or None.
        part: Number of examples of each split to use; None for all.
        beyond: Additional α values outside [0, 1].
    """

    kind = "paths"
    is_shared = True
    alphas: int | str
    splits: tuple[str, ...]
    names: tuple[str, ...] | None = None
    pairs: tuple[tuple[End, End], ...] | None = None
    part: int | None = None
    beyond: tuple[float, ...] = ()

    def lines(self, context: Context) -> list[tuple[Mixture, Mixture]]:
        """Return both ends of each line."""
        return [(point_of(context, a), point_of(context, b)) for a, b in self.all_pairs]

    @property
    def all_pairs(self) -> Sequence[tuple[End, End]]:
        """Both ends of each line, in the form of the request."""
        return self.pairs or [*combinations(self.names or (), 2)]

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate the lines, split by split."""
        lines = self.lines(context)
        for index, split in enumerate(self.splits):
            evaluate_lines(
                lines,
                context.evaluator,
                alphas_of(self.alphas),
                split=_part(context, split, self.part),
                beyond=self.beyond,
                on_progress=part(report, index, len(self.splits)),
            )
        return {"paths": len(lines) * len(self.splits)}

    def result(self, context: Context) -> dict[str, Lines]:
        """Return the stored evaluations of the lines, by split."""
        lines, alphas = self.lines(context), alphas_of(self.alphas)
        return {
            split: stored_lines(
                lines,
                context.evaluations,
                alphas,
                split=_part(context, split, self.part),
                beyond=self.beyond,
            )
            for split in self.splits
        }

    def code(self, context: Context) -> Code:
        """Return Python for the `barriers` of all pairs on a split, or else `paths` by pair."""
        if self.names is not None and len(self.splits) == 1 and not self.beyond:
            return barriers_code(self.names, self.alphas, self.splits[0], self.part)
        lines = ""
        for pair in self.all_pairs:
            (a, one), (b, other) = (named_end(context, end) for end in pair)
            lines += f"    ({a!r}, {b!r}): ({one}, {other}),\n"
        arguments = _alphas_code(self.alphas) + ", split=split"
        arguments += f", beyond={list(self.beyond)!r}" if self.beyond else ""
        splits = f"{list(self.splits)!r}"
        if self.part is not None:
            splits = f"[task.part(split, {self.part}) for split in {splits}]"
        return Code(
            f"lines = {{\n{lines}}}\n"
            "paths = {\n"
            f"    pair: [soupcore.linear_path(*ends, evaluator{arguments}) for split in {splits}]\n"
            "    for pair, ends in lines.items()\n"
            "}\n"
        )


@dataclass(frozen=True, kw_only=True)
class ClickedPath(Paths):
    """The line of a clicked cell, which has priority over all pairs."""

    kind = "line"


@dataclass(frozen=True, kw_only=True)
class Pairs(Call):
    """Summaries of the lines between all pairs of ingredients whose evaluations are stored.

    Attributes:
        names: The ingredients.
        alphas: Number of evenly spaced α values, or "adaptive".
        split: The split.
        part: Number of its examples to use; None for all.
    """

    kind = "known pairs"
    names: tuple[str, ...]
    alphas: int | str
    split: str
    part: int | None = None

    def work(self, context: Context, report: Report) -> Result:
        """Store the summaries; nothing else is computed."""
        lines = [(context.sweep[a], context.sweep[b]) for a, b in combinations(self.names, 2)]
        split = _part(context, self.split, self.part)
        keep_stored_lines(lines, context.evaluator, alphas_of(self.alphas), split=split)
        return {}

    def result(self, context: Context) -> PairSummaries:
        """Return the stored summaries."""
        split = _part(context, self.split, self.part)
        alphas = alphas_of(self.alphas)
        return known_pairs(context.sweep, context.evaluations, self.names, alphas, split=split)

    def code(self, context: Context) -> Code:
        """Return Python for the summarised `barriers`."""
        return barriers_code(self.names, self.alphas, self.split, self.part)


@dataclass(frozen=True, kw_only=True)
class PlaneGrid(Call):
    """The evaluations on the plane through three corners, coarse grids first.

    Attributes:
        corners: The three corners, as ends.
        split: The split.
        size: Points per side.
        points: Other ends to project onto it.
    """

    kind = "plane"
    is_shared = True
    corners: tuple[End, ...]
    split: str
    size: int
    points: tuple[End, ...] = ()

    def work(self, context: Context, report: Report) -> Result:
        """Compute the geometry for the axes, then evaluate the plane."""
        sweep, evaluator = context.sweep, context.evaluator
        corners, points = self._ends(context)
        if stored_geometry(sweep, evaluator.store) is None:
            geometry(sweep, evaluator.store, on_progress=report)
        plane(
            sweep,
            evaluator,
            corners,
            self.size,
            split=self.split,
            points=points,
            on_progress=report,
        )
        return {"points": self.size**2}

    def result(self, context: Context) -> Plane | None:
        """Return the finest stored grid; see `soupcore.connectivity.stored_plane`."""
        corners, points = self._ends(context)
        return stored_plane(
            context.sweep,
            context.evaluations,
            corners,
            self.size,
            split=self.split,
            points=points,
        )

    def code(self, context: Context) -> Code:
        """Return Python for the `plane`, through `corners` and with `points` by name."""
        corners = dict(named_end(context, corner) for corner in self.corners)
        points = corners | dict(named_end(context, end) for end in self.points)
        named = "".join(f"    {name!r}: point({code}),\n" for name, code in points.items())
        return Code(
            f"points = {{\n{named}}}\n"
            f"corners = [points[name] for name in {list(corners)!r}]\n"
            "plane = soupcore.plane(\n"
            f"    sweep, evaluator, corners, {self.size}, split={self.split!r},\n"
            "    points=list(points.values()),\n"
            ")\n",
            ("from soupcore.connectivity import point",),
        )

    def _ends(self, context: Context) -> tuple[list[Mixture], list[Mixture]]:
        corners = [point_of(context, corner) for corner in self.corners]
        return corners, [point_of(context, end) for end in self.points]


@dataclass(frozen=True)
class WeightGeometry(Call):
    """The inner products of all ingredients, for angles and distances."""

    kind = "geometry"

    def work(self, context: Context, report: Report) -> Result:
        """Compute the inner products."""
        geometry(context.sweep, context.store, on_progress=report)
        return {"ingredients": len(context.sweep)}

    def result(self, context: Context, names: Sequence[str] | None = None) -> Geometry | None:
        """Return the geometry of ingredients, by default of all; None if it is not stored."""
        return stored_geometry(context.sweep, context.store, names)

    def code(self, context: Context, names: Sequence[str] | None = None) -> Code:
        """Return Python for the `geometry` of ingredients, by default of all."""
        chosen = "" if names is None else f", names={list(names)!r}"
        return Code(f"geometry = soupcore.geometry(sweep{chosen})\n")


def point_of(context: Context, end: End) -> Mixture:
    """Return the point of an end.

    Raises:
        RecipeError: The soup was deleted, or it cannot be rebuilt.
        SweepError: There is no such ingredient.
    """
    if isinstance(end, str):
        return context.sweep[end].mixture
    return context.soups[end["soup"]].soup.mixture


def named_end(context: Context, end: End) -> tuple[str, str]:
    """Return the label of an end, and an expression for it, given `sweep` and `Fraction`."""
    if isinstance(end, str):
        return end, f"sweep[{end!r}]"
    stored = context.soups[end["soup"]]
    return stored.label, f"{soup_again(stored.soup, stored.soups)}.mixture"


def barriers_code(
    names: Sequence[str], alphas: int | str, split: str, examples: int | None = None
) -> Code:
    """Return Python for the `barriers` between all pairs of ingredients."""
    at = repr(split) if examples is None else f"task.part({split!r}, {examples})"
    return Code(
        f"names = {list(names)!r}\n"
        f"barriers = soupcore.barriers(sweep, evaluator, names{_alphas_code(alphas)}, split={at})\n"
    )


def alphas_of(alphas: int | str) -> Alphas:
    """Return the α values of a request."""
    return Adaptive() if alphas == ADAPTIVE else int(alphas)


def _alphas_code(alphas: int | str) -> str:
    return "" if alphas == ADAPTIVE else f", {alphas}"


def _part(context: Context, split: str, examples: int | None) -> str:
    return split if examples is None else context.task.part(split, examples)
