"""Two-model soups compared with two-model ensembles, and with the theory's prediction."""

import math
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from pages.components import display, exports, jobs, snippets, tasks
from pages.components.display import plain
from pages.components.scores import offer_ingredients
from pages.components.state import Pair, View
from soupcore import figures
from soupcore.calls import TwoModelEnsembles, TwoModelTheory, by_pair
from soupcore.display import capitalised
from soupcore.figures.tables import pairs_with, soups_and_ensembles_table, with_larger
from soupcore.plan import seconds


def main(view: View) -> None:
    st.header("Ensembles")
    if not view.has_task:
        tasks.show_needed("This page")
        return
    selected = st.session_state["selection"]
    names = selected if len(selected) > 1 else view.sweep.names()
    which = (
        f"the {len(names)} selected ingredients"
        if len(selected) > 1
        else f"all {len(names)} ingredients"
    )
    st.caption(
        f"For every pair of **{which}**: soup = average of the two weight vectors (one forward "
        "pass); ensemble = average of the two outputs (two passes)."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        split = st.selectbox(
            "Split", view.task.reported, format_func=view.task.split_title, width=180
        )
        colour = display.colour_by(view, "soups")
    with st.container(key="two-figures"):
        left, right = st.columns(2, gap="medium")
    with left:
        score = view.task.score_name
        st.subheader(plain(capitalised(score)))
        _scores(view, names, split, colour)
    with right:
        st.subheader("Predicted vs. actual gap")
        _theory(view, names, split, colour)


def _scores(view: View, names: Sequence[str], split: str, colour: str | None) -> None:
    if (why := view.task.why_no_kept_outputs) is not None:
        st.info(f"No ensembles of pairs. {plain(why)}", icon=":material/join_inner:")
        return
    known = jobs.midpoints(view, names, split, key="midpoints")
    if known is None:
        return
    table = soups_and_ensembles_table(known, _ensembles(view, names, split))
    if table.empty:
        st.info("No ensembles of these pairs yet. They need the stored outputs of the "
                "ingredients.", icon=":material/join_inner:")  # fmt: skip
        offer_ingredients(view, key="ensembles")
        return
    table = with_larger(view.sweep, table, colour)
    figure = figures.soup_ensemble_scatter(
        table,
        colour=f"max {colour}" if colour else "",
        score_name=view.task.score_name,
        score_unit=view.task.score_unit,
    )
    call = TwoModelEnsembles(tuple(names), split)
    paths = jobs.midpoint_paths(names, split)
    code = snippets.soups_and_ensembles(view, call, paths, colour)
    display.show_figure(
        figure,
        "soups-and-ensembles",
        table,
        code,
        title="Soups and ensembles of two",
        about=exports.sizes(view.task, split),
    )
    better = (table["soup"] >= table["ensemble"]).sum()
    st.caption(f"The soup matches or beats the ensemble in {better:,} of {len(table):,} pairs.")


def _theory(view: View, names: Sequence[str], split: str, colour: str | None) -> None:
    if not view.task.is_classification:
        st.info("The theory applies to cross-entropy loss (classification) only.",
                icon=":material/function:")  # fmt: skip
        return
    call = TwoModelTheory(tuple(names), split)
    found = call.known(view) or {"pairs": []}
    count = math.comb(len(names), 2)
    if left := count - len(found["pairs"]):
        jobs.call_button(
            view, f"Compare {count:,} pairs", call,
            f"Evaluate theory terms for {count:,} pairs on {split}", key="evaluate-theory",
            primary=False,
            help="Evaluates each midpoint and one α on either side of it.",
            price=seconds(view.overview, 3 * left * len(view.task.split(split))),
        )  # fmt: skip
    gaps = by_pair(found)
    if not gaps:
        st.info("The theory terms have not been evaluated yet.", icon=":material/function:")
        return
    table = pairs_with(view.sweep, gaps, colour)
    figure = figures.theory_scatter(table, colour=f"max {colour}" if colour else "")
    display.show_figure(
        figure,
        "theory",
        table,
        snippets.theory(view, call, colour),
        title="Predicted vs. actual gap",
        about=exports.sizes(view.task, split),
    )
    st.caption(_correlation(table))


def _correlation(table: pd.DataFrame) -> str:
    text = (
        "Eq. 1 of arXiv:2203.05482 with β fitted per soup. Positive = ensemble has the lower loss"
    )
    if len(table) < 3:
        return f"{text}."
    return (
        f"{text}. Pearson r = {table['predicted'].corr(table['gap']):.2f} over {len(table):,} "
        "pairs. The theory is a second-order approximation and is unreliable for distant pairs."
    )


def _ensembles(view: View, names: Sequence[str], split: str) -> dict[Pair, float]:
    """Return the scores of the ensembles of all pairs whose outputs are known."""
    known = view.evaluations.stored([view.sweep[name].mixture for name in names], split)
    with_outputs = tuple(
        name
        for name, found in zip(names, known, strict=True)
        if found is not None and found.has_outputs
    )
    if len(with_outputs) < 2:
        return {}
    call = TwoModelEnsembles(with_outputs, split)
    title = f"Ensembles of {math.comb(len(with_outputs), 2)} pairs on {split}"
    found = jobs.derived(view, call, title, key="two-model-ensembles")
    return {} if found is None else by_pair(found)


if __name__ == "__main__":
    main(st.session_state["view"])
