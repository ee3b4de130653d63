"""Selection bias: how much choosing on `select` inflates scores, and how much the order matters."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import streamlit as st

from pages.components import jobs, scores
from pages.components.display import plain
from pages.components.state import View
from soupcore import RECIPES
from soupcore.calls import (
    BestIngredientBias,
    GreedyOrders,
    Optimism,
    ParameterCurve,
    Result,
    SearchOptimism,
)
from soupcore.errors import StockpotError
from soupcore.figures.tables import curve_table
from soupcore.plan import seconds
from soupcore.recipes import Number
from soupcore.stored_soups import StoredSoup
from soupcore.tasks import Unit

_ORDERS = 10  # random orders


def show(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    """Show the gains on select and on report, and cross-fitted estimates of their difference."""
    st.subheader("Selection bias")
    select, reports = view.task.select, view.task.splits_with_role("report")
    unit = view.task.score_unit
    with st.container(horizontal=True):
        for split in [select, *reports]:
            soup, alone = known[picked.label][split], known[best][split]
            if soup is not None and alone is not None:
                gain = soup.score - alone.score
                label = f"Δ {plain(view.task.score_name)} on {plain(split)}"
                st.metric(label, unit.difference_text(gain), width=200)
    candidates = [name for name in view.sweep.names() if known[name][select] is not None]
    if len(candidates) > 1:
        _of_ingredients(view, candidates)
    _greedy(view, picked)
    _search(view, picked)
    _curves(view, picked)


def _of_ingredients(view: View, candidates: Sequence[str]) -> None:
    """Show how much choosing the best ingredient inflates its score."""
    found = jobs.derived(
        view,
        BestIngredientBias(tuple(candidates)),
        f"Selection bias of the best of {len(candidates)}",
        key="best-ingredient",
    )
    if found is None:
        return
    if "why_none" in found:
        st.caption(plain(found["why_none"]))
        return
    unit, select = view.task.score_unit, plain(view.task.select)
    promised, delivered = found["promised"], found["delivered"]
    st.caption(
        f"Picking the best of {len(candidates)} ingredients inflates its {select} score by "
        f"{unit.gap(promised - delivered)}: {unit.text(promised)} on the half used to pick, "
        f"{unit.text(delivered)} on the other half (mean of 200 random splits of {select})."
    )


def of_a_curve(view: View, number: Number, drawn: Mapping[str, Any]) -> str:
    """Return how much choosing a recipe's parameter inflates its score, as text.

    Args:
        view: The view.
        number: The parameter.
        drawn: Result of the `ParameterCurve`.

    Returns:
        A sentence; "" if it is not computed.
    """
    found = drawn.get("cross_fit")  # results of earlier versions have none
    if not found:
        return ""
    unit = view.task.score_unit
    return (
        f"Picking the best of {len(drawn['points'])} values of {number.symbol} inflates its "
        f"{plain(view.task.select)} score by "
        f"{unit.gap(found['promised'] - found['delivered'])}: {unit.text(found['promised'])} on "
        f"the half used to pick, {unit.text(found['delivered'])} on the other half (mean of 200 "
        "random splits)."
    )


def _curves(view: View, picked: StoredSoup) -> None:
    """Show the selection bias of each curve that has the soup as a point."""
    recipe = RECIPES.get(picked.soup.recipe)
    if recipe is None:
        return
    for number in recipe.parameters:
        if not isinstance(number, Number) or not number.curve:
            continue
        seen = view.including(picked.soups).with_tensors(picked.soup.rule)
        names = picked.soup.ingredients
        drawn = ParameterCurve.of_soup(picked.soup, number, names).result(seen.context)
        if drawn is not None and any(p["soup"] == picked.soup.id for p in drawn["points"]):
            st.caption(of_a_curve(view, number, drawn))


def _greedy(view: View, picked: StoredSoup) -> None:
    options = picked.soup.parameters
    if (
        picked.soup.recipe != "greedy"
        or options.get("order") == "random"
        or options.get("backward")
    ):
        return
    view = view.with_primary(picked.soup.chosen_by(view.task).primary)
    try:
        candidates = scores.candidates(view, picked)
        seen = scores.including(view, candidates).with_tensors(picked.soup.rule)
    except StockpotError as error:  # a candidate that was rejected is not in the sweep any more
        st.caption(f"Greedy's selection bias cannot be estimated. {plain(str(error))}")
        return
    names = candidates["names"]
    if len(names) < 2:
        return
    parameters = {"accept": options["accept"], "metric": options.get("metric", "score")}
    call = Optimism(tuple(names), parameters)
    found = call.result(seen.context)
    if found is None:
        trials = 20 * (len(names) - 1)
        jobs.call_button(
            seen,
            "Estimate greedy's selection bias",
            call,
            f"Selection bias of greedy ({len(names)} ingredients)",
            key="cross-fit",
            primary=False,
            help=f"Runs greedy on a random half of {plain(view.task.select)} and scores it on the "
            f"other half, 20 times. Up to {trials:,} evaluations.",
            price=seconds(view.overview, trials * len(view.task.split(view.task.select))),
        )
        return
    how = f"Cross-fitted greedy (20 half-splits of {plain(view.task.select)})"
    _show_cross_fit(view, found, how, "choose")


def _search(view: View, picked: StoredSoup) -> None:
    """Show how much a search of coefficients by CMA-ES inflates the score of its soup."""
    names = picked.soup.ingredients
    call = SearchOptimism.of_soup(picked.soup, names)
    if call is None or len(view.task.split(view.task.select)) < 2 or len(names) < 2:
        return
    view = view.with_primary(picked.soup.chosen_by(view.task).primary)
    seen = view.including(picked.soups).with_tensors(picked.soup.rule)
    found = call.result(seen.context)
    if found is None:
        trials = 2 * call.parameters["evaluations"]
        jobs.call_button(
            seen,
            "Estimate the selection bias of the search",
            call,
            f"Selection bias of CMA-ES ({len(names)} ingredients)",
            key="cross-fit-search",
            primary=False,
            help=f"Searches on a random half of {plain(view.task.select)}, scores the result on "
            "the other half, and swaps the halves. "
            f"Up to {trials:,} evaluations.",
            price=seconds(view.overview, trials * len(view.task.split(view.task.select))),
        )
        return
    how = f"Cross-fitted CMA-ES (two searches on half of {plain(view.task.select)})"
    _show_cross_fit(view, found, how, "search")


def _show_cross_fit(view: View, found: Result, how: str, use: str) -> None:
    """Show the scores on the half of the select split in use, and on the other half."""
    unit = view.task.score_unit
    st.caption(
        f"{how}: difference from the best ingredient "
        f"{unit.difference_text(found['gain_promised'])} on the half used to {use}, "
        f"{unit.difference_text(found['gain_delivered'])} on the other half; its score is inflated "
        f"by {unit.gap(found['promised'] - found['delivered'])}."
    )


def show_orders(view: View, picked: StoredSoup) -> None:
    """Show the mean and standard deviation of greedy soups over random orders."""
    view = view.with_primary(picked.soup.chosen_by(view.task).primary)
    options = picked.soup.parameters
    candidates = scores.candidates(view, picked)
    names = candidates["names"]
    if picked.soup.recipe != "greedy" or len(names) < 3:
        return
    parameters = {"accept": options["accept"], "metric": options.get("metric", "score")}
    seen = scores.including(view, candidates).with_tensors(picked.soup.rule)
    call = GreedyOrders(tuple(names), parameters, _ORDERS)
    result = call.result(seen.context)
    if result is None:
        trials = _ORDERS * len(names)
        examples = trials * len(view.task.split(view.task.select))
        examples += _ORDERS * sum(len(view.task.split(split)) for split in view.task.reported)
        jobs.call_button(
            seen,
            f"Test {_ORDERS} random orders",
            call,
            f"Greedy, {_ORDERS} random orders",
            key="random-orders",
            primary=False,
            help=f"Up to {trials:,} evaluations, plus each soup on "
            f"{len(view.task.reported)} splits.",
            price=seconds(view.overview, examples),
        )
        return
    found: dict[str, list[float]] = result["scores"]
    reports = view.task.splits_with_role("report")
    shown = {split: found[split] for split in (view.task.select, *reports[:1])}
    if view.task.splits_with_role("shift"):
        shown["mean shift"] = curve_table(view.task, range(_ORDERS), found)["mean shift"].tolist()
    unit = view.task.score_unit
    parts = ", ".join(
        f"{_spread(unit, scores)} on {plain(split)}" for split, scores in shown.items()
    )
    st.caption(f"Greedy over {_ORDERS} random orders, mean ± SD: {parts}.")


def _spread(unit: Unit, scores: Sequence[float]) -> str:
    return f"{unit.number(mean(scores))} ± {unit.text(stdev(scores))}"
