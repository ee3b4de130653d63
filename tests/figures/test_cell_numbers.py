import numpy as np
import plotly.graph_objects as go
import pytest

from soupcore.figures.cell_numbers import cell_numbers


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


def test_the_ends_of_the_scale_are_those_of_the_heatmap() -> None:
    heatmap = go.Heatmap(z=[[1.0]], x=[0], y=[0], colorscale="Viridis", zmin=0, zmax=9)
    assert cell_numbers(heatmap, 0).textfont.color == ("#fff",)


def test_no_cells_have_no_numbers() -> None:
    heatmap = go.Heatmap(z=np.empty((0, 0)), x=[], y=[], colorscale="Viridis")
    assert len(cell_numbers(heatmap, 2).x) == 0
