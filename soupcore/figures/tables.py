"""The data behind each figure as a table, for the CSV export."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from soupcore.analysis import Calibration, Grid, Share
from soupcore.connectivity import Barriers, Geometry, LinearPath, PairSummaries, Plane
from soupcore.connectivity.path import Pair
from soupcore.connectivity.plane import Place
from soupcore.evaluation import Evaluation, compare
from soupcore.inner_products import Floats
from soupcore.recipes import Soup, Step
from soupcore.sweeps import Sweep
from soupcore.sweeps.hyperparameters import run_columns
from soupcore.tasks import SHARE, TaskInfo, Unit


def scores_table(evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Return one row per name with its score and interval."""
    rows = {name: (e.score, *e.score_interval) for name, e in evaluations.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["score", "low", "high"])
    return table.rename_axis("name")


def shift_table(
    task: TaskInfo[Any],
    evaluations: Mapping[str, Mapping[str, Evaluation | None]],
    kinds: Mapping[str, str],
) -> pd.DataFrame:
    """Return the score on report, the mean score under shift and the kind of each point, by name.

    Args:
        task: The task.
        evaluations: `{name: {split: evaluation}}`.
        kinds: `{name: kind}` of the points, as for `shift_scatter`.
    """
    report = next(iter(task.splits_with_role("report")), None)
    rows = {}
    for name, kind in kinds.items():
        scores = {split: each.score for split, each in evaluations[name].items() if each}
        of_report = None if report is None else scores.get(report)
        rows[name] = {"report": of_report, "shift": task.mean_shift(scores), "kind": kind}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["report", "shift", "kind"])
    return table.astype({"report": float, "shift": float})


def select_table(
    task: TaskInfo[Any],
    evaluations: Mapping[str, Mapping[str, Evaluation | None]],
    kinds: Mapping[str, str],
) -> pd.DataFrame:
    """Return the scores on select and on report and the kind of each point, by name.

    Args:
        task: The task, with a report split.
        evaluations: `{name: {split: evaluation}}`.
        kinds: `{name: kind}` of the points, as for `select_scatter`.
    """
    splits = {"select": task.select, "report": task.splits_with_role("report")[0]}
    rows = {
        name: {column: each.score if (each := evaluations[name][split]) else None
               for column, split in splits.items()} | {"kind": kind}
        for name, kind in kinds.items()
    }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["select", "report", "kind"])
    return table.astype({"select": float, "report": float})


def curve_table(
    task: TaskInfo[Any], values: Sequence[float], scores: Mapping[str, Sequence[float | None]]
) -> pd.DataFrame:
    """Return one row per value of a parameter with the score on select, on report and under shift.

    Args:
        task: The task. Columns of roles that none of its splits has are left out.
        values: The values.
        scores: `{split: scores}`, one score per value.
    """
    table = {"value": list(values), "select": list(scores[task.select])}
    if reports := task.splits_with_role("report"):
        table["report"] = list(scores[reports[0]])
    if task.splits_with_role("shift"):
        rows = [dict(zip(scores, row, strict=True)) for row in zip(*scores.values(), strict=True)]
        table["mean shift"] = [task.mean_shift(row) for row in rows]
    return pd.DataFrame(table).astype(float)


def logged_table(values: Mapping[str, float]) -> pd.DataFrame:
    """Return one row per name with its value of a logged metric."""
    return pd.DataFrame({"value": dict(values)}, index=[*values]).rename_axis("name")


def groups_table(
    groups: Mapping[str, str], scores: Sequence[float] = (), better: int = 0
) -> pd.DataFrame:
    """Return one row per group: its size, and the best, mean and worst score, the best group first.

    The size includes ingredients without a score. Equal groups, and groups without scores, keep the
    order in which they first occur.

    Args:
        groups: `{ingredient: group}`.
        scores: The score of each ingredient; NaN if it has none. Empty for a table without scores.
        better: 1 if higher scores are better, -1 if lower ones are.
    """
    table = pd.DataFrame({"name": list(groups), "group": list(groups.values())})
    by_group = table.groupby("group", sort=False)
    found = by_group.agg(ingredients=("name", "size"))
    if not scores:
        return found
    ranked = table.assign(score=np.array(scores, dtype=float)).sort_values(
        "score", ascending=better < 0, kind="stable", na_position="last"
    )
    by_rank = ranked.groupby("group", sort=False)["score"]
    firsts = ranked.dropna(subset="score").drop_duplicates("group").set_index("group")["name"]
    found["best ingredient"] = firsts.reindex(found.index)
    found["best"] = by_rank.first()
    found["mean"] = by_rank.mean()
    found["SD"] = by_rank.std()  # undefined for a single score
    found["worst"] = by_rank.last()
    return found.sort_values("best", ascending=better < 0, kind="stable", na_position="last")


