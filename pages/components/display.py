"""Names, durations, errors, figures and simple widgets on pages. Names are shown literally."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.components import exports
from pages.components.state import View
from soupcore import StockpotError, escaping
from soupcore.analysis import varying
from soupcore.analysis.verdict import Outcome
from soupcore.overview import is_learning_rate

#: Returns a name as Markdown that shows it literally.
plain = escaping.markdown

#: How the outcomes of verdicts are shown.
VERDICT_ICONS: dict[Outcome, str] = {
    "unknown": ":material/hourglass_empty:",
    "better": ":material/trending_up:",
    "even": ":material/drag_handle:",
    "worse": ":material/trending_down:",
    "open": ":material/help:",
}

Pick = Callable[[list[Any]], None]

logger = logging.getLogger(__name__)


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
    title: str = "",
    about: str = "",
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
        title: The title of exports; empty for one that is made of the key.
        about: The splits and the numbers of examples, below the title of exports.
        on_pick: Called with the custom data of the points that the user clicks; None if the
            points are not clickable.
        on_box: Called with a box that the user draws: its ends `x` and `y`. Its points are not
            picked.
        boxes: Whether points can also be picked with a box or a lasso.
    """
    exports.title(figure, key, title, about)
    config = exports.config(key)
    if on_pick is None:
        st.plotly_chart(figure, key=key, config=config)
    else:
        _clickable_figure(figure, key, on_pick, on_box, boxes=boxes, config=config)
    exports.show(figure, key, table, code, title, about)


def tabs(key: str, titles: Mapping[str, str]) -> Iterator[str]:
    """Show tabs and yield the name of the open one, inside it. The others are not drawn.

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


def choose_option(
    label: str,
    options: Sequence[str],
    current: str,
    *,
    text: Callable[[str], str],
    width: int,
    key: str,
) -> str:
    """Let the user choose one of many options, or none; return it, "" for none.

    Args:
        label: Name of the choice, for screen readers.
        options: The options.
        current: The option that is chosen now; "" or an unknown one for none.
        text: Returns the displayed text of an option, or of "" for none.
        width: Width of the box in pixels.
        key: Key of the widget, which is drawn anew when the option is changed from elsewhere.
    """
    everything = ["", *options]
    now = current if current in everything else ""
    chosen = st.selectbox(
        label,
        everything,
        index=everything.index(now),
        format_func=text,
        label_visibility="collapsed",
        width=width,
        key=f"{key}-{now}",
    )
    return chosen or ""


def choose_word(label: str, words: Mapping[str, str], current: str, key: str) -> str:
    """Let the user choose one of a few words; return it.

    Args:
        label: Name of the choice, for screen readers.
        words: `{word: displayed text}`.
        current: The word that is chosen now.
        key: Key of the widget, which is drawn anew when the word is changed from elsewhere.
    """
    word: str = st.segmented_control(
        label,
        [*words],
        default=current,
        format_func=lambda word: words[word],
        required=True,
        label_visibility="collapsed",
        key=f"{key}-{current}",
    )
    return word


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
    rate = next(filter(is_learning_rate, numbers), None)
    options = [None, *numbers]
    return st.selectbox(
        "Colour by max of pair", options, index=options.index(rate),
        format_func=lambda name: name or "none", key=f"colour-{key}", width=220,
    )  # fmt: skip


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
    renewed = {"renewed": st.session_state.get(f"{key}-renewed", 0)}
    figure.update_layout(meta={**(figure.layout.meta or {}), **renewed}, clickmode="event+select")
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
        return escaping.from_figure_text(custom)
    return [_texts(each) for each in custom] if isinstance(custom, list | tuple) else custom
