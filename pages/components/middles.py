"""The middles of all pairs: two-model soups, and what they are compared by."""

from collections.abc import Sequence

import streamlit as st

from pages.components import asking
from pages.components.state import View
from soupcore import Barriers
from soupcore.analysis import varying
from soupcore.connectivity import stored_barriers

ALPHAS = 3  # both ends and the middle


def ask(view: View, names: Sequence[str], split: str, *, key: str) -> Barriers | None:
    """Return what is known of the middles of all pairs, and offer to evaluate the rest.

    Returns:
        None where nothing is known; that is said then.
    """
    known = stored_barriers(view.sweep, view.evaluator, names, ALPHAS, split=split)
    if known.missing:
        count = len(names) * (len(names) - 1) // 2
        request = view.request | {"names": list(names), "alphas": ALPHAS, "splits": [split]}
        asking.button(
            f"Evaluate {asking.points(known.missing)}", "paths",
            f"Evaluate {count} middles on {split}", request, key=f"evaluate-{key}",
            help="The middle of each pair, and the ends that are not known.",
        )  # fmt: skip
    if not known.paths:
        st.info(f"No middle is known on {split} yet.", icon=":material/join_inner:")
        return None
    return known


def colour_by(view: View, key: str) -> str | None:
    """Let the user choose the hyperparameter whose larger value of a pair is its colour."""
    numbers = [
        name
        for name in varying(view.sweep)
        if any(isinstance(i.hyperparameters.get(name), int | float)
               for i in view.sweep.ingredients.values())
    ]  # fmt: skip
    if not numbers:
        return None
    options = [None, *numbers]
    first = options.index(rates(numbers)[0]) if rates(numbers) else 0
    return st.selectbox(
        "Colour by the larger", options, index=first,
        format_func=lambda name: name or "one colour", key=f"colour-{key}", width=220,
    )  # fmt: skip


def rates(hyperparameters: Sequence[str]) -> list[str]:
    """Return those that are learning rates, by their names: what soups depend on most."""
    return [name for name in hyperparameters if name.lower().startswith(("learning", "lr"))]
