"""Figures whose points can be picked."""

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import streamlit as st

Pick = Callable[[list[Any]], None]


def show(figure: go.Figure, key: str, on_pick: Pick, *, boxes: bool = False) -> None:
    """Draw a figure and call `on_pick` with the custom data of the points that are picked.

    Args:
        figure: What to draw; its traces carry `customdata` on the points that can be picked.
        key: Identity of the figure on its page.
        on_pick: What to do with a pick; the page is drawn anew after it.
        boxes: Whether points can be picked by a box or a lasso too.
    """
    # A figure that was clicked is made anew, so that the same point can be picked again.
    figure.update_layout(meta=st.session_state.get("picks", 0), clickmode="event+select")
    st.plotly_chart(
        figure,
        key=key,
        on_select=lambda: _take(key, on_pick),
        selection_mode=("points", "box", "lasso") if boxes else "points",
        config={"displaylogo": False},
    )


def _take(key: str, on_pick: Pick) -> None:
    points = st.session_state[key]["selection"]["points"]
    st.session_state["picks"] = st.session_state.get("picks", 0) + 1
    if picked := [point["customdata"] for point in points if point.get("customdata")]:
        on_pick(picked)
