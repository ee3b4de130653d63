"""Matrices of barriers between all pairs of ingredients."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from soupcore.connectivity.adaptive import ADAPTIVE
from soupcore.connectivity.lines import evaluate_lines
from soupcore.connectivity.path import Alphas, LinearPath, Pair
from soupcore.display import html_table, number
from soupcore.evaluation import Evaluator
from soupcore.inner_products import Floats
from soupcore.progress import Progress, no_progress, with_bar
from soupcore.sweeps import Sweep
from soupcore.tasks import NO_LABELS, Labels

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Barriers:
    """The paths between pairs of ingredients, and matrices of their barriers.

    Attributes:
        names: Names of the k ingredients.
        paths: `{(a, b): path}` of the evaluated pairs, in the order of the names.
    """

    names: tuple[str, ...]
    paths: Mapping[Pair, LinearPath]

    @property
    def loss(self) -> Floats:
        """Loss barriers [k, k], symmetric, 0 on the diagonal, NaN if a pair was not evaluated."""
        return self.matrix(lambda path: path.barrier)

    @property
    def error(self) -> Floats:
        """Error barriers [k, k], as `loss`; also NaN if the loss of an endpoint is not finite."""
        return self.matrix(lambda path: path.error_barrier)

    @property
    def error_over_mean(self) -> Floats:
        """Error barriers above the endpoint mean (Frankle et al. 2020) [k, k], as `error`."""
        return self.matrix(lambda path: path.error_barrier_over_mean)

    @property
    def midpoint_advantage(self) -> Floats:
        """Score of the midpoint minus the mean of the endpoint scores [k, k], as `loss`.

        Also NaN if α = ½ was not evaluated, as with an even number of α values.
        """
        return self.matrix(lambda path: path.midpoint_advantage)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether a pair was evaluated [k, k], symmetric, true on the diagonal.

        The barrier of an evaluated pair is NaN if a network is broken.
        """
        return ~np.isnan(self.matrix(lambda path: 0.0))

    def matrix(self, measure: Callable[[LinearPath], float]) -> Floats:
        """Return a metric of the paths [k, k], as `loss`."""
        matrix = np.full((len(self.names), len(self.names)), np.nan)
        np.fill_diagonal(matrix, 0.0)
        index = {name: number for number, name in enumerate(self.names)}
        for (a, b), path in self.paths.items():
            matrix[index[a], index[b]] = matrix[index[b], index[a]] = measure(path)
        return matrix

    @property
    def labels(self) -> Labels:
        """Names of the loss and the score, and the unit of the score."""
        return next((path.labels for path in self.paths.values()), NO_LABELS)

    def figure(self, measure: str = "loss") -> "go.Figure":
        """Draw the matrix of barriers (see `soupcore.figures.barrier_heatmap`).

        Args:
            measure: `loss`, `error`, `error (Frankle)` or `midpoint`.
        """
        from soupcore import figures  # loads Plotly

        name, unit = self.labels.score_name, self.labels.score_unit
        return figures.barrier_heatmap(self, measure=measure, score_name=name, score_unit=unit)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per pair with its barriers and their upper bounds."""
        from soupcore.figures.tables import barriers_table  # loads pandas

        paths = {pair: [path] for pair, path in self.paths.items()}
        return barriers_table(paths, score_unit=self.labels.score_unit)

    def __repr__(self) -> str:
        known = [path.barrier for path in self.paths.values()]
        span = f", loss barrier {number(min(known))} to {number(max(known))}" if known else ""
        of = math.comb(len(self.names), 2)
        return f"Barriers({len(known)} of {of} pairs of {len(self.names)} ingredients{span})"

    def _repr_html_(self) -> str:
        rows = [(name, *row) for name, row in zip(self.names, self.loss.tolist(), strict=True)]
        splits = ", ".join(dict.fromkeys(path.split for path in self.paths.values()))
        return html_table(f"Loss barriers on {splits or 'no split yet'}", ["", *self.names], rows)


@with_bar("Barriers")
def barriers(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> Barriers:
    """Evaluate the straight lines between all pairs of ingredients.

    Args:
        sweep: The sweep.
        evaluator: Computes evaluations that are not stored. With adaptive α these are k for the
            ingredients and, for each of the k(k−1)/2 pairs without a barrier, about 3 plus 2 on a
            part of the split (5 in total on a small split).
        names: Ingredients to use; by default, all.
        alphas: As for `evaluate_lines`.
        split: A split, or a part of one (`Task.part`) for a quick screen; by default, the select
            split.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
    """
    chosen = sweep.names(names)
    wanted = list(combinations(chosen, 2))
    lines = [(sweep[a], sweep[b]) for a, b in wanted]
    paths = evaluate_lines(lines, evaluator, alphas, split=split, on_progress=on_progress)
    named = {pair: replace(path, names=pair) for pair, path in zip(wanted, paths, strict=True)}
    return Barriers(tuple(chosen), named)
