"""The style that all figures share: colours for light and dark themes, layout, and safe texts.

An ingredient has the same colour in every figure. Up to eight ingredients have their own colours,
because readers cannot distinguish more. With more ingredients, colours show the basins if they are
known; otherwise all ingredients share a neutral colour, and the selected ones stand out.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from colorsys import hls_to_rgb
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale, unlabel_rgb

from soupcore.escaping import figure_text

NEUTRAL = "#8a8f98"  # chords, the base and other references
ACCEPTED = "#2a9d6f"
REJECTED = "#c2554d"
SOUP = "#e0a100"

# After Okabe and Ito (2008), adjusted so that any two of these, SOUP and NEUTRAL differ by at least
# 11 in CIEDE2000, for deuteranopia too, and stand out from light and dark backgrounds.
PALETTE = (
    "#0d70ad", "#d55e00", "#009e73", "#e47ea1", "#56b4e9", "#a0355f", "#7d7e3e", "#8f6cdf",
)  # fmt: skip
ABOVE = 92  # pixels of a titled figure, above its plot, for title and legend
_INK, _FAINT = "#1f2328", "#57606a"
_NO_TEXTS = ("hovertemplate", "texttemplate", "template")
_GOLDEN_ANGLE = 0.381966  # turns; keeps successive hues far apart for any number of names
_EQUAL_CONTRAST = 0.179  # luminance with equal contrast to black and to white (WCAG 2)

_BLUE, _VERMILLION, _GREEN, _, _SKY, _, _, _VIOLET = PALETTE
_MAIN = "main basin"
_BASINS = {1: (_MAIN, _BLUE), 2: ("basin 2", _GREEN), 3: ("basin 3", _VIOLET)}
_SMALLER = ("smaller basins", _SKY)
_APART = ("apart", _VERMILLION)
_UNLINKED = ("no basin known", NEUTRAL)
_SELECTED = ("selected", _BLUE)
_OTHERS = ("ingredients", NEUTRAL)


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name. It depends only on the position of the name."""
    return {name: _colour(index) for index, name in enumerate(names)}


class Inks(dict[str, str]):
    """The colour of each ingredient.

    Attributes:
        titles: `{ingredient: title}` of colours that several share; empty if each has its own.
    """

    titles: Mapping[str, str] = {}


def ingredient_colours(
    names: Iterable[str],
    *,
    basins: Mapping[str, int | None] | None = None,
    selected: Collection[str] = (),
) -> Inks:
    """Return the colour of each ingredient of a sweep.

    Args:
        names: All ingredients of the sweep, in its order.
        basins: Number of each ingredient's basin, 1 for the main one, such as `basin_numbers`
            returns it. Ingredients whose basin is not known are None, or left out.
        selected: The selected ingredients.
    """
    known = list(names)
    if len(known) <= len(PALETTE):
        return Inks(colours(known))
    if basins:
        sizes = Counter(basins.values())
        shared = {name: _of_basin(basins.get(name), sizes) for name in known}
    else:
        shared = {name: _SELECTED if name in selected else _OTHERS for name in known}
    made = Inks({name: ink for name, (_, ink) in shared.items()})
    made.titles = {name: title for name, (title, _) in shared.items()}
    return made


def curve_colours(drawn: Sequence[str], names: Collection[str]) -> dict[str, str]:
    """Return the colours of ingredients that are drawn as curves, which have to differ.

    Args:
        drawn: The ingredients that are drawn; others, such as soups, are left out.
        names: All ingredients of the sweep, in its order.
    """
    if len(names) <= len(PALETTE):
        return colours(names)
    return colours(name for name in drawn if name in names)


def add_legend(figure: go.Figure, inks: Mapping[str, str], drawn: Iterable[str]) -> bool:
    """Add a legend of the colours that ingredients share, and return whether there are several.

    Args:
        figure: The figure.
        inks: Colour of each ingredient.
        drawn: The ingredients that the figure shows.
    """
    titles = inks.titles if isinstance(inks, Inks) else {}
    shown = {titles[name]: inks[name] for name in drawn if name in titles}
    if len(shown) < 2:
        return False
    count = len(figure.data)
    order = [_MAIN, *(title for title, _ in _BASINS.values()), _SMALLER[0], _APART[0]]
    for title in sorted(shown, key=lambda title: (*order, title).index(title)):
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=title, hoverinfo="skip",
            marker={"color": shown[title], "size": 11, "symbol": "circle"}, showlegend=True,
        )  # fmt: skip
    figure.data = (*figure.data[count:], *figure.data[:count])  # other traces stay on top
    return True


def space_before(unit: str) -> str:
    """Return the leading space of a unit, which plotly strips from the texts in `meta`."""
    return " " if unit.startswith(" ") else ""


def scatter(**properties: Any) -> dict[str, Any]:
    """Return a scatter trace as a dict: a figure would validate a `go.Scatter` twice."""
    return {"type": "scatter", **properties}


