"""The colours of ingredients, the same in every figure.

Each of up to eight ingredients has its own colour. More than eight colours cannot be told apart.
With more ingredients, colours show basins where these are known; otherwise all ingredients share a
neutral colour, and the selected ones stand out.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import plotly.graph_objects as go

from soupcore.figures.style import NEUTRAL, PALETTE, colours

_BLUE, _VERMILLION, _GREEN, _, _SKY, _, _, _VIOLET = PALETTE
_MAIN = "main basin"
_BASINS = {1: (_MAIN, _BLUE), 2: ("basin 2", _GREEN), 3: ("basin 3", _VIOLET)}
_SMALLER = ("smaller basins", _SKY)
_APART = ("apart", _VERMILLION)
_UNLINKED = ("no basin known", NEUTRAL)
_SELECTED = ("selected", _BLUE)
_OTHERS = ("ingredients", NEUTRAL)


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


def _of_basin(number: int | None, sizes: Mapping[int | None, int]) -> tuple[str, str]:
    if number is None:
        return _UNLINKED
    if number > 1 and sizes[number] == 1:
        return _APART
    return _BASINS.get(number, _SMALLER)


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
