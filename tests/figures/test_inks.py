"""Ingredients have a colour each, or that of their basin beyond eight."""

import pandas as pd

from soupcore import figures
from soupcore.figures.inks import add_legend
from soupcore.figures.style import NEUTRAL

NAMES = [f"run-{number}" for number in range(12)]
NUMBERS = [*[1] * 5, *[2] * 3, 3, 4, None]
BASINS: dict[str, int | None] = dict(zip(NAMES, NUMBERS, strict=False))


def test_up_to_eight_ingredients_have_a_colour_each() -> None:
    inks = figures.ingredient_colours(NAMES[:8], basins=BASINS, selected=NAMES[:1])
    assert inks == figures.colours(NAMES[:8])
    assert inks.titles == {}


def test_more_are_coloured_by_basin() -> None:
    inks = figures.ingredient_colours(NAMES, basins=BASINS)
    by_title: dict[str, set[str]] = {}
    for name in NAMES:
        by_title.setdefault(inks.titles[name], set()).add(name)
    assert by_title == {
        "main basin": {*NAMES[:5]},
        "basin 2": {*NAMES[5:8]},
        "apart": {*NAMES[8:10]},
        "no basin known": {*NAMES[10:]},
    }
    assert len({*inks.values()}) == 4
    assert inks[NAMES[11]] == NEUTRAL


def test_without_basins_the_selected_ones_stand_out() -> None:
    inks = figures.ingredient_colours(NAMES, selected=NAMES[:2])
    assert {name for name in NAMES if inks[name] != NEUTRAL} == {*NAMES[:2]}
    assert {*figures.ingredient_colours(NAMES).values()} == {NEUTRAL}


def test_curves_differ_even_within_a_basin() -> None:
    drawn = [NAMES[3], "a soup", NAMES[9]]
    assert figures.curve_colours(drawn, NAMES) == figures.colours([NAMES[3], NAMES[9]])
    few = figures.curve_colours([NAMES[3]], NAMES[:8])
    assert few[NAMES[3]] == figures.colours(NAMES[:8])[NAMES[3]]


def test_figures_name_the_colours_that_are_shared() -> None:
    scores = [0.8 + index / 100 for index in range(12)]
    table = pd.DataFrame({"score": scores, "low": scores, "high": scores}, index=NAMES)
    inks = figures.ingredient_colours(NAMES, basins=BASINS)
    legend = [t.name for t in figures.accuracy_overview(table, inks).data if t.showlegend]
    assert legend == ["main basin", "basin 2", "apart", "no basin known"]
    scatter = pd.DataFrame({"report": scores, "shift": scores, "kind": "ingredient"}, index=NAMES)
    shown = [t.name for t in figures.shift_scatter(scatter, inks).data if t.showlegend is not False]
    assert shown == legend
    own = figures.accuracy_overview(table.iloc[:8], figures.ingredient_colours(NAMES[:8]))
    assert not add_legend(own, figures.colours(NAMES[:8]), NAMES[:8])
