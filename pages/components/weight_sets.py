"""Which weights are taken of checkpoints that hold several sets: raw or averaged ones."""

import streamlit as st

from pages.components import state
from pages.components.state import View
from pages.components.text import plain


def show(view: View) -> None:
    """Say which weights are taken, with a way to take others, where there is a choice."""
    titles = [found.title for found in view.sweep.weight_sets]
    if len(titles) < 2:
        return
    taken = _taken(view)
    default = next(iter(set(taken))) if len(set(taken)) == 1 else None
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = st.segmented_control(
            "Weights",
            titles,
            default=default,
            format_func=plain,
            key=f"weights-{view.folder}-{view.weights}",
            label_visibility="collapsed",
        )
        how = "as you chose" if view.weights else "as the tools do that wrote them"
        st.caption(
            f"{len(taken)} of {len(view.sweep)} checkpoints with {plain(' and '.join(titles))}. "
            f"Taken: {plain(', '.join(dict.fromkeys(taken)))}, {how}."
        )
    if chosen and chosen != default:
        state.choose_weights(chosen)
        st.rerun()


def _taken(view: View) -> list[str]:
    """Return the title of what was opened, for each checkpoint with a choice."""
    return [
        next(found.title for found in checkpoint.weight_sets if found.name == checkpoint.weights)
        for checkpoint in (i.checkpoint for i in view.sweep.ingredients.values())
        if checkpoint.weight_sets
    ]
