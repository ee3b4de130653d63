"""Where ingredients and soups lie: their score under shift over that on report."""

from collections.abc import Collection, Sequence

import streamlit as st

from pages.components import export, picking, points, score_snippets, scores
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import figures

_KINDS = ("ingredient", "base", "soup")  # from back to front


def show(
    view: View,
    known: scores.Known,
    key: str,
    soups: Sequence[StoredSoup] = (),
    *,
    selected: Collection[str] = (),
    on_pick: picking.Pick | None = None,
) -> None:
    """Draw all of whom both scores are known.

    Args:
        view: What is looked at.
        known: The evaluations of the ingredients, the base and the soups.
        key: Identity of the figure on its page.
        soups: The soups to draw too.
        selected: Names of ingredients drawn filled.
        on_pick: What to do with the points that are picked, where they can be.
    """
    st.subheader("Under distribution shift")
    named = points.of_files(view) | points.of_soups(soups)
    kinds = {
        name: each.kind for kind in _KINDS for name, each in named.items() if each.kind == kind
    }
    table = scores.scatter_table(view, known, kinds).dropna().rename_axis("name")
    if table.empty:
        st.caption("Shows once the report split and every shift split are evaluated.")
        return
    figure = figures.shift_scatter(
        table, view.colours, score_name=view.task.score_name, selected=selected
    )
    code = score_snippets.shift_scatter(view, {name: named[name] for name in table.index}, selected)
    export.show(figure, key, table, code, on_pick=on_pick, boxes=True)