def finish(figure: go.Figure, *, height: int, title: str = "") -> go.Figure:
    """Apply the shared layout and escape all texts. Call it exactly once, as the last step.

    Texts of a figure may contain untrusted names, so all of them are escaped. Only hover templates
    contain markup. They must not contain data, but refer to `customdata`, `meta` and the axes.
    """
    figure.update_layout(
        height=height,
        title={"text": title, "font": {"size": 14}},
        margin={"l": 8, "r": 8, "t": 40 if title else 16, "b": 8},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
    )
    figure.update_xaxes(automargin=True, gridcolor="rgba(138,143,152,0.18)", zeroline=False)
    figure.update_yaxes(automargin=True, gridcolor="rgba(138,143,152,0.18)", zeroline=False)
    for part in (*figure.data, figure.layout):
        if changes := _escaped(part.to_plotly_json()):
            part.update(changes)
    return figure


def titled(figure: go.Figure, title: str, about: str = "") -> go.Figure:
    """Return a finished figure on white, with its title and room for it: to print or to send.

    Args:
        figure: A figure of this package.
        title: The title, one line.
        about: The splits and the numbers of examples, below the title; may be empty.
    """
    light = go.Figure(figure)
    return light.update_layout(
        {"template": "plotly_white", "height": light.layout.height + ABOVE, **heading(title, about)}
    )


def heading(title: str, about: str = "") -> dict[str, Any]:
    """Return the layout of a titled figure: its title, its top margin and its font."""
    return {
        "title": {
            "text": figure_text(title),
            "subtitle": {"text": figure_text(about), "font": {"size": 12, "color": _FAINT}},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 20, "l": 4},
            "font": {"size": 15, "color": _INK},
        },
        "margin": {"t": ABOVE},
        "font": {"family": "system-ui, Arial, sans-serif", "color": _INK},
    }


def cell_numbers(heatmap: go.Heatmap, decimals: int | None, size: int = 10) -> go.Scatter:
    """Return the numbers of a heatmap's cells, each in black or white for the higher contrast.

    Plotly's own numbers are grey and hard to read on mid-range colours.

    Args:
        heatmap: Supplies x, y, z and the colour scale, which spans `zmin` to `zmax` or, if these
            are not set, the range of the values.
        decimals: Decimals per number; None for three significant digits.
        size: Font size in pixels.
    """
    z = np.asarray(heatmap.z, dtype=np.float64).reshape(len(heatmap.y), len(heatmap.x))
    rows, columns = np.nonzero(np.isfinite(z))
    values = z[rows, columns]
    low = heatmap.zmin if heatmap.zmin is not None else values.min(initial=np.inf)
    high = heatmap.zmax if heatmap.zmax is not None else values.max(initial=-np.inf)
    shares = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    scale = [list(step) for step in heatmap.colorscale]
    inks = [_contrasting(colour) for colour in sample_colorscale(scale, shares.tolist())]
    return go.Scatter(
        x=[heatmap.x[column] for column in columns],
        y=[heatmap.y[row] for row in rows],
        text=[f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}" for value in values],
        mode="text",
        textfont={"size": size, "color": inks},
        hoverinfo="skip",
        showlegend=False,
        name="numbers",
    )


def _colour(index: int) -> str:
    if index < len(PALETTE):
        return PALETTE[index]
    red, green, blue = hls_to_rgb((index * _GOLDEN_ANGLE) % 1, 0.55, 0.5)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _of_basin(number: int | None, sizes: Mapping[int | None, int]) -> tuple[str, str]:
    """Return the title and the colour of a basin, given the sizes of all."""
    if number is None:
        return _UNLINKED
    if number > 1 and sizes[number] == 1:
        return _APART
    return _BASINS.get(number, _SMALLER)


def _contrasting(colour: str) -> str:
    """Return black or white, whichever has the higher contrast to a colour."""
    shares = np.asarray(unlabel_rgb(colour)) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return "#000" if linear @ (0.2126, 0.7152, 0.0722) > _EQUAL_CONTRAST else "#fff"


def _escaped(node: Any) -> Any:
    """Return the changes that escape the texts in a part of a figure, or None without any.

    A dict is reduced to its changed keys. A list is returned whole.
    """
    if isinstance(node, str):
        text = figure_text(node)
        return text if text != node else None
    if isinstance(node, np.ndarray):
        return _escaped(node.tolist()) if node.dtype.kind in "OU" else None
    if isinstance(node, dict):
        changes = {key: _escaped(value) for key, value in node.items() if key not in _NO_TEXTS}
        return {key: change for key, change in changes.items() if change is not None} or None
    if isinstance(node, list | tuple):
        news = [_merged(value, _escaped(value)) for value in node]
        return news if any(new is not old for new, old in zip(news, node, strict=True)) else None
    return None


def _merged(value: Any, change: Any) -> Any:
    """Return a value with the changes of `_escaped`."""
    if change is None:
        return value
    if isinstance(value, dict):
        return {key: _merged(each, change.get(key)) for key, each in value.items()}
    return change
