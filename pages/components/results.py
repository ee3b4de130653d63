"""Stored results that pages show, and the jobs that complete them."""

import math
from collections.abc import Sequence
from itertools import combinations

import streamlit as st

from pages.components import jobs, state
from pages.components.display import plain
from pages.components.state import View
from soupcore.analysis import varying
from soupcore.calls import Call, Result
from soupcore.connectivity import PairSummaries, known_pairs, stored_lines
from soupcore.jobs.connectivity_kinds import alphas_of
from soupcore.overview import is_learning_rate

MIDPOINT_ALPHAS = 3  # both ends and the midpoint

_SAMPLED = 50  # pairs without a summary


def derived(view: View, call: Call, title: str, *, key: str) -> Result | None:
    """Return a result that follows from stored evaluations, or None if it is not computed yet.

    A job computes it without a click, except in a sweep that was only opened by a link.
    """
    found = call.result(view.context)
    if found is not None or state.store().is_read_only:
        return found
    if view.folder not in state.opened():
        jobs.call_button(view, "Compute", call, title, key=key)
        return None
    ended = jobs.derive(call.kind, title, view.request | call.arguments)
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
    at = split if part is None else view.task.part(split, part)

    def known() -> PairSummaries:
        return known_pairs(view.sweep, view.evaluations, names, alphas_of(alphas), split=at)

    found = known()
    if len(found) or not _are_evaluated(view, names, alphas, at):
        return found
    request = {"names": list(names), "alphas": alphas, "split": split}
    if part is not None:
        request["part"] = part
    title = f"Look up {math.comb(len(names), 2)} pairs on {at}"
    jobs.derive("known pairs", title, view.request | request)
    return known()


def _are_evaluated(view: View, names: Sequence[str], alphas: int | str, split: str) -> bool:
    """Whether pairs without summaries are evaluated, judged by an evenly spaced sample of them.

    Pairs that are being evaluated get their summaries without a look-up.
    """
    if view.folder not in state.opened() or any(
        jobs.unfinished(kind, sweep=view.folder) for kind in ("paths", "line")
    ):
        return False
    pairs = list(combinations(names, 2))
    some = pairs[:: math.ceil(len(pairs) / _SAMPLED) or 1]
    lines = [(view.sweep[a], view.sweep[b]) for a, b in some]
    known = stored_lines(lines, view.evaluations, alphas_of(alphas), split=split)
    return any(path is not None for path in known.paths)


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
        lines = {
            "names": list(names),
            "alphas": MIDPOINT_ALPHAS,
            "splits": [split],
        }
        jobs.job_button(
            f"Run {jobs.evaluations_text(missing)}", "paths",
            f"Evaluate {count} midpoints on {split}", view.request | lines, key=f"evaluate-{key}",
            help="Evaluates each pair's midpoint (α = 0.5) and any missing endpoints.",
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
