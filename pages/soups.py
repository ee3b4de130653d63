"""Building soups and comparing them."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from pages.components import (
    by_hand,
    comparison,
    cooking,
    jobs,
    parameters,
    recipe_curve,
    scores,
    snippets,
)
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import RECIPES
from soupcore.recipes import Recipe

MANUAL = "manual"


def main(view: View) -> None:
    st.header("Soups")
    st.caption(
        f"One network of many: recipes choose on **{view.task.select}** and nothing else; "
        "report and the shifts are only reported."
    )
    build, compare = st.tabs(["Build", "Compare"], default="Build", key="soups-tab")
    with build:
        _build(view)
    with compare:
        comparison.show(view)


def _build(view: View) -> None:
    titles = {name: recipe.title for name, recipe in RECIPES.items()} | {MANUAL: "By hand"}
    recipe = st.segmented_control(
        "Recipe",
        list(titles),
        default="greedy",
        format_func=lambda name: titles[name],
        required=True,
    )
    files = st.multiselect(
        "Ingredients",
        view.sweep.names(),
        default=st.session_state["selection"] or view.sweep.names(),
        help="The selection of the other pages, or all where nothing is selected.",
        key=f"soup-ingredients-{st.session_state['selection']}",
    )
    soups = _choose_soups(view)
    names = [*view.sweep.names(files), *soups]
    if not names:
        st.info("Choose at least one ingredient.", icon=":material/grocery:")
    elif recipe == MANUAL:
        by_hand.show(view.including(soups), names)
    else:
        _by_recipe(view, soups, RECIPES[recipe], names)


def _choose_soups(view: View) -> dict[str, StoredSoup]:
    """Let the user take soups for further ingredients; return them by the names they have there."""
    stored = {soup.soup.id: soup for soup in scores.soups(view)}
    if not stored:
        return {}
    names = scores.names_as_ingredients(view, stored.values())
    chosen = st.multiselect(
        "Soups as ingredients",
        list(reversed(stored)),
        format_func=lambda soup_id: names[soup_id],
        placeholder="None",
        help="Soups of this sweep that were built before: each counts as one more ingredient.",
        key="soups-as-ingredients",
    )
    return {names[soup_id]: soup for soup_id, soup in stored.items() if soup_id in chosen}


def _by_recipe(
    view: View, soups: Mapping[str, StoredSoup], recipe: Recipe, names: list[str]
) -> None:
    st.markdown(f"{recipe.summary} _{recipe.paper}_")
    given = parameters.choose(recipe)
    if (missing := _missing(view, recipe, names)) is not None:
        st.info(missing, icon=":material/info:")
        return
    with_soups = view.including(soups)
    recipe_curve.show(with_soups, recipe, names, given)
    st.caption(_cost(with_soups, recipe, names, given))
    request = with_soups.request | {"recipe": recipe.name, "names": names, "parameters": given}
    running = jobs.unfinished("soup", **request)
    if st.button(
        f"Build the {_in_a_sentence(recipe.title)} soup of {len(names)}",
        type="primary",
        icon=":material/soup_kitchen:",
        disabled=running is not None,
    ):
        st.session_state["cooking"] = jobs.submit(
            "soup", f"{recipe.title} soup of {len(names)}", request
        )
        st.rerun()
    if "cooking" in st.session_state:
        cooking.follow(view, recipe, st.session_state["cooking"])
    snippets.show(snippets.recipe(with_soups, recipe, names, given))


def _in_a_sentence(title: str) -> str:
    return title if title[1:] != title[1:].lower() else title.lower()  # TIES, WiSE-FT


def _missing(view: View, recipe: Recipe, names: list[str]) -> str | None:
    least, most = recipe.takes
    if recipe.needs_base and view.sweep.base is None:
        return (
            f"{recipe.title} needs the base, the checkpoint that all were fine-tuned from. Put it "
            "into the sweep's folder as base.safetensors and reload."
        )
    if len(names) < least or (most is not None and len(names) > most):
        wanted = f"exactly {least}" if least == most else f"at least {least}"
        return f"{recipe.title} takes {wanted} ingredients; {len(names)} are chosen."
    return None


def _cost(view: View, recipe: Recipe, names: list[str], given: Mapping[str, Any]) -> str:
    points = [view.sweep[name].mixture for name in names]
    alone = len(view.evaluator.missing(points, view.task.select)) if recipe.ranks else 0
    trials = recipe.trials(len(names), given)
    final = len(view.task.reported)
    size = len(view.task.split(view.task.select))
    parts = [
        f"{alone} of ingredients alone" if alone else "",
        f"at most {trials} of trials" if trials else "",
        f"the soup on {final} splits",
    ]
    total = alone + trials + final
    wanted = " + ".join(part for part in parts if part)
    return f"Cost: at most {total} evaluations ({wanted}), {size} examples each on select."


main(st.session_state["view"])
