"""What choosing on select promised, and what other examples give."""

import streamlit as st

from pages.components import asking, jobs, scores
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import Evaluation
from soupcore.analysis import cross_fit


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
