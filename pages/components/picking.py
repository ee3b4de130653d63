"""Figures whose points can be picked."""

from collections.abc import Callable, Mapping
from typing import Any

import plotly.graph_objects as go
import streamlit as st

Pick = Callable[[list[Any]], None]


def show(
    figure: go.Figure,
    key: str,
    on_pick: Pick,
    *,
    boxes: bool = False,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Draw a figure and call `on_pick` with the custom data of the points that are picked.

    A figure that stays what it is when a point is picked keeps its zoom; but the same point can
    then be picked again only after another, or after `renew`.

    Args:
        figure: What to draw; its traces carry `customdata` on the points that can be picked.
        key: Identity of the figure on its page.
        on_pick: What to do with a pick; the page is drawn anew after it.
        boxes: Whether points can be picked by a box or a lasso too.
        config: Options of plotly.
    """
    # A figure with other content is made anew by Streamlit, and forgets what was picked.
    figure.update_layout(meta=st.session_state.get(f"{key}-renewed", 0), clickmode="event+select")
    st.plotly_chart(
        figure,
        key=key,
        on_select=lambda: _take(key, on_pick),
        selection_mode=("points", "box", "lasso") if boxes else "points",
        config={"displaylogo": False} | dict(config or {}),
    )


def renew(key: str) -> None:
    """Have the figure made anew when it is drawn next, so that every point can be picked."""
    st.session_state[f"{key}-renewed"] = st.session_state.get(f"{key}-renewed", 0) + 1


def _take(key: str, on_pick: Pick) -> None:
    points = st.session_state[key]["selection"]["points"]
    if picked := [point["customdata"] for point in points if point.get("customdata")]:
        on_pick(picked)
