"""One soup: its composition, its scores, the evidence for it, and its weights to download."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import streamlit as st

from pages.components import (
    builder,
    building,
    comparison,
    display,
    download,
    evidence,
    scores,
    snippets,
    soup_links,
    state,
)
from pages.components.display import plain
from pages.components.soup_links import SECTIONS
from pages.components.state import View
from soupcore import RECIPES, Soup, figures
from soupcore.calls import RecipeSoup
from soupcore.errors import StockpotError
from soupcore.evidence import as_chosen, candidates
from soupcore.figures.tables import coefficients_table
from soupcore.overview import title
from soupcore.store.soups import delete_soup
from soupcore.stored_soups import StoredSoup

_BARS = 14  # more coefficients are scrolled
_HEIGHT = 480  # pixels, of scrolled bars


def main(view: View) -> None:
    stored = view.overview.soups if view.has_task else scores.soups(view)
    st.button(
        "All soups", type="tertiary", icon=":material/arrow_back:",
        on_click=soup_links.open_soups, args=(soup_links.ALL,),
    )  # fmt: skip
    if not stored:
        st.header("Soup")
        soup_links.offer_build()
        return
    requested = st.session_state["soup"]
    if requested and requested not in {each.soup.id for each in stored}:
        st.warning(
            f"This sweep and task have no soup with the id {plain(requested)}, perhaps because it "
            "was deleted. Another one is shown.",
            icon=":material/search_off:",
        )
    with st.container(horizontal=True, vertical_alignment="center"):
        name = st.empty()
        picked = scores.choose_soup(view, stored, "Soup", label_visibility="collapsed")
    star = " :material/star:" if picked.annotation.starred else ""
    name.header(f"{plain(picked.label)}{star}")
    _about(picked)
    scores.metrics(view, picked.soup)
    scores.show_shortfall(view, [picked])
    _actions(view, picked, stored)
    _sections(view, picked)


def _about(picked: StoredSoup) -> None:
    """Show the recipe, its parameters, the date and the id, and the user's tags and note."""
    soup, annotation = picked.soup, picked.annotation
    built = datetime.fromtimestamp(picked.created).astimezone()
    st.caption(f"{_recipe(soup)} · built {built.day} {built:%b %Y, %H:%M} · soup {soup.id}")
    if annotation.tags or annotation.note:
        tags = " ".join(f":gray-badge[{plain(tag)}]" for tag in annotation.tags)
        st.markdown(f"{tags} {plain(annotation.note)}".strip())


def _recipe(soup: Soup) -> str:
    """Return the recipe and its parameters that are not the default, as Markdown."""
    recipe = RECIPES.get(soup.recipe)
    if recipe is None:
        return title(soup)
    changed = [
        f"{each.label} {soup.parameters[each.name]}"
        for each in recipe.parameters
        if each.name in soup.parameters and soup.parameters[each.name] != each.default
    ]
    return f"{title(soup)} · {plain(', '.join(changed) or 'default parameters')}"


def _actions(view: View, picked: StoredSoup, stored: Sequence[StoredSoup]) -> None:
    soup, annotation = picked.soup, picked.annotation
    is_read_only = state.store().is_read_only
    with st.container(horizontal=True):
        if view.has_task:
            soup_links.show_compare(picked, key="soup")
        st.button(
            "Build again with…",
            icon=":material/replay:",
            help="Fills the form of the Soups page with the recipe and candidates of this soup.",
            on_click=_build_again,
            args=(view, picked),
        )
        with st.popover("Edit", icon=":material/edit:", help="Its name, tags and note"):
            soup_links.show_name_field(soup.id, picked.label, annotation.name, key="page")
            tags = {tag for each in stored for tag in each.annotation.tags}
            soup_links.show_note_and_tags(soup.id, known=tags)
        soup_links.show_star(soup.id, starred=annotation.starred)
        st.button(
            "Delete", icon=":material/delete:", disabled=is_read_only, on_click=_delete,
            args=(picked,), help="You can undo it on the Soups page.",
        )  # fmt: skip


def _sections(view: View, picked: StoredSoup) -> None:
    shown = {"": _summary, "evidence": evidence.show, "download": download.show}
    for name in display.tabs("section", SECTIONS):
        shown[name](view, picked)


