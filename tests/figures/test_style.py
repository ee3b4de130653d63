from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
import pytest

from soupcore import figures
from soupcore.figures.style import NEUTRAL, SOUP, add_legend, cell_numbers, colours

Floats = npt.NDArray[np.float64]

NAMES = [f"run-{number}" for number in range(12)]
NUMBERS = [*[1] * 5, *[2] * 3, 3, 4, None]
BASINS: dict[str, int | None] = dict(zip(NAMES, NUMBERS, strict=False))
EIGHT = [*colours(map(str, range(8))).values()]

# sRGB to CIE XYZ (D65), and deuteranopia in linear RGB (Machado et al. 2009, severity 1).
XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip
WHITE = np.array([0.95047, 1, 1.08883])
DEUTERANOPIA = np.array([
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
])  # fmt: skip


def linear(colour: str) -> Floats:
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    ratios = XYZ @ rgb.clip(0, 1) / WHITE
    f = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios * 841 / 108 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("seen", [np.eye(3), DEUTERANOPIA], ids=["usual", "deuteranopia"])
def test_any_two_of_the_first_eight_colours_can_be_told_apart(seen: Floats) -> None:
    for one, other in combinations([*EIGHT, SOUP, NEUTRAL], 2):
        distance = np.linalg.norm(lab(seen @ linear(one)) - lab(seen @ linear(other)))
        assert distance >= 10, (one, other)  # CIE 1976


@pytest.mark.parametrize("background", ["#ffffff", "#0e1117"])
def test_colours_stand_out_from_the_background(background: str) -> None:
    assert min(contrast(colour, background) for colour in EIGHT) > 2.2


def test_a_colour_depends_on_the_position_only() -> None:
    many = colours(map(str, range(40)))
    assert [*many.values()][:8] == EIGHT
    assert len({*many.values()}) == 40


def test_colours_differ_and_do_not_depend_on_later_names() -> None:
    names = [f"run-{number}" for number in range(30)]
    found = figures.colours(names)
    assert len(set(found.values())) == len(names)
    assert figures.colours(names[:7]) == {name: found[name] for name in names[:7]}


def test_up_to_eight_ingredients_have_a_colour_each() -> None:
    inks = figures.ingredient_colours(NAMES[:8], basins=BASINS, selected=NAMES[:1])
    assert inks == figures.colours(NAMES[:8])
    assert inks.titles == {}


def test_more_than_eight_ingredients_are_coloured_by_basin() -> None:
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


def test_selected_ingredients_are_highlighted_without_basins() -> None:
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


@pytest.mark.parametrize(
    ("colorscale", "dark", "light"), [("Viridis", 0.0, 2.0), ("Greys", 2.0, 0.0)]
)
def test_numbers_are_white_on_dark_cells_and_black_on_light_ones(
    colorscale: str, dark: float, light: float
) -> None:
    z = [[dark, light], [np.nan, 1.0]]
    heatmap = go.Heatmap(z=z, x=["a", "b"], y=["c", "d"], colorscale=colorscale)
    numbers = cell_numbers(heatmap, 1)
    assert list(zip(numbers.x, numbers.y, numbers.text, strict=True)) == [
        ("a", "c", f"{dark:.1f}"),
        ("b", "c", f"{light:.1f}"),
        ("b", "d", "1.0"),
    ]
    assert numbers.textfont.color[:2] == ("#fff", "#000") if dark < light else ("#000", "#fff")


def test_cell_numbers_use_the_range_of_the_heatmap() -> None:
    heatmap = go.Heatmap(z=[[1.0]], x=[0], y=[0], colorscale="Viridis", zmin=0, zmax=9)
    assert cell_numbers(heatmap, 0).textfont.color == ("#fff",)


def test_an_empty_heatmap_has_no_numbers() -> None:
    heatmap = go.Heatmap(z=np.empty((0, 0)), x=[], y=[], colorscale="Viridis")
    assert len(cell_numbers(heatmap, 2).x) == 0