def differences_table(
    task: TaskInfo[Any],
    evaluations: Mapping[str, Mapping[str, Evaluation | None]],
    baseline: str,
) -> pd.DataFrame:
    """Return the paired differences from a baseline, one row per name and split.

    Args:
        task: The task.
        evaluations: `{name: {split: evaluation}}`, also of the baseline.
        baseline: Name of the baseline.

    Returns:
        Columns: `name`, `split`, `difference` (higher is better), `low` and `high`, the ends of its
        95 % interval. Splits that lack one of two evaluations are left out.
    """
    rows = []
    for name, by_split in evaluations.items():
        for split, found in by_split.items():
            other = evaluations[baseline][split]
            if name != baseline and found is not None and other is not None:
                paired = compare(task, found, other)
                low, high = paired.interval or (math.nan, math.nan)
                rows.append((name, split, paired.difference, low, high))
    return pd.DataFrame(rows, columns=["name", "split", "difference", "low", "high"])


def coefficients_table(soup: Soup) -> pd.DataFrame:
    """Return the coefficients of a soup by name, the largest first; empty if they vary by tensor.

    Negative coefficients are ordered by magnitude. Equal ones keep the order of the sweep.
    """
    ordered = sorted(soup.coefficients.items(), key=lambda each: -abs(each[1]))
    rows = {name: float(c) for name, c in ordered}
    return pd.DataFrame({"coefficient": rows}, dtype=float).rename_axis("name")


def trace_table(trace: Sequence[Step]) -> pd.DataFrame:
    """Return one row per greedy step, with the score of the soup after it."""
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
    """Return one row per network and bin."""
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
    """Return one row per ingredient with its Shapley value and leave-one-out drop."""
    rows = {name: (*astuple(share), without[name]) for name, share in shapley.items()}
    columns = ["Shapley value", "standard error", "lost without it"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("ingredient")


def paths_table(paths: Mapping[Pair, Sequence[LinearPath]]) -> pd.DataFrame:
    """Return one row per path and α."""
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


def robustness_tables(paths: Mapping[Pair, Sequence[LinearPath]]) -> dict[str, pd.DataFrame]:
    """Return the scores on report and under shift along each path, as `from_base` draws them.

    Args:
        paths: `{(base, name): paths}` at the same α values: that on report, then one per shift.

    Returns:
        `{name: table}` with the columns `alpha`, `report` and `shift`.
    """
    return {
        name: pd.DataFrame(
            {
                "alpha": on_report.alphas,
                "report": on_report.scores,
                "shift": sum(path.scores for path in under_shift) / len(under_shift),
            }
        )
        for (_, name), (on_report, *under_shift) in paths.items()
    }


def barriers_table(
    paths: Mapping[Pair, Sequence[LinearPath]], *, score_unit: Unit = SHARE
) -> pd.DataFrame:
    """Return one row per path with its barriers and their upper bounds.

    Args:
        paths: As for `path_curves`.
        score_unit: Unit of the scores. Scores that are not accuracies have no error, so their
            columns are those of the score instead.
    """
    term = "error" if score_unit.counts_errors else "score"
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
                    f"{term} barrier": path.error_barrier_bracket[0],
                    f"{term} up to": path.error_barrier_bracket[1],
                    f"{term} over mean of ends": path.error_barrier_over_mean,
                    "midpoint advantage": path.midpoint_advantage,
                }
            )
    return pd.DataFrame(rows)


def summaries_table(found: PairSummaries, split: str, *, score_unit: Unit = SHARE) -> pd.DataFrame:
    """Return one row per pair with a summary, with the columns of `barriers_table`.

    Args:
        found: The summaries of the pairs.
        split: The split. The summaries of screened pairs are those of a part of it.
        score_unit: As for `barriers_table`.
    """
    term = "error" if score_unit.counts_errors else "score"
    return pd.DataFrame(
        {
            **_ends(found),
            "split": split,
            "n": found.column("n").astype(int),
            "points": found.column("points").astype(int),
            "loss barrier": found.column("barrier"),
            "up to": found.column("barrier_bound"),
            "at α": found.column("barrier_alpha"),
            f"{term} barrier": found.column("error_barrier"),
            f"{term} up to": found.column("error_bound"),
            f"{term} over mean of ends": found.column("over_mean"),
            "midpoint advantage": found.column("midpoint_advantage"),
        }
    )