def _summary(view: View, picked: StoredSoup) -> None:
    """Show how the soup compares with the best run, its coefficients, and how it was chosen."""
    with st.container(key="soup-summary"):
        left, right = st.columns([3, 2], gap="large")
    with left:
        _scores(view, picked)
    with right:
        _coefficients(view, picked)
    _decisions(view, picked)
    if view.has_task:
        comparison.show_statistics(view, picked, key="soup")
    _ingredients(picked)


def _scores(view: View, picked: StoredSoup) -> None:
    st.subheader("Scores")
    if not view.has_task:
        st.caption("Without a task, nothing is evaluated.")
        return
    first, *others = comparison.sentences(view, picked)
    st.markdown("  \n".join([f"**{plain(first)}**", *map(plain, others)]))
    known = view.overview
    origin = known.runs[known.best] if known.best else None
    comparison.show_differences(view, known.of_soups[picked.soup.id], known.best, origin)
    scores.offer_evaluation(view, picked, key="summary")


def _coefficients(view: View, picked: StoredSoup) -> None:
    st.subheader("Coefficients")
    table = coefficients_table(picked.soup)
    if table.empty:
        made = plain(scores.describe(picked.soup))
        st.caption(f"{made}. Ingredients have no single coefficient.")
        return
    # Soups among the ingredients have no colour of their own.
    figure = figures.coefficient_bars(table, view.colours)
    code = snippets.coefficients(view, picked)
    with st.container(height=_HEIGHT if len(table) > _BARS else "content", border=False):
        display.show_figure(
            figure, "coefficients", table, code, title=f"Coefficients of {picked.label}"
        )


def _decisions(view: View, picked: StoredSoup) -> None:
    """Show the decisions of the recipe, if it made any."""
    soup = picked.soup
    if not view.has_task or soup.recipe not in RECIPES or not (soup.trace or soup.passes):
        return
    try:
        names, ids = candidates(view.sweep, picked) if soup.trace else (soup.ingredients, {})
        then = as_chosen(view, picked, view.soups.by_name(ids) if soup.trace else picked.soups)
    except StockpotError as error:  # a candidate that was rejected is not in the sweep any more
        st.subheader("How it was chosen")
        st.caption(f"The steps cannot be shown. {plain(str(error))}")
        return
    known = {each.name for each in RECIPES[soup.recipe].parameters}
    given = {name: value for name, value in soup.parameters.items() if name in known}
    st.subheader("How it was chosen")
    building.show_decisions(then, RecipeSoup(soup.recipe, tuple(names), given), soup)


def _ingredients(picked: StoredSoup) -> None:
    """Show the exact coefficients and the digests of the weights of the ingredients."""
    soup = picked.soup
    with st.expander(f"Ingredients ({len(soup.digests)})", icon=":material/grocery:"):
        st.dataframe(
            {
                "ingredient": list(soup.digests),
                "coefficient": [
                    scores.share(soup.coefficients[name])
                    if name in soup.coefficients
                    else "source of the tensors that are not merged"
                    if name in soup.donors
                    else "varies by tensor"
                    for name in soup.digests
                ],
                "SHA-256 of weights": list(soup.digests.values()),
            },
            width=680,
        )
        for each in soup.fixed:
            st.caption(f"Not merged: {plain(str(each))}.")
    for note in soup.notes:
        st.caption(plain(note))


def _build_again(view: View, picked: StoredSoup) -> None:
    soup = picked.soup
    ids = {name: stored.soup.id for name, stored in picked.soups.items()}
    names: Sequence[str] = soup.ingredients
    if soup.trace:
        with suppress(StockpotError):  # a rejected candidate is gone; only the others are taken
            names, tried = candidates(view.sweep, picked)
            ids |= tried
    files = [name for name in names if name not in ids]
    builder.fill(
        soup.recipe,
        soup.parameters,
        files,
        [ids[name] for name in names if name in ids],
        rule=soup.rule,
        coefficients=soup.coefficients if soup.recipe == builder.MANUAL else {},
    )
    soup_links.open_soups(soup_links.BUILD)


def _delete(picked: StoredSoup) -> None:
    delete_soup(state.store(), picked.soup.id)
    st.session_state.update({"soup": "", "deleted": (picked.soup.id, picked.label)})
    soup_links.open_soups(soup_links.ALL)


if __name__ == "__main__":
    main(st.session_state["view"])
