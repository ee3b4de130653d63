import pytest

from soupcore.figures.axes import linear_ticks, log_ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-4, 1e-2, [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]),
        (5e-5, 1e-2, [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]),
        (1e-5, 0.1, [1e-5, 1e-4, 1e-3, 1e-2, 0.1]),
        (2e-5, 0.05, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]),
        (1e-20, 1.0, [1e-20, 1e-17, 1e-14, 1e-11, 1e-8, 1e-5, 1e-2]),
    ],
)
def test_ticks_are_few_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (54.2, 66.2, [55, 60, 65]),
        (0.03, 0.031, [0.03, 0.0302, 0.0304, 0.0306, 0.0308, 0.031]),
        (-7, 93, [0, 20, 40, 60, 80]),
        (3, 3, [3]),
    ],
)
def test_linear_ticks_are_few_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high) == ticks
