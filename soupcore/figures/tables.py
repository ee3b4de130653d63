"""The numbers of a figure as a table, one row a number that is drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import combinations

import numpy as np
import pandas as pd

from soupcore.analysis import Calibration, Share
from soupcore.analysis.grids import Grid
from soupcore.connectivity import Barriers, Geometry, LinearPath, Plane
from soupcore.connectivity.bracket import Floats
from soupcore.connectivity.plane import Place
from soupcore.evaluation import Evaluation
from soupcore.recipes import Step
from soupcore.sweeps import Sweep

Pair = tuple[str, str]


def scores_table(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Return a row for each name: the score and the ends of its interval."""
    rows = {name: (found.score, *found.score_interval) for name, found in evaluations.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["score", "low", "high"])
    return table.rename_axis("name")


def trace_table(trace: Sequence[Step]) -> pd.DataFrame:
    """Return a row for each step, with the score of the soup after it."""
    rows = []
    for step in trace:
        low, high = step.interval or (math.nan, math.nan)
        rows.append(
            {
                "candidate": step.candidate,
                "action": step.action,
                "score": step.score,
                "at most": step.is_bound,
                "accepted": step.accepted,
                "gained": step.gained,
                "lost": step.lost,
                "examples": step.examples,
                "gain, low": low,
                "gain, high": high,
            }
        )
    table = pd.DataFrame(rows)
    table["soup so far"] = table["score"].where(table["accepted"]).ffill()
    return table


def calibration_table(calibrations: Mapping[str, Calibration]) -> pd.DataFrame:
    """Return a row for each bin of each network."""
    rows = [
        {
            "network": name,
            "n": each.n,
            "confidence": each.confidence,
            "accuracy": each.accuracy,
            "low": each.interval[0],
            "high": each.interval[1],
            "ECE": found.ece,
            "temperature": found.temperature,
        }
        for name, found in calibrations.items()
        for each in found.bins
    ]
    return pd.DataFrame(rows)


def attribution_table(shapley: Mapping[str, Share], without: Mapping[str, float]) -> pd.DataFrame:
    """Return a row for each ingredient: its Shapley value, and what is lost without it."""
    rows = {name: (*astuple(share), without[name]) for name, share in shapley.items()}
    columns = ["Shapley value", "standard error", "lost without it"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("ingredient")


def paths_table(paths: Mapping[Pair, Sequence[LinearPath]]) -> pd.DataFrame:
    """Return a row for each point of each path."""
    rows = [
        {
            "first": a,
            "second": b,
            "split": path.split,
            "n": path.n,
            "alpha": alpha,
            "loss": loss,
            "chord": chord,
            "score": score,
        }
        for (a, b), many in paths.items()
        for path in many
        for alpha, loss, chord, score in zip(
            path.alphas, path.losses, path.chord, path.scores, strict=True
        )
    ]
    return pd.DataFrame(rows)


def barriers_table(paths: Mapping[Pair, Sequence[LinearPath]]) -> pd.DataFrame:
    """Return a row for each path: its barriers and what they are known to."""
    rows = []
    for (a, b), many in paths.items():
        for path in many:
            rows.append(
                {
                    "first": a,
                    "second": b,
                    "split": path.split,
                    "n": path.n,
                    "points": len(path.alphas),
                    "loss barrier": path.barrier_bracket[0],
                    "up to": path.barrier_bracket[1],
                    "at α": path.barrier_alpha,
                    "error barrier": path.error_barrier_bracket[0],
                    "error up to": path.error_barrier_bracket[1],
                    "midpoint advantage": path.midpoint_advantage,
                }
            )
    return pd.DataFrame(rows)


def pairs_table(names: Sequence[str], measures: Mapping[str, Floats]) -> pd.DataFrame:
    """Return a row for each pair, with a column for each measure of shape [k, k]."""
    rows = [
        {"first": names[i], "second": names[j]}
        | {title: values[i, j] for title, values in measures.items()}
        for i, j in combinations(range(len(names)), 2)
    ]
    return pd.DataFrame(rows, columns=["first", "second", *measures])


def pairs_with(
    sweep: Sweep, values: Mapping[Pair, Mapping[str, float]], hyperparameter: str | None = None
) -> pd.DataFrame:
    """Return a row for each pair, with its values and the larger of their hyperparameters.

    Args:
        sweep: Where the ingredients are from.
        values: Of each pair, by column.
        hyperparameter: A number that goes under `colour`; NaN where neither has it.
    """
    rows = []
    for (a, b), columns in values.items():
        row: dict[str, object] = {"first": a, "second": b, **columns}
        if hyperparameter is not None:
            known = [sweep[name].hyperparameters.get(hyperparameter) for name in (a, b)]
            numbers = [number for number in known if isinstance(number, int | float)]
            row["colour"] = max(numbers, default=float("nan"))
        rows.append(row)
    return pd.DataFrame(rows)


def angle_table(
    sweep: Sweep, geometry: Geometry, barriers: Barriers, hyperparameter: str | None = None
) -> pd.DataFrame:
    """Return a row for each pair with the angle between its vectors and its middle's advantage."""
    angles = geometry.angles
    at = {name: index for index, name in enumerate(geometry.names)}
    values = {
        (a, b): {"angle": angles[at[a], at[b]], "advantage": path.midpoint_advantage}
        for (a, b), path in barriers.paths.items()
    }
    return pairs_with(sweep, values, hyperparameter)


def plane_table(plane: Plane, places: Mapping[str, Place]) -> pd.DataFrame:
    """Return a row for each point of the grid, then one for each point projected onto it."""
    xs, ys = np.meshgrid(plane.xs, plane.ys)
    grid = pd.DataFrame(
        {
            "x": xs.ravel(),
            "y": ys.ravel(),
            "loss": plane.losses.ravel(),
            "score": plane.scores.ravel(),
            "split": plane.split,
        }
    )
    points = pd.DataFrame(
        [
            {"name": name, "x": place.x, "y": place.y, "distance": place.distance}
            for name, place in places.items()
        ]
    )
    return pd.concat([grid, points], ignore_index=True)


def layers_table(layers: Sequence[str], names: Sequence[str], values: Floats) -> pd.DataFrame:
    """Return a row for each layer, with a column for each ingredient."""
    return pd.DataFrame(values, index=pd.Index(layers, name="layer"), columns=list(names))


def grid_table(grid: Grid) -> pd.DataFrame:
    """Return a row for each combination of the two hyperparameters that something has."""
    rows = [
        {grid.row_name: row, grid.column_name: column, "mean": grid.means[i, j], "n": count}
        for i, row in enumerate(grid.rows)
        for j, column in enumerate(grid.columns)
        if (count := int(grid.counts[i, j]))
    ]
    return pd.DataFrame(rows, columns=[grid.row_name, grid.column_name, "mean", "n"])
