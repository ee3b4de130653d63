"""Selection bias: how much choosing on `select` inflates scores, and how much the order matters."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import streamlit as st

from pages.components import jobs, scores
from pages.components.display import plain
from pages.components.state import View
from soupcore import StockpotError
from soupcore.calls import GreedyOrders, Result
from soupcore.display import counted
from soupcore.evidence import (
    as_chosen,
    best_ingredient_bias,
    candidates,
    curves_with,
    greedy_bias,
    greedy_parameters,
    search_bias,
)
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
    _of_ingredients(view)
    _greedy(view, picked)
    _search(view, picked)
    for number, drawn in curves_with(view, picked):
        st.caption(of_a_curve(view, number, drawn))


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


def show_orders(view: View, picked: StoredSoup) -> None:
    """Show the mean and standard deviation of greedy soups over random orders."""
    if picked.soup.recipe != "greedy":
        return
    try:
        names, ids = candidates(view.sweep, picked)
    except StockpotError:  # `show` gives the reason
        return
    if len(names) < 3:
        return
    seen = as_chosen(view, picked, view.soups.by_name(ids))
    call = GreedyOrders(names, greedy_parameters(picked.soup.parameters), _ORDERS)
    result, task = call.result(seen), seen.task
    if result is None:
        trials = _ORDERS * len(names)
        examples = trials * len(task.split(task.select))
        examples += _ORDERS * sum(len(task.split(split)) for split in task.reported)
        jobs.call_button(
            seen,
            f"Test {_ORDERS} random orders",
            call,
            f"Greedy, {_ORDERS} random orders",
            key="random-orders",
            primary=False,
            help=f"Up to {trials:,} evaluations, plus each soup on "
            f"{counted(len(task.reported), 'split')}.",
            price=seconds(view.overview, examples),
        )
        return
    found: dict[str, list[float]] = result["scores"]
    reports = task.splits_with_role("report")
    shown = {split: found[split] for split in (task.select, *reports[:1])}
    if task.splits_with_role("shift"):
        shown["mean shift"] = curve_table(task, range(_ORDERS), found)["mean shift"].tolist()
    parts = ", ".join(
        f"{_spread(task.score_unit, scores)} on {plain(split)}" for split, scores in shown.items()
    )
    st.caption(f"Greedy over {_ORDERS} random orders, mean ± SD: {parts}.")


def _of_ingredients(view: View) -> None:
    """Show how much choosing the best ingredient inflates its score."""
    call = best_ingredient_bias(view.overview)
    if call is None:
        return
    count = len(call.names)
    found = jobs.derived(
        view, call, f"Selection bias of the best of {count}", key="best-ingredient"
    )
    if found is None:
        return
    if "why_none" in found:
        st.caption(plain(found["why_none"]))
        return
    unit, select = view.task.score_unit, plain(view.task.select)
    used, other = found["promised"], found["delivered"]
    st.caption(
        f"Picking the best of {count} ingredients inflates its {select} score by "
        f"{unit.gap(used - other)}: {unit.text(used)} on the half used to pick, "
        f"{unit.text(other)} on the other half (mean of 200 random splits of {select})."
    )


def _greedy(view: View, picked: StoredSoup) -> None:
    """Show how much greedy's choice inflates the score of its soup."""
    try:
        estimate = greedy_bias(view, picked)
    except StockpotError as error:  # a candidate that was rejected is not in the sweep any more
        st.caption(f"Greedy's selection bias cannot be estimated. {plain(str(error))}")
        return
    if estimate is None:
        return
    seen, call = estimate
    select, found = plain(view.task.select), call.result(seen)
    if found is not None:
        how = f"Cross-fitted greedy (20 half-splits of {select})"
        _show_cross_fit(seen, found, how, "choose")
        return
    trials = 20 * (len(call.names) - 1)
    jobs.call_button(
        seen,
        "Estimate greedy's selection bias",
        call,
        f"Selection bias of greedy ({len(call.names)} ingredients)",
        key="cross-fit",
        primary=False,
        help=f"Runs greedy on a random half of {select} and scores it on the other half, 20 times. "
        f"Up to {trials:,} evaluations.",
        price=seconds(view.overview, trials * len(view.task.split(view.task.select))),
    )


def _search(view: View, picked: StoredSoup) -> None:
    """Show how much a search of coefficients by CMA-ES inflates the score of its soup."""
    estimate = search_bias(view, picked)
    if estimate is None:
        return
    seen, call = estimate
    select, found = plain(view.task.select), call.result(seen)
    if found is not None:
        how = f"Cross-fitted CMA-ES (two searches on half of {select})"
        _show_cross_fit(seen, found, how, "search")
        return
    trials = 2 * call.parameters["evaluations"]
    jobs.call_button(
        seen,
        "Estimate the selection bias of the search",
        call,
        f"Selection bias of CMA-ES ({len(call.names)} ingredients)",
        key="cross-fit-search",
        primary=False,
        help=f"Searches on a random half of {select}, scores the result on the other half, and "
        f"swaps the halves. Up to {trials:,} evaluations.",
        price=seconds(view.overview, trials * len(view.task.split(view.task.select))),
    )


def _show_cross_fit(view: View, found: Result, how: str, use: str) -> None:
    """Show the scores on the half of the select split in use, and on the other half."""
    unit = view.task.score_unit
    st.caption(
        f"{how}: difference from the best ingredient "
        f"{unit.difference_text(found['gain_promised'])} on the half used to {use}, "
        f"{unit.difference_text(found['gain_delivered'])} on the other half; its score is inflated "
        f"by {unit.gap(found['promised'] - found['delivered'])}."
    )


def _spread(unit: Unit, scores: Sequence[float]) -> str:
    return f"{unit.number(mean(scores))} ± {unit.text(stdev(scores))}"
