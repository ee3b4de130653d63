"""The logged metric that ranks ingredients, which the user chooses and the URL stores."""

import math

import streamlit as st

from pages.components.choices import choose_option, choose_word
from soupcore import Sweep
from soupcore.checkpoints.run_folders import is_lower_better

_DIRECTIONS = {"lower": "lower is better", "higher": "higher is better"}


def metrics(sweep: Sweep) -> list[str]:
    """Return the logged metrics of a sweep that have a number for at least one ingredient."""
    names = dict.fromkeys(m for i in sweep.ingredients.values() for m in i.logged_metrics)
    return [name for name in names if values(sweep, name)]


def values(sweep: Sweep, metric: str) -> dict[str, float]:
    """Return the finite numbers of a logged metric, by ingredient."""
    by_name = {name: i.logged_metrics.get(metric) for name, i in sweep.ingredients.items()}
    return {
        name: float(value)
        for name, value in by_name.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def chosen(sweep: Sweep) -> str | None:
    """Return the ranking metric; None if none is chosen, or the sweep has no such metric."""
    name: str = st.session_state["rank"]
    return name if name in metrics(sweep) else None


def lower_is_better(metric: str) -> bool:
    """Whether lower values rank first: as the user chose, else by the name of the metric."""
    if st.session_state["rank"] == metric and st.session_state["better"] in _DIRECTIONS:
        return bool(st.session_state["better"] == "lower")
    return bool(is_lower_better(metric))


def choose(sweep: Sweep, folder: str) -> str | None:
    """Let the user choose the ranking metric and its direction; return the metric."""
    known = metrics(sweep)
    if not known:
        return None
    current = chosen(sweep) or ""
    metric = choose_option(
        "Rank by",
        known,
        current,
        text=lambda name: f"Rank by {logged(name)}" if name else "Order by name",
        width=280,
        key=f"order-{folder}",
    )
    if metric != current:
        st.session_state.update(rank=metric, better="")
    if not metric:
        return None
    current = "lower" if lower_is_better(metric) else "higher"
    better = choose_word("Direction", _DIRECTIONS, current, f"better-{folder}-{metric}")
    if better != current:
        st.session_state["better"] = better
    return metric


def ranked(sweep: Sweep, names: list[str], metric: str) -> list[str]:
    """Return names by a logged metric, the best first; those without a value are last."""
    known = values(sweep, metric)
    sign = 1 if lower_is_better(metric) else -1
    return sorted(names, key=lambda name: sign * known[name] if name in known else math.inf)


def logged(metric: str) -> str:
    """Return the column of a logged metric, which is marked as not measured here."""
    return metric if metric.endswith(" (logged)") else f"{metric} (logged)"
