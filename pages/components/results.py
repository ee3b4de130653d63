"""Stored results that pages show, and the jobs that complete them."""

import math
from collections.abc import Sequence
from itertools import combinations

import streamlit as st

from pages.components import jobs, state
from pages.components.display import plain
from pages.components.state import View
from soupcore.analysis import varying
from soupcore.calls import Pairs, Paths, Result, StoredCall
from soupcore.connectivity import PairSummaries
from soupcore.overview import is_learning_rate
from soupcore.plan import seconds

MIDPOINT_ALPHAS = 3  # both ends and the midpoint

_SAMPLED = 50  # pairs without a summary


def derived(view: View, call: StoredCall, title: str, *, key: str) -> Result | None:
    """Return a result that follows from stored evaluations, or None if it is not computed yet.

    A job computes it without a click, except in a sweep that was only opened by a link.
    """
    found = call.result(view.context)
    if found is not None or state.store().is_read_only:
        return found
    if view.folder not in state.opened():
        jobs.call_button(view, "Compute", call, title, key=key, primary=False)
        return None
    ended = jobs.derive(view, call, title)
    if ended is not None:
        st.caption(f"{plain(title)}: {plain(ended.error or ended.state)}. Restart it under Jobs.")
    return call.result(view.context)


def pairs(
    view: View, names: Sequence[str], alphas: int | str, split: str, *, part: int | None = None
) -> PairSummaries:
    """Return the summaries of the lines between all pairs of ingredients.

    If no pair has a summary but the pairs are evaluated, for other α or by an earlier version, a
    job adds the summaries.

    Args:
        view: The view.
        names: The ingredients.
        alphas: Number of α values, or "adaptive".
        split: Name of the split.
        part: Number of its examples to use; None for all.
    """
    call = Pairs(names=tuple(names), alphas=alphas, split=split, part=part)
    found = call.result(view.context)
    if len(found) or not _are_evaluated(view, call):
        return found
    at = split if part is None else view.task.part(split, part)
    jobs.derive(view, call, f"Look up {math.comb(len(names), 2)} pairs on {at}")
    return call.result(view.context)


def _are_evaluated(view: View, call: Pairs) -> bool:
    """Whether pairs without summaries are evaluated, judged by an evenly spaced sample of them.

    Pairs that are being evaluated get their summaries without a look-up.
    """
    if view.folder not in state.opened() or any(
        jobs.unfinished(kind, sweep=view.folder) for kind in ("paths", "line")
    ):
        return False
    pairs = list(combinations(call.names, 2))
    some = tuple(pairs[:: math.ceil(len(pairs) / _SAMPLED) or 1])
    paths = Paths(pairs=some, alphas=call.alphas, splits=(call.split,), part=call.part)
    return any(path is not None for path in paths.result(view.context)[call.split].paths)


def midpoint_paths(names: Sequence[str], split: str) -> Paths:
    """Return the call for the midpoints of all pairs of ingredients."""
    return Paths(names=tuple(names), alphas=MIDPOINT_ALPHAS, splits=(split,))


def midpoints(view: View, names: Sequence[str], split: str, *, key: str) -> PairSummaries | None:
    """Return the midpoints of all pairs that are evaluated, and show a button for the others.

    Returns:
        The summaries; None, with a message on the page, if no pair is evaluated.
    """
    known = pairs(view, names, MIDPOINT_ALPHAS, split)
    count = math.comb(len(names), 2)
    if len(known) < count:
        ends = [view.sweep[name].mixture for name in names]
        missing = len(view.evaluations.missing(ends, split)) + count - len(known)
        call = midpoint_paths(names, split)
        jobs.call_button(
            view, f"Run {jobs.evaluations_text(missing)}", call,
            f"Evaluate {count:,} midpoints on {split}", key=f"evaluate-{key}",
            help="Evaluates each pair's midpoint (α = 0.5) and any missing endpoints.",
            price=seconds(view.overview, missing * len(view.task.split(split))), starts=True,
        )  # fmt: skip
    if not len(known):
        st.info(f"No midpoints evaluated on {plain(split)} yet.", icon=":material/join_inner:")
        return None
    return known


def colour_by(view: View, key: str) -> str | None:
    """Let the user choose a hyperparameter; the maximum of a pair is its colour."""
    numbers = [
        name
        for name in varying(view.sweep)
        if any(isinstance(i.hyperparameters.get(name), int | float)
               for i in view.sweep.ingredients.values())
    ]  # fmt: skip
    if not numbers:
        return None
    options = [None, *numbers]
    first = options.index(learning_rates(numbers)[0]) if learning_rates(numbers) else 0
    return st.selectbox(
        "Colour by max of pair", options, index=first,
        format_func=lambda name: name or "none", key=f"colour-{key}", width=220,
    )  # fmt: skip


def learning_rates(hyperparameters: Sequence[str]) -> list[str]:
    """Return the hyperparameters that are learning rates, judged by their names."""
    return [name for name in hyperparameters if is_learning_rate(name)]
