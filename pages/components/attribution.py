"""Which ingredients a soup owes its score to."""

import streamlit as st

from pages.components import export, jobs, score_snippets
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import RECIPES, figures
from soupcore.analysis import Share, points
from soupcore.figures.tables import attribution_table
from soupcore.recipes.parts import follows_recipe


def show(view: View, picked: StoredSoup) -> None:
    """Show what each ingredient adds to the soup, or offer to find out."""
    st.subheader("Which ingredient matters")
    if len(picked.soup.ingredients) < 2:
        st.caption("The soup has fewer than two ingredients, so there is nothing to share out.")
        return
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    request = view.request | {"soup": picked.soup.id, "split": split}
    done = jobs.last("attribution", **request)
    if done is not None and done.result is not None:
        shares = {name: Share(*each) for name, each in done.result["shapley"].items()}
        without = done.result["without"]
        figure = figures.attribution_bars(
            shares, without, score_name=f"{view.task.score_name} on {split}"
        )
        code = score_snippets.attribution(view, picked, split)
        export.show(figure, "attribution", attribution_table(shares, without), code)
        return
    st.caption(
        f"Up to {points(len(picked.soup.ingredients))} soups of fewer ingredients are evaluated on "
        f"{split}: leave-one-out and Shapley values. "
        f"{_fewer(picked)} To look at, not to choose by."
    )
    if st.button(
        "Find out",
        icon=":material/balance:",
        disabled=jobs.unfinished("attribution", **request) is not None,
    ):
        jobs.submit("attribution", f"What matters in {picked.label}", request)
        st.rerun()


def _fewer(picked: StoredSoup) -> str:
    if not follows_recipe(picked.soup):
        return "The others keep their proportions."
    return f"Each is the {RECIPES[picked.soup.recipe].title} soup of the others."
