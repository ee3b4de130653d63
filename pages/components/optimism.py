"""What choosing on select promised, and what other examples give."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from pages.components import asking, jobs, scores
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import RECIPES, Evaluation
from soupcore.analysis import cross_fit
from soupcore.recipes import Number


def show(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    """Show the gain on select and on report, and cross-fitted estimates of the difference."""
    st.subheader("What choosing promised")
    select, reports = view.task.select, view.task.splits_with_role("report")
    with st.container(horizontal=True):
        for split in [select, *reports]:
            soup, alone = known[picked.label][split], known[best][split]
            if soup is not None and alone is not None:
                gain = soup.score - alone.score
                st.metric(f"gain on {split}, points", f"{100 * gain:+.2f}", width=180)
    candidates: list[Evaluation] = [
        found for name in view.sweep.names() if (found := known[name][select]) is not None
    ]
    if len(candidates) > 1:
        estimate = cross_fit([found.scores for found in candidates])
        st.caption(
            f"The best of {len(candidates)} ingredients, chosen on one half of {select} and scored "
            f"on the other, 200 times over: {estimate.promised:.2%} promised, "
            f"{estimate.delivered:.2%} delivered, so choosing flatters by "
            f"{100 * estimate.optimism:.2f} points."
        )
    _greedy(view, picked)
    _curves(view, picked)


def of_a_curve(view: View, number: Number, drawn: Mapping[str, Any]) -> str:
    """Say what choosing a recipe's number by a curve flatters by; nothing where it is not known.

    Args:
        view: The view.
        number: The parameter.
        drawn: Result of the job that drew the curve.
    """
    found = drawn.get("cross_fit")  # those drawn by earlier versions have none
    if not found:
        return ""
    return (
        f"The best {number.symbol} of {len(drawn['points'])}, chosen on one half of "
        f"{view.task.select} and scored on the other, 200 times over: "
        f"{found['promised']:.2%} promised, {found['delivered']:.2%} delivered, so choosing "
        f"flatters by {100 * (found['promised'] - found['delivered']):.2f} points."
    )


def _curves(view: View, picked: StoredSoup) -> None:
    """Say it of each curve that the soup is a point of."""
    recipe = RECIPES.get(picked.soup.recipe)
    if recipe is None:
        return
    for number in recipe.parameters:
        if not isinstance(number, Number) or not number.curve:
            continue
        done = jobs.done("curve", **view.request, recipe=recipe.name, parameter=number.name)
        drawn = (job.result or {} for job in done)
        last = next((each for each in drawn if _is_point(picked, each)), {})
        if told := of_a_curve(view, number, last):
            st.caption(told)


def _is_point(picked: StoredSoup, drawn: Mapping[str, Any]) -> bool:
    return any(point.get("soup") == picked.soup.id for point in drawn.get("points", ()))


def _greedy(view: View, picked: StoredSoup) -> None:
    told = picked.soup.parameters
    if picked.soup.recipe != "greedy" or told.get("order") == "random" or told.get("backward"):
        return
    candidates = scores.candidates(view, picked)
    names = candidates["names"]
    if len(names) < 2:
        return
    parameters = {"accept": told["accept"], "metric": told.get("metric", "score")}
    request = view.request | candidates | {"parameters": parameters}
    done = jobs.last("optimism", **request)
    if done is None or done.result is None:
        asking.button(
            "Cross-fit greedy",
            "optimism",
            f"Cross-fit greedy on {len(names)}",
            request,
            key="cross-fit",
            help="Greedy on one half of select, its soup scored on the other, 20 times over. Each "
            f"half goes its own way: at most {20 * (len(names) - 1)} soups are evaluated.",
            primary=False,
        )
        return
    found = done.result
    st.caption(
        f"Greedy on one half of {view.task.select}, its soup scored on the other, 20 times over: a "
        f"gain of {100 * found['gain_promised']:+.2f} points over the best ingredient promised, "
        f"{100 * found['gain_delivered']:+.2f} delivered; its score flatters by "
        f"{100 * (found['promised'] - found['delivered']):.2f} points."
    )
