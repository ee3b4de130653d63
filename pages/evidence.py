"""How sure it is that a soup is better, and which ingredients it owes that to."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    attribution,
    optimism,
    orders,
    reliability,
    score_snippets,
    scores,
    snippets,
    soup_picker,
)
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore.analysis import paired


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
    _acceptances(picked)
    left, right = st.columns(2)
    with left:
        optimism.show(view, picked, best, known)
        orders.show(view, picked)
    with right:
        attribution.show(view, picked)
    reliability.show(view, picked, best, known)
    snippets.show(score_snippets.evidence(view, picked, best))


def _against_best(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    st.subheader(f"Against the best ingredient, {best}")
    names = view.sweep.names()
    evaluated = [name for name in names if known[name][view.task.select] is not None]
    if len(evaluated) < len(names):
        st.info(
            f"{best} is the best of those evaluated on {view.task.select}: {len(evaluated)} of "
            f"{len(names)} ingredients. Evaluate the others on the **Ingredients** page.",
            icon=":material/grocery:",
        )
    rows = []
    for split in view.task.reported:
        soup, alone = known[picked.label][split], known[best][split]
        if soup is None or alone is None:
            continue
        found = paired(soup.scores, alone.scores)
        rows.append(
            {
                "split": split,
                "soup, %": 100 * soup.score,
                f"{best}, %": 100 * alone.score,
                "difference, points": 100 * found.difference,
                "95 % interval": _interval(found.interval),
                "examples changed": found.changed,
                "gained": found.gained,
                "lost": found.lost,
                "McNemar p": found.p_value,
            }
        )
    scores.offer_evaluation(view, picked, key="evidence")
    if not rows:
        return
    table = pd.DataFrame(rows).set_index("split")
    formats: dict[Any, Any] = {c: "{:.2f}" for c in table.columns if c.endswith(", %")}
    formats |= {"difference, points": "{:+.2f}", "McNemar p": "{:.3g}"}
    st.dataframe(table.style.format(formats))
    chosen_on = picked.soup.parameters.get("split")
    flattered = (
        f"{chosen_on} was chosen on and flatters the soup"
        if chosen_on
        else f"If anything of the soup was picked by its score on {view.task.select}, that "
        "flatters it"
    )
    st.caption(
        f"On the same examples of each split. {flattered}; judge by report and the shifts. An "
        "example has changed where its score has, from wrong to right or back: another wrong "
        "prediction is no change. The interval covers the choice of examples, not the luck of the "
        "training runs."
    )


def _acceptances(picked: StoredSoup) -> None:
    steps = [step for step in picked.soup.trace if step.interval is not None]
    if not steps:
        return
    st.subheader("What each acceptance gained")
    rows = [
        {
            "step": f"{step.action} {step.candidate}",
            "select after it, %": f"{100 * step.score:.2f}",
            "difference, 95 % interval": _interval(step.interval or (0, 0)),
            "gained": step.gained,
            "lost": step.lost,
            # Soups of before it was kept have none.
            "McNemar p": "–" if step.p_value is None else f"{step.p_value:.3g}",
        }
        for step in steps
    ]
    st.dataframe(rows, hide_index=True, width=720)
    st.caption(
        "For information, not to choose by: single acceptances are rarely sure, and leaving out "
        "all that are not loses most of what the soup gains."
    )


def _interval(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:+.2f} to {100 * ends[1]:+.2f}"


main(st.session_state["view"])
