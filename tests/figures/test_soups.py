import numpy as np
import pandas as pd
import pytest

from soupcore import figures
from soupcore.figures.style import SOUP
from soupcore.tasks import Unit

ROWS = pd.DataFrame(
    [
        ("a", "val", 0.02, 0.01, 0.04),
        ("a", "test", -0.01, np.nan, np.nan),
        ("b", "val", 0.03, 0.0, 0.06),
    ],
    columns=["name", "split", "difference", "low", "high"],
)


def test_coefficients_have_the_colours_of_ingredients() -> None:
    table = pd.DataFrame({"coefficient": [0.75, -0.25]}, index=["1e5", "a soup"])
    (bars,) = figures.coefficient_bars(table, {"1e5": "#123456"}).data
    assert list(bars.y) == ["a soup", "1e5"]  # drawn from the bottom up
    assert list(bars.x) == [-0.25, 0.75]
    assert list(bars.marker.color) == [SOUP, "#123456"]


@pytest.mark.parametrize(
    ("unit", "x", "above", "below"),
    [(Unit(is_share=True), [2, -1], [2, 0], [1, 0]), (Unit(is_share=False, sign=-1, suffix="K"),
      [-0.02, 0.01], [0.01, 0], [0.02, 0])],
)  # fmt: skip
def test_differences_are_drawn_with_their_intervals_as_they_are_written(
    unit: Unit, x: list[float], above: list[float], below: list[float]
) -> None:
    figure = figures.difference_forest(
        ROWS, ["#111111", "#222222"], baseline="base", score_unit=unit
    )
    one, other = figure.data
    assert (one.name, other.name) == ("a", "b")
    assert list(one.x) == pytest.approx(x)
    assert list(one.error_x.array) == pytest.approx(above)
    assert list(one.error_x.arrayminus) == pytest.approx(below)
    assert list(figure.layout.yaxis.ticktext) == ["val", "test"]
    assert [round(y) for y in one.y] == [0, 1]
    assert [round(y) for y in other.y] == [0]