def pairs_table(names: Sequence[str], measures: Mapping[str, Floats]) -> pd.DataFrame:
    """Return one row per pair and one column per metric of shape [k, k]."""
    one, other = np.triu_indices(len(names), k=1)
    by_place = np.array(names, dtype=object)
    columns = {title: values[one, other] for title, values in measures.items()}
    return pd.DataFrame({"first": by_place[one], "second": by_place[other], **columns})


def pairs_with(
    sweep: Sweep, values: Mapping[Pair, Mapping[str, float]], hyperparameter: str | None = None
) -> pd.DataFrame:
    """Return one row per pair with its values and the larger of two hyperparameter values.

    Args:
        sweep: The sweep of the ingredients.
        values: `{(a, b): {column: value}}`.
        hyperparameter: See `with_larger`.
    """
    ends = pd.DataFrame([*values], columns=["first", "second"])
    return with_larger(sweep, ends.join(pd.DataFrame([*values.values()])), hyperparameter)


def with_larger(sweep: Sweep, table: pd.DataFrame, hyperparameter: str | None) -> pd.DataFrame:
    """Return a table of pairs with the larger of two hyperparameter values.

    Args:
        sweep: The sweep of the ingredients.
        table: One row per pair, with the columns `first` and `second`.
        hyperparameter: A numeric hyperparameter for the column `colour`, which is NaN if neither
            ingredient has it. None for no such column.
    """
    if hyperparameter is None:
        return table
    # As NumPy arrays, since a table of strings is slow to iterate over.
    first, second = table["first"].to_numpy(object), table["second"].to_numpy(object)
    none, known = -math.inf, {}
    for name in {*first, *second}:
        number = sweep[name].hyperparameters.get(hyperparameter)
        known[name] = number if isinstance(number, int | float) else none
    larger = map(max, map(known.__getitem__, first), map(known.__getitem__, second))
    return table.assign(colour=[math.nan if number is none else number for number in larger])


def soups_and_ensembles_table(
    soups: PairSummaries, ensembles: Mapping[Pair, float]
) -> pd.DataFrame:
    """Return the scores of soup and ensemble, one row per pair that has both.

    Args:
        soups: The lines between the pairs, whose midpoints are the soups.
        ensembles: `{(a, b): score}`, with the names of a pair in the order of `soups`.
    """
    ends = _ends(soups)
    scores = [ensembles.get(pair) for pair in zip(*ends.values(), strict=True)]
    both = np.array([score is not None for score in scores], dtype=bool)
    return pd.DataFrame(
        {
            **{end: names[both] for end, names in ends.items()},
            "soup": soups.column("midpoint_score")[both],
            "ensemble": np.array(scores)[both].astype(float),
        }
    )


def angle_table(
    sweep: Sweep,
    geometry: Geometry,
    barriers: Barriers | PairSummaries,
    hyperparameter: str | None = None,
) -> pd.DataFrame:
    """Return one row per pair with the angle of its task vectors and its midpoint gain."""
    angles = geometry.angles
    at = {name: index for index, name in enumerate(geometry.names)}
    if isinstance(barriers, PairSummaries):
        table = pd.DataFrame(_ends(barriers))
        advantages = barriers.column("midpoint_advantage")
    else:
        table = pd.DataFrame([*barriers.paths], columns=["first", "second"])
        advantages = np.array([path.midpoint_advantage for path in barriers.paths.values()])
    one, other = ([*map(at.__getitem__, table[end].to_numpy(object))] for end in table.columns)
    table = table.assign(angle=angles[one, other], advantage=advantages)
    return with_larger(sweep, table, hyperparameter)


def plane_table(plane: Plane, places: Mapping[str, Place]) -> pd.DataFrame:
    """Return one row per grid point, then one row per projected model."""
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
    """Return one row per layer and one column per ingredient."""
    return pd.DataFrame(values, index=pd.Index(layers, name="layer"), columns=list(names))


def grid_table(grid: Grid) -> pd.DataFrame:
    """Return one row per combination of the two hyperparameters that occurs."""
    names = run_columns([grid.row_name, grid.column_name], ["mean", "n"])
    one, other = names[grid.row_name], names[grid.column_name]
    rows = [
        {one: row, other: column, "mean": grid.means[i, j], "n": count}
        for i, row in enumerate(grid.rows)
        for j, column in enumerate(grid.columns)
        if (count := int(grid.counts[i, j]))
    ]
    return pd.DataFrame(rows, columns=[one, other, "mean", "n"])


def _ends(found: PairSummaries) -> dict[str, "npt.NDArray[np.object_]"]:
    """Return the names of both ends of each pair."""
    names = np.array(found.names, dtype=object)
    return {"first": names[found.pairs[:, 0]], "second": names[found.pairs[:, 1]]}
