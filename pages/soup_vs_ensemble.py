"""Two-model soups against two-model ensembles, and what theory says of them."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd
import streamlit as st

from pages.components import asking, connectivity_snippets, export, middles
from pages.components.state import Pair, View
from soupcore import ClassificationTask, Mixture, ensemble, figures
from soupcore.analysis import SoupVsEnsemble, stored_soup_vs_ensemble
from soupcore.analysis.soup_vs_ensemble import theory_points
from soupcore.figures.tables import pairs_with


def main(view: View) -> None:
    st.header("Soup vs ensemble")
    selected = st.session_state["selection"]
    names = selected if len(selected) > 1 else view.sweep.names()
    which = "the selection" if len(selected) > 1 else "all ingredients"
    st.caption(
        f"All pairs of **{which}**: the soup is the middle of two, one network; the ensemble is "
        "the mean of their outputs, two networks."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        split = st.selectbox("Split", view.task.reported, width=180)
        colour = middles.colour_by(view, "soups")
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Scores")
        _scores(view, names, split, colour)
    with right:
        st.subheader("Theory")
        _theory(view, names, split, colour)


def _scores(view: View, names: Sequence[str], split: str, colour: str | None) -> None:
    known = middles.ask(view, names, split, key="middles")
    if known is None:
        return
    scores = {}
    for (a, b), path in known.paths.items():
        both = _ensemble(view, (a, b), split)
        if both is not None:
            scores[a, b] = {"soup": float(path.scores[1]), "ensemble": both}
    if not scores:
        st.info("The outputs of the ingredients were not kept; evaluate them on the page "
                "Ingredients.", icon=":material/join_inner:")  # fmt: skip
        return
    table = pairs_with(view.sweep, scores, colour)
    figure = figures.soup_ensemble_scatter(
        table, colour=f"max {colour}" if colour else "", score_name=view.task.score_name
    )
    code = connectivity_snippets.soups_and_ensembles(view, names, split, colour)
    export.show(figure, "soups-and-ensembles", table, code)
    better = sum(row["soup"] >= row["ensemble"] for row in scores.values())
    st.caption(f"The soup does as well as the ensemble or better in {better} of {len(scores)} "
               "pairs.")  # fmt: skip


def _theory(view: View, names: Sequence[str], split: str, colour: str | None) -> None:
    if not isinstance(view.task, ClassificationTask):
        st.info("The theory is one of cross-entropies, for classification.",
                icon=":material/function:")  # fmt: skip
        return
    pairs = list(combinations(names, 2))
    points = [p for a, b in pairs for p in theory_points(view.sweep[a].mixture,
                                                         view.sweep[b].mixture)]  # fmt: skip
    distinct = list(dict.fromkeys(points))
    known = view.evaluator.stored(distinct, split)
    missing = sum(found is None or not found.has_outputs for found in known)
    if missing:
        request = view.request | {"pairs": [list(p) for p in pairs], "split": split,
                                  "theory": True}  # fmt: skip
        asking.button(
            f"Evaluate {asking.points(missing)}", "two-model soups",
            f"Evaluate the theory of {len(pairs)} pairs on {split}", request, key="evaluate-theory",
            primary=False,
            help="The soup of each pair and a point on either side of it, with their outputs.",
        )  # fmt: skip
    complete = {point for point, found in zip(distinct, known, strict=True)
                if found is not None and found.has_outputs}  # fmt: skip
    gaps = {}
    for number, pair in enumerate(pairs):
        if complete.issuperset(points[5 * number : 5 * number + 5]):
            found = _compare(view, pair, split)
            gaps[pair] = {
                "predicted": found.predicted_gap, "gap": found.gap, "β": found.beta,
                "curvature": found.curvature, "variance": found.variance,
            }  # fmt: skip
    if not gaps:
        st.info("Nothing is known of the theory's terms yet.", icon=":material/function:")
        return
    table = pairs_with(view.sweep, gaps, colour)
    figure = figures.theory_scatter(table, colour=f"max {colour}" if colour else "")
    export.show(figure, "theory", table, connectivity_snippets.theory(view, names, split, colour))
    st.caption(_correlation(table))


def _correlation(table: pd.DataFrame) -> str:
    text = "Equation 1 of arXiv:2203.05482, β fitted to each soup; positive: the ensemble is better"
    if len(table) < 3:
        return f"{text}."
    return (
        f"{text}. Correlation {table['predicted'].corr(table['gap']):.2f} over {len(table)} pairs; "
        "it is a theory of second order, so between networks far apart it says little."
    )


def _ensemble(view: View, pair: Pair, split: str) -> float | None:
    # What was found once stays so: outputs do not change, and reading them takes a while.
    memory: dict[object, float] = st.session_state.setdefault("pair-ensembles", {})
    ends = [view.sweep[name].mixture for name in pair]
    key = _identity(view, ends, split)
    if key not in memory:
        found = ensemble(view.evaluator, ends, split)
        if found is None:
            return None
        memory[key] = found.score
    return memory[key]


def _identity(view: View, ends: Sequence[Mixture], split: str) -> object:
    data = view.task.split(split).digest
    return (*(end.key for end in ends), view.task.key, data, view.statistics)


def _compare(view: View, pair: Pair, split: str) -> SoupVsEnsemble:
    memory: dict[object, SoupVsEnsemble] = st.session_state.setdefault("pair-theory", {})
    ends = view.sweep[pair[0]].mixture, view.sweep[pair[1]].mixture
    key = _identity(view, ends, split)
    if key not in memory:
        found = stored_soup_vs_ensemble(view.evaluator, *ends, split=split)
        if found is None:
            raise RuntimeError("the outputs of a pair are gone from the store")
        memory[key] = found
    return memory[key]


main(st.session_state["view"])
