"""How much the order of the ingredients matters to a greedy soup."""

from collections.abc import Sequence
from statistics import mean, stdev

import streamlit as st

from pages.components import asking, jobs, scores
from pages.components.scores import StoredSoup
from pages.components.state import View

SEEDS = 10


def show(view: View, picked: StoredSoup) -> None:
    """Show the mean and the spread of greedy soups of the same ingredients in random orders."""
    told = picked.soup.parameters
    candidates = scores.candidates(view, picked)
    names = candidates["names"]
    if picked.soup.recipe != "greedy" or len(names) < 3:
        return
    parameters = {"accept": told["accept"], "metric": told.get("metric", "score")}
    request = view.request | candidates | {"parameters": parameters, "seeds": SEEDS}
    done = jobs.last("orders", **request)
    if done is None or done.result is None:
        asking.button(
            f"Try {SEEDS} random orders",
            "orders",
            f"Greedy in {SEEDS} orders",
            request,
            key="random-orders",
            help=f"At most {SEEDS * len(names)} evaluations, and each soup on "
            f"{len(view.task.reported)} splits.",
            primary=False,
        )
        return
    found: dict[str, list[float]] = done.result["scores"]
    shifts = [found[split] for split in view.task.splits_with_role("shift")]
    reports = view.task.splits_with_role("report")
    shown = {split: found[split] for split in (view.task.select, *reports[:1])}
    if shifts:
        shown["mean shift"] = [mean(scores) for scores in zip(*shifts, strict=True)]
    parts = ", ".join(f"{_spread(scores)} on {split}" for split, scores in shown.items())
    st.caption(f"In {SEEDS} random orders, mean ± standard deviation: {parts}.")


def _spread(scores: Sequence[float]) -> str:
    return f"{100 * mean(scores):.2f} ± {100 * stdev(scores):.2f} %"
