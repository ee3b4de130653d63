"""Names, errors and figures on pages. Names are shown literally; figures have exports."""

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from soupcore import StockpotError
from soupcore.escaping import from_figure_text
from soupcore.escaping import markdown as plain
from soupcore.table_export import SUFFIXES, export_table

__all__ = ["about", "in_a_sentence", "listed", "plain", "renew_clicks", "show_error", "show_figure"]

Pick = Callable[[list[Any]], None]

logger = logging.getLogger(__name__)

_FORMATS = {"PNG": "png", "SVG": "svg"}
_FORMAT = "image-format"


def listed(names: Iterable[str]) -> str:
    """Return names separated by commas, as Markdown that shows them literally."""
    return ", ".join(map(plain, names))


def in_a_sentence(title: str) -> str:
    """Return the title of a recipe as it is written within a sentence."""
    return title if title[1:] != title[1:].lower() else title.lower()  # TIES, WiSE-FT


def about(seconds: float) -> str:
    """Return an estimated duration in round numbers."""
    if seconds < 60:
        return f"{max(round(seconds), 1) if seconds < 10 else 5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes if minutes < 60 else 5 * round(minutes / 5), 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def show_error(error: Exception) -> bool:
    """Show an error without its traceback, and log the traceback of an unexpected one."""
    if isinstance(error, StockpotError):
        st.error(plain(str(error)), icon=":material/error:")
    else:
        logger.exception("A page failed", exc_info=error)
        st.error(
            f"Something went wrong on this page: {plain(f'{type(error).__name__}: {error}')}. Your "
            "results are safe. Reload the page; if it happens again, report it with the server's "
            "log.",
            icon=":material/error:",
        )
    return True


def show_figure(
    figure: go.Figure,
    key: str,
    table: pd.DataFrame,
    code: str,
    *,
    on_pick: Pick | None = None,
    on_box: Callable[[dict[str, Any]], None] | None = None,
    boxes: bool = False,
) -> None:
    """Draw a figure with its exports: PNG, SVG, HTML, its numbers and its Python.

    Args:
        figure: The figure.
        key: Key of the figure on its page, and part of its file names.
        table: The numbers that the figure shows.
        code: Python that reproduces the figure by itself.
        on_pick: Called with the custom data of the points that the user clicks; None if the
            points are not clickable.
        on_box: Called with a box that the user draws: its ends `x` and `y`. Its points are not
            picked.
        boxes: Whether points can also be picked with a box or a lasso.
    """
    config = _config(key)
    if on_pick is None:
        st.plotly_chart(figure, key=key, config=config)
    else:
        _clickable_figure(figure, key, on_pick, on_box, boxes=boxes, config=config)
    with (
        st.container(horizontal=True, horizontal_alignment="right"),
        st.popover("Export", type="tertiary", icon=":material/download:", key=f"export-{key}"),
    ):
        _image(key)
        _files(figure, key, table)
        st.markdown("**Reproduce this figure in Python**")
        st.code(code, language="python")


def export_rows(
    table: pd.DataFrame,
    key: str,
    *,
    units: Mapping[str, str] | None = None,
    decimals: Mapping[str, int] | None = None,
) -> None:
    """Offer a table as CSV, JSON Lines, LaTeX and Markdown; see `soupcore.export_table`."""
    with (
        st.container(horizontal=True, horizontal_alignment="right"),
        st.popover("Export", type="tertiary", icon=":material/download:", key=f"export-{key}"),
        st.container(horizontal=True),
    ):
        for form, suffix in SUFFIXES.items():
            make = partial(export_table, table, form, units=units, decimals=decimals)
            _download(form, f"{key}{suffix}", "text/plain", make)


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
        "Image format of the camera button",
        list(_FORMATS),
        key=own,
        required=True,
        on_change=lambda: st.session_state.update({_FORMAT: st.session_state[own]}),
        help="Rendered in your browser with the current theme.",
    )


def _files(figure: go.Figure, key: str, table: pd.DataFrame) -> None:
    with st.container(horizontal=True):
        # Made on a click: a standalone figure includes 5 MB of plotly.js.
        _download("Interactive HTML", f"{key}.html", "text/html", lambda: _html(figure))
        _download("Data (CSV)", f"{key}.csv", "text/csv", lambda: _csv(table))


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


def _clickable_figure(
    figure: go.Figure,
    key: str,
    on_pick: Pick,
    on_box: Callable[[dict[str, Any]], None] | None,
    *,
    boxes: bool,
    config: dict[str, Any],
) -> None:
    """Draw a figure and call `on_pick` with the `customdata` of the points that the user clicks.

    A figure that does not change on a click keeps its zoom. But then a point can only be clicked
    again after another point, or after `renew_clicks`.
    """
    # Streamlit replaces a figure with other content, and forgets its clicks.
    figure.update_layout(meta=st.session_state.get(f"{key}-renewed", 0), clickmode="event+select")
    st.plotly_chart(
        figure,
        key=key,
        on_select=lambda: _take(key, on_pick, on_box),
        selection_mode=("points", "box", "lasso")
        if boxes
        else ("points", "box")
        if on_box
        else "points",
        config=config,
    )


def tabs(key: str, titles: Mapping[str, str]) -> Iterator[str]:
    """Show tabs, of which only the open one is drawn: give its name, within the tab.

    The session holds the name, also while other pages are shown.

    Args:
        key: Key of the name in the session.
        titles: `{name: title}`; the first is the default.
    """
    widget, names = f"{key}-tabs", {title: name for name, title in titles.items()}
    st.session_state[widget] = titles.get(st.session_state[key], next(iter(names)))

    def choose() -> None:
        st.session_state[key] = names[st.session_state[widget]]

    for tab, name in zip(st.tabs(list(names), key=widget, on_change=choose), titles, strict=True):
        if tab.open:
            with tab:
                yield name


def tick_rows(table: str, rows: Sequence[str], ticked: Collection[str]) -> str:
    """Tick rows of a table, and return the key of its widget for this order of the rows.

    Ticks are positions. With one key for all orders, ticks that a browser sends again while the
    table is being sorted would apply to other rows.

    Args:
        table: Name of the table.
        rows: Names of its rows, in order.
        ticked: Names of the rows to tick.
    """
    order = "\0".join(rows).encode(errors="backslashreplace")
    key = f"{table}-{hashlib.sha256(order).hexdigest()[:8]}"
    places = [place for place, name in enumerate(rows) if name in ticked]
    if st.session_state.get(key, {}).get("selection", {}).get("rows") != places:
        st.session_state[key] = {"selection": {"rows": places, "columns": [], "cells": []}}
    return key


def renew_clicks(key: str) -> None:
    """Replace the figure when it is drawn next, so that every point can be clicked again."""
    st.session_state[f"{key}-renewed"] = st.session_state.get(f"{key}-renewed", 0) + 1


def _take(key: str, on_pick: Pick, on_box: Callable[[dict[str, Any]], None] | None) -> None:
    selection = st.session_state[key]["selection"]
    if on_box is not None and selection["box"]:
        on_box(selection["box"][-1])
        return
    points = selection["points"]
    if picked := [_texts(point["customdata"]) for point in points if point.get("customdata")]:
        on_pick(picked)


def _texts(custom: Any) -> Any:
    """Return a point's custom data with its texts unescaped."""
    if isinstance(custom, str):
        return from_figure_text(custom)
    return [_texts(each) for each in custom] if isinstance(custom, list | tuple) else custom
