"""The figures of a report, drawn from stored results, each with its title, splits and n."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from soupcore import figures
from soupcore.calls import Attribution
from soupcore.connectivity import tree
from soupcore.connectivity.basins import CONNECTED
from soupcore.display import capitalised, counted
from soupcore.evaluation import Evaluation
from soupcore.figures import tables
from soupcore.overview import BySplit, Overview, title
from soupcore.report import html
from soupcore.stored_soups import StoredSoup

_LARGEST = 100  # ingredients of a legible matrix


def drawn(known: Overview, stored: StoredSoup | None) -> str:
    """Return the section: the figures, or the reason why one is missing."""
    parts = [*_scores(known), *_basins(known), *(_of_soup(known, stored) if stored else ())]
    return "".join(parts)


def _about(known: Overview, *splits: str) -> str:
    texts = []
    for split in splits:
        n = len(known.context.task.split(split))
        texts.append(f"{known.context.task.split_title(split)}{f', n = {n}' if n > 1 else ''}")
    return " · ".join(texts)


def _sizes(known: Overview, shifts: Sequence[str]) -> str:
    sizes = [len(known.context.task.split(split)) for split in shifts]
    count = counted(len(shifts), "shifted split")
    low, high = min(sizes), max(sizes)
    n = f"n = {low}" if low == high else f"n = {low} to {high}"
    each = " each" if low == high and len(shifts) > 1 else ""
    return f"{count}, {n}{each}" if high > 1 else count


def _inks(known: Overview) -> Mapping[str, str]:
    return figures.ingredient_colours(known.names, basins=known.basin_numbers)


def _named(known: Overview) -> tuple[dict[str, BySplit], dict[str, str]]:
    """Return the evaluations and the kinds of all points by name, from back to front."""
    base = known.sweep.base.name if known.sweep.base else None
    kinds = dict.fromkeys(known.names, "ingredient")
    kinds |= {base: "base"} if base else {}
    soups = {stored.label: known.of_soups[stored.soup.id] for stored in known.soups}
    return {**known.runs, **soups}, {**kinds, **dict.fromkeys(soups, "soup")}


def _scores(known: Overview) -> Iterator[str]:
    """Draw test and shifts if the task has them, else validation and test, else validation."""
    task, labels = known.context.task, known.context.task.labels
    found, kinds = _named(known)
    inks, score = _inks(known), capitalised(task.score_name)
    names: dict[str, Any] = {"score_name": labels.score_name, "score_unit": labels.score_unit}
    shifts = task.splits_with_role("shift")
    better = "Up and to the right" if task.score_unit.sign > 0 else "Down and to the left"
    if known.report is not None and shifts:
        table = tables.shift_table(task, found, kinds).dropna().rename_axis("name")
        if not table.empty:
            yield html.plot(
                figures.shift_scatter(table, inks, **names),
                "scores",
                f"{score} vs. robustness",
                f"{_about(known, known.report)} · {_sizes(known, shifts)}",
                f"Each point is one network: its {task.score_name} on test, and the mean over the "
                f"shifted splits ({', '.join(shifts)}). {better} is better.",
                table,
            )
            return
    if known.report is not None:
        table = tables.select_table(task, found, kinds).dropna().rename_axis("name")
        if not table.empty:
            yield html.plot(
                figures.select_scatter(table, inks, **names),
                "scores",
                f"{score} on validation and on test",
                _about(known, task.select, known.report),
                f"Each point is one network. {better} is better. Validation was used for choosing.",
                table,
            )
            return
    on_select = {
        name: each
        for name in known.names
        if (each := known.runs[name][task.select]) is not None and math.isfinite(each.score)
    }
    if on_select:
        yield _on_select(known, on_select)
    else:
        yield html.paragraph("No scores yet.")


def _on_select(known: Overview, found: dict[str, Evaluation]) -> str:
    task, labels = known.context.task, known.context.task.labels
    ordered = dict(sorted(found.items(), key=lambda item: item[1].score, reverse=True))
    table = tables.scores_table(ordered)
    return html.plot(
        figures.accuracy_overview(
            table,
            _inks(known),
            score_name=labels.score_name,
            score_unit=labels.score_unit,
        ),
        "scores",
        f"{capitalised(task.score_name)} of the ingredients",
        _about(known, task.select),
        "The ingredients by their score, with 95 % intervals if there are any.",
        table,
    )


def _basins(known: Overview) -> Iterator[str]:
    task, labels, pairs = known.context.task, known.context.task.labels, known.pairs
    if len(pairs) == 0 or known.facts.basins is None:
        yield html.paragraph("No basins: no lines between ingredients have been evaluated.")
        return
    screened = known.facts.basins.screened
    about = _about(known, task.select)
    about += f"; screened on {screened} examples of it" if screened else ""
    table = known.basin_table()
    if not table.empty and known.best is not None:
        figure = figures.basin_map(table, _inks(known), best=known.best, **labels.for_figures)
        yield html.plot(
            figure,
            "basins",
            f"Basins around the best ingredient, {known.best}",
            about,
            f"Runs left of the dotted line ({CONNECTED:g}) have no {task.loss_name} barrier to "
            f"{known.best}. Triangles at the right edge lie beyond the axis.",
            table,
        )
    barriers = pairs.matrix("barrier")
    numbers = tables.pairs_table(known.names, {f"{task.loss_name} barrier": barriers})
    if len(known.names) > _LARGEST:
        text = f"The matrix of all pairs is not legible with {len(known.names)} ingredients."
        yield html.paragraph(text) + html.files(numbers, "pairs")
        return
    figure = figures.pair_heatmap(
        known.names,
        barriers,
        figures.measures(labels.score_unit)["loss"],
        tree=tree(known.names, barriers),
        threshold=CONNECTED,
        preliminary=pairs.preliminary,
        outlined=[basin.names for basin in known.basins if len(basin.names) > 1],
    )
    measured = int(np.isfinite(pairs.column("barrier")).sum())
    yield html.plot(
        figure,
        "pairs",
        "Barriers between all pairs",
        about,
        f"{capitalised(task.loss_name)} barrier on the line between two "
        f"ingredients: {measured} pairs. Faded cells are preliminary; outlines mark basins.",
        numbers,
    )


def _of_soup(known: Overview, stored: StoredSoup) -> Iterator[str]:
    task, labels, soup = known.context.task, known.context.task.labels, stored.soup
    labels = soup.chosen_by(task).labels
    about = f"{stored.label}; {_about(known, task.select)}"
    if soup.trace:
        yield html.plot(
            figures.greedy_trace(
                soup.trace, score_name=labels.score_name, score_unit=labels.score_unit
            ),
            "trace",
            f"How {title(soup).lower()} chose",
            about,
            "Each candidate in the order tried: the score of the soup with it, and of the soup "
            "kept. An arrow is an upper bound: the candidate was rejected early.",
            tables.trace_table(soup.trace),
        )
    if soup.passes:
        yield html.plot(
            figures.learning_curve(soup.passes),
            "passes",
            "Loss while the coefficients were learned",
            about,
            "Mean loss after each pass. The soup has the coefficients of the marked pass.",
            pd.DataFrame([each.to_json() for each in soup.passes]),
        )
    split = known.report or task.select
    shares = None
    if len(soup.ingredients) > 1:
        shares = Attribution(soup.id, split).shares(known.context)
    if shares is not None:
        yield html.plot(
            figures.attribution_bars(
                *shares,
                score_name=f"{task.score_name} on {split}",
                score_unit=labels.score_unit,
            ),
            "attribution",
            "Contribution of each ingredient",
            f"{stored.label}; {_about(known, split)}",
            "Shapley values, and the score lost without the ingredient. For reporting only.",
            tables.attribution_table(*shares),
        )
