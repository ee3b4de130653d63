"""Exports of figures: PNG, SVG and HTML with a title on white, CSV, and Python.

Plotly draws images in the browser, as its camera button does. The script of this module presses
that button for a titled copy of the figure. It is a constant: the server's content security policy
allows it by its hash.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import plotly.io
import streamlit as st

from pages.components.state import View
from soupcore import figures
from soupcore.figures.style import ABOVE, heading
from soupcore.table_export import SUFFIXES, export_table
from soupcore.tasks import TaskInfo

_IMAGES = ("PNG", "SVG")
_KEY = "save-"  # begins the keys of the buttons that save images
_TEMPLATE = {"layout": plotly.io.templates["plotly_white"].layout.to_plotly_json()}
SCRIPT = f"""<script>(() => {{
  if (window.stockpotImages) return;
  window.stockpotImages = true;
  const template = {json.dumps(_TEMPLATE)};
  document.addEventListener("click", (event) => {{
    const button = event.target.closest("button");
    const box = button?.closest("[class*='st-key-{_KEY}']");
    if (!box) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const [, format, key] = box.className.match(/st-key-{_KEY}([a-z]+)-([^ ]+)/);
    const figure = document.querySelector(`.st-key-${{key}} .js-plotly-plot`);
    const camera = figure?.querySelector("[data-title^='Download plot']");
    if (!camera) return;
    const {{ layout, _context: context }} = figure;
    const {{ toImageButtonOptions: options }} = context;
    const {{ title, margin, font }} = layout.meta;
    const scale = format === "png" ? 3 : 1;
    const height = figure.clientHeight + {ABOVE};
    figure.layout = {{
      ...layout, template, title, font, height, margin: {{ ...layout.margin, ...margin }},
      paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    }};
    context.toImageButtonOptions = {{ ...options, format, scale, height }};
    try {{
      camera.click();
    }} finally {{
      figure.layout = layout;
      context.toImageButtonOptions = options;
    }}
  }}, true);
}})();</script>"""
STYLE = (
    ":has(> .st-key-images) { display: none; }"
    "[class*=st-key-exports-] { gap: 0 0.75rem; }"
    "[class*=st-key-exports-] button { display: flex; min-height: 0; padding: 0; }"
)


def listen() -> None:
    """Run the script that saves images."""
    with st.container(key="images"):
        st.html(SCRIPT, unsafe_allow_javascript=True)


def config(key: str) -> dict[str, Any]:
    """Return the configuration of a figure; the camera saves it as it is shown."""
    image = {"format": "png", "filename": f"stockpot-{key}", "scale": 2}
    return {"displaylogo": False, "toImageButtonOptions": image}


def title(figure: go.Figure, key: str, text: str, about: str) -> None:
    """Give a figure the title of its exports, which is not shown on the page.

    Args:
        figure: A finished figure.
        key: Key of the figure.
        text: The title; empty for one that is made of the key.
        about: The splits and the numbers of examples; may be empty.
    """
    figure.update_layout(meta=heading(text or _named(key), about))


def show(
    figure: go.Figure, key: str, table: pd.DataFrame, code: str, text: str = "", about: str = ""
) -> None:
    """Offer a figure that is shown on the page as files, and its Python.

    Args:
        figure: The figure.
        key: Key of the figure on its page, and part of its file names.
        table: The numbers that the figure shows.
        code: Python that reproduces the figure by itself.
        text: The title; empty for one that is made of the key.
        about: The splits and the numbers of examples; may be empty.
    """
    with st.container(
        horizontal=True,
        horizontal_alignment="right",
        vertical_alignment="center",
        key=f"exports-{key}",
    ):
        for form in _IMAGES:
            st.button(form, key=f"{_KEY}{form.lower()}-{key}", type="tertiary",
                      help="With a title, on white. The camera above the figure saves it as shown."
                      )  # fmt: skip
        # Made on a click: a standalone figure includes 5 MB of plotly.js.
        _download("HTML", f"{key}.html", "text/html",
                  lambda: _html(figure, text or _named(key), about))  # fmt: skip
        _download("CSV", f"{key}.csv", "text/csv", lambda: _csv(table))
        with st.popover("Python", type="tertiary", key=f"export-{key}"):
            st.markdown("**Reproduce this figure in Python**")
            st.code(code, language="python")


def show_rows(
    table: pd.DataFrame,
    key: str,
    *,
    units: Mapping[str, str] | None = None,
    decimals: Mapping[str, int] | None = None,
) -> None:
    """Offer a table as CSV, JSON Lines, LaTeX and Markdown; see `soupcore.export_table`."""
    with st.container(
        horizontal=True,
        horizontal_alignment="right",
        vertical_alignment="center",
        key=f"exports-{key}",
    ):
        for form, suffix in SUFFIXES.items():
            make = partial(export_table, table, form, units=units, decimals=decimals)
            _download(form, f"{key}{suffix}", "text/plain", make)


def sizes(task: TaskInfo[Any], *chosen: str, part: int | None = None) -> str:
    """Return splits with their numbers of examples, such as "test (report), n = 700".

    Args:
        task: The task.
        chosen: Names of splits, or roles for all splits of a role. Instead of more than two splits
            of a role, their number is returned.
        part: Number of examples of each split that were used; None for all.
    """
    texts = []
    for each in chosen:
        splits = [name for name, split in task.splits.items() if each in (name, split.role)]
        if len(splits) > 2:
            texts.append(
                f"{len(splits)} {each} splits, {_n(task, splits, part)}".removesuffix(", ")
            )
        else:
            texts += [
                f"{task.split_title(s)}, {_n(task, [s], part)}".removesuffix(", ") for s in splits
            ]
    return " · ".join(texts)


def measured_on(view: View) -> str:
    """Return the splits of the columns of scores; "" without a task."""
    return sizes(view.task, "select", "report", "shift") if view.has_task else ""


def _n(task: TaskInfo[Any], splits: Sequence[str], part: int | None) -> str:
    counts = {len(task.split(split)) for split in splits}
    if part is not None:
        counts = {min(count, part) for count in counts}
    if max(counts, default=0) < 2:  # of a command's scores the number of examples is not known
        return ""
    return (
        f"n = {counts.pop():,}" if len(counts) == 1 else f"n = {min(counts):,} to {max(counts):,}"
    )


def _named(key: str) -> str:
    return key.replace("-", " ").capitalize()


def _download(label: str, name: str, mime: str, make: Callable[[], str]) -> None:
    st.download_button(
        label,
        make,
        file_name=f"stockpot-{name}",
        mime=mime,
        key=f"download-{name}",
        on_click="ignore",
        type="tertiary",
    )


def _html(figure: go.Figure, text: str, about: str) -> str:
    html: str = figures.titled(figure, text, about).to_html(include_plotlyjs=True)
    return html


def _csv(table: pd.DataFrame) -> str:
    is_named = table.index.name is not None
    return table.rename(columns=lambda name: re.sub(r"\s+", " ", str(name))).to_csv(index=is_named)
