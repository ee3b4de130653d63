"""How sure it is that a soup is better, and which ingredients it owes that to."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import jobs, reliability, scores, snippets, soup_picker
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import Evaluation, figures
from soupcore.analysis import Share, cross_fit, paired


def main(view: View) -> None:
    st.header("Evidence")
    stored = scores.soups(view)
    if not stored:
        st.info(
            "There is no soup of this sweep yet. Build one on the **Soups** page.",
            icon=":material/soup_kitchen:",
        )
        return
    picked = soup_picker.choose(stored, "Soup")
    points = scores.ingredients(view)
    known = scores.evaluations(view, points | {picked.label: picked.soup.mixture})
    best = scores.best_on_select(view, known, list(points))
    if best is None:
        st.info(
            "No ingredient was evaluated on select yet, so there is none to compare with. "
            "Evaluate them on the **Ingredients** page.",
            icon=":material/grocery:",
        )
        return
    _against_best(view, picked, best, known)
    left, right = st.columns(2)
    with left:
        _optimism(view, picked, best, known)
    with right:
        _attribution(view, picked)
    reliability.show(view, picked, best, known)
    snippets.show(snippets.evidence(view, picked.soup, best))


def _against_best(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    st.subheader(f"Against the best ingredient, {best}")
    rows = []
    for split in view.task.reported:
        soup, alone = known[picked.label][split], known[best][split]
        if soup is None or alone is None:
            continue
        found = paired(soup.scores, alone.scores)
        low, high = found.interval
        rows.append(
            {
                "split": split,
                "soup, %": 100 * soup.score,
                f"{best}, %": 100 * alone.score,
                "difference, points": 100 * found.difference,
                "95 % interval": f"{100 * low:+.2f} to {100 * high:+.2f}",
                "examples changed": found.changed,
                "gained": found.gained,
                "lost": found.lost,
                "McNemar p": found.p_value,
            }
        )
    table = pd.DataFrame(rows).set_index("split")
    formats: dict[Any, Any] = {c: "{:.2f}" for c in table.columns if c.endswith(", %")}
    formats |= {"difference, points": "{:+.2f}", "McNemar p": "{:.3g}"}
    st.dataframe(table.style.format(formats))
    st.caption(
        f"On the same examples of each split. {view.task.select} was chosen on and flatters the "
        "soup; judge by report and the shifts. The interval covers the choice of examples, not "
        "the luck of the training runs."
    )


def _optimism(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    st.subheader("What choosing promised")
    select, reports = view.task.select, view.task.splits_with_role("report")
    gains = {}
    for split in [select, *reports]:
        soup, alone = known[picked.label][split], known[best][split]
        if soup is not None and alone is not None:
            gains[split] = soup.score - alone.score
    with st.container(horizontal=True):
        for split, gain in gains.items():
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


def _attribution(view: View, picked: StoredSoup) -> None:
    st.subheader("Which ingredient matters")
    coefficients = {name: str(c) for name, c in picked.soup.coefficients.items()}
    if len(coefficients) < 2:
        st.caption("The soup is one ingredient, so it owes everything to that.")
        return
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    request = view.request | {"coefficients": coefficients, "split": split}
    done = jobs.last("attribution", **request)
    if done is not None and done.result is not None:
        shares = {name: Share(*each) for name, each in done.result["shapley"].items()}
        figure = figures.attribution_bars(
            shares, done.result["without"], score_name=f"{view.task.score_name} on {split}"
        )
        st.plotly_chart(figure, key="attribution", config={"displaylogo": False})
        return
    st.caption(
        f"Soups of fewer ingredients are evaluated on {split}: leave-one-out and Shapley values. "
        "To look at, not to choose by."
    )
    if st.button(
        "Find out",
        icon=":material/balance:",
        disabled=jobs.unfinished("attribution", **request) is not None,
    ):
        jobs.submit("attribution", f"What matters in {picked.label}", request)
        st.rerun()


main(st.session_state["view"])
