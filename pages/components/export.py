"""Figures with the ways to take them home: PNG, SVG, HTML, their numbers, and their Python."""

import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.components import picking

_FORMATS = {"PNG": "png", "SVG": "svg"}
_FORMAT = "image-format"


def show(
    figure: go.Figure,
    key: str,
    table: pd.DataFrame,
    code: str,
    *,
    on_pick: picking.Pick | None = None,
    boxes: bool = False,
) -> None:
    """Draw a figure, and below it what it can be exported as.

    Args:
        figure: What to draw.
        key: Identity of the figure on its page, and the name of its files.
        table: The numbers that it draws.
        code: The Python that makes it, whole.
        on_pick: What to do with the points that are picked, where they can be.
        boxes: Whether they can be picked by a box or a lasso too.
    """
    config = _config(key)
    if on_pick is None:
        st.plotly_chart(figure, key=key, config=config)
    else:
        picking.show(figure, key, on_pick, boxes=boxes, config=config)
    with (
        st.container(horizontal=True, horizontal_alignment="right"),
        st.popover("Export", type="tertiary", icon=":material/download:", key=f"export-{key}"),
    ):
        _image(key)
        _files(figure, key, table)
        st.markdown("**The figure in Python**")
        st.code(code, language="python")


def _config(key: str) -> dict[str, Any]:
    image = _FORMATS[st.session_state.get(_FORMAT, "PNG")]
    return {
        "displaylogo": False,
        "toImageButtonOptions": {"format": image, "filename": f"stockpot-{key}", "scale": 2},
    }


def _image(key: str) -> None:
    own = f"format-{key}"
    st.session_state[own] = st.session_state.get(_FORMAT, "PNG")
    st.segmented_control(
        "The camera in the figure's corner saves",
        list(_FORMATS),
        key=own,
        required=True,
        on_change=lambda: st.session_state.update({_FORMAT: st.session_state[own]}),
        help="Made in your browser, in the colours that you see.",
    )


def _files(figure: go.Figure, key: str, table: pd.DataFrame) -> None:
    with st.container(horizontal=True):
        # Made when asked for: a standalone figure holds the 5 MB of the library that draws it.
        _download("HTML", f"{key}.html", "text/html", lambda: _html(figure))
        _download("CSV", f"{key}.csv", "text/csv", lambda: _csv(table))


def _download(label: str, name: str, mime: str, make: Callable[[], str]) -> None:
    st.download_button(
        label,
        make,
        file_name=f"stockpot-{name}",
        mime=mime,
        key=f"download-{name}",
        on_click="ignore",
        icon=":material/download:",
    )


def _html(figure: go.Figure) -> str:
    html: str = figure.to_html(include_plotlyjs=True)
    return html


def _csv(table: pd.DataFrame) -> str:
    is_named = table.index.name is not None
    return table.rename(columns=lambda name: re.sub(r"\s+", " ", str(name))).to_csv(index=is_named)
