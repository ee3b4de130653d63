"""One parameter of a recipe at several values: a curve, to pick a value from."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import asking, export, jobs, optimism, parameters, snippets
from pages.components.state import View
from soupcore import figures
from soupcore.recipes import Number, Recipe


def show(view: View, recipe: Recipe, names: list[str], given: Mapping[str, Any]) -> None:
    """Offer a curve over each parameter that the recipe's paper tries values of."""
    numbers = [p for p in recipe.parameters if isinstance(p, Number) and p.curve]
    if not numbers:
        return
    symbols = " or ".join(number.symbol for number in numbers)
    with st.expander(
        f"Choose {symbols} by a curve",
        icon=":material/show_chart:",
        key=f"curve-of-{recipe.name}",
    ):
        number = numbers[0]
        if len(numbers) > 1:
            by_name = {number.name: number for number in numbers}
            number = by_name[
                st.segmented_control(
                    "Over",
                    list(by_name),
                    default=number.name,
                    format_func=lambda name: by_name[name].label,
                    required=True,
                    key=f"{recipe.name}-over",
                )
            ]
        _curve(view, recipe, number, names, given)


def _curve(
    view: View, recipe: Recipe, number: Number, names: list[str], given: Mapping[str, Any]
) -> None:
    others = {name: value for name, value in given.items() if name != number.name}
    request = view.request | {
        "recipe": recipe.name,
        "parameter": number.name,
        "names": names,
        "values": list(number.curve),
        "splits": view.task.reported,
        "parameters": others,
    }
    done = jobs.last("curve", **request)
    running = jobs.unfinished("curve", **request)
    found = (done and done.result) or (running and running.partial) or {}
    if done is None:
        k, splits = len(number.curve), len(view.task.reported)
        asking.button(
            f"Evaluate {k} values",
            "curve",
            f"{recipe.title} over {number.symbol}",
            request,
            key=f"draw-{recipe.name}-{number.name}",
            help=f"On {splits} splits: at most {k * splits} evaluations.",
            primary=False,
        )
    if not found.get("points"):
        st.caption(
            f"{number.label} from {min(number.curve):g} to {max(number.curve):g}; the other "
            f"parameters as above. Choose by {view.task.select}; the other splits are to look at."
        )
        return
    table, best = _table(view, found["points"]), found.get("best")
    letter, key = number.symbol, f"{recipe.name}-{number.name}"

    def pick(picked: list[Any]) -> None:
        st.session_state[parameters.key(recipe, number)] = float(picked[0][0])

    by_value, by_shift = (
        snippets.curve(view, recipe, number, names, others, figure=figure)
        for figure in ("recipe_curve", "trade_off")
    )
    told: dict[str, Any] = {"parameter": letter, "best": best, "score_name": view.task.score_name}
    left, right = st.columns(2)
    with left:
        export.show(
            figures.recipe_curve(table, **told), f"curve-{key}", table, by_value, on_pick=pick
        )
    if {"report", "mean shift"} <= set(table):
        with right:
            export.show(
                figures.trade_off(table, **told), f"trade-off-{key}", table, by_shift, on_pick=pick
            )
    if best is not None:
        flatters = optimism.of_a_curve(view, number, found)
        st.caption(
            f"Best on {view.task.select}: {letter} = {best:.3g}. Click a point to set {letter} to "
            f"its value, then build the soup: it is known already. {flatters}"
        )


def _table(view: View, points: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    report = next(iter(view.task.splits_with_role("report")), None)
    shifts = view.task.splits_with_role("shift")
    rows = []
    for point in points:
        scores = {split: found["score"] for split, found in point["scores"].items()}
        row = {"value": point["value"], "select": scores[view.task.select]}
        if report is not None:
            row["report"] = scores[report]
        if shifts:
            known = [scores[split] for split in shifts]
            row["mean shift"] = None if None in known else mean(known)
        rows.append(row)
    return pd.DataFrame(rows).astype(float)
