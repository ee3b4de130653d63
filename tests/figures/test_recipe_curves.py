import pandas as pd
import pytest

from soupcore import figures

TABLE = pd.DataFrame(
    {
        "value": [0.0, 0.5, 1.0],
        "select": [0.7, 0.9, 0.8],
        "report": [0.6, 0.8, 0.9],
        "mean shift": [0.5, 0.4, 0.6],
    }
)


def test_a_curve_has_a_line_for_each_split_and_marks_the_best() -> None:
    figure = figures.recipe_curve(TABLE, parameter="λ", best=0.5)
    assert [trace.name for trace in figure.data] == [
        "select (used for choosing)",
        "report",
        "mean shift",
        "best on select",
    ]
    assert list(figure.data[1].y) == [60, 80, 90]
    assert (figure.data[3].x[0], figure.data[3].y[0]) == (0.5, 90)
    assert [list(point) for point in figure.data[0].customdata] == [[0.0], [0.5], [1.0]]


@pytest.mark.parametrize("gone", [["report"], ["mean shift"], ["report", "mean shift"]])
def test_splits_that_a_task_has_not_have_no_line(gone: list[str]) -> None:
    figure = figures.recipe_curve(TABLE.drop(columns=gone), parameter="λ")
    assert len(figure.data) == 3 - len(gone)


def test_a_trade_off_goes_from_value_to_value_and_names_its_ends_and_the_best() -> None:
    (line,) = figures.trade_off(TABLE, parameter="α", best=0.5).data
    assert list(line.x) == [60, 80, 90]
    assert list(line.y) == [50, 40, 60]
    assert list(line.text) == ["α = 0", "α = 0.5", "α = 1"]
    assert list(figures.trade_off(TABLE, parameter="α").data[0].text) == ["α = 0", "", "α = 1"]
