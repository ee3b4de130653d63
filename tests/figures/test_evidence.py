import numpy as np
import torch

from soupcore import figures
from soupcore.analysis import Share, calibration
from soupcore.figures.tables import attribution_table, calibration_table


def test_a_reliability_diagram_has_a_line_a_network_beside_the_diagonal() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0], [3.0, 0.0]])
    found = calibration(logits, torch.tensor([0, 1, 1, 0]), bins=2)
    figure = figures.reliability_diagram({"soup": found}, {"soup": "#000000"})
    diagonal, line = figure.data
    assert list(diagonal.x) == list(diagonal.y)
    np.testing.assert_allclose(line.x, [100 * each.confidence for each in found.bins])
    np.testing.assert_allclose(line.y, [50, 100])
    assert list(line.customdata) == [2, 2]
    table = calibration_table({"soup": found})
    np.testing.assert_allclose(table["confidence"] * 100, line.x)
    np.testing.assert_allclose((table["high"] - table["accuracy"]) * 100, line.error_y.array)


def test_the_largest_contribution_is_on_top_and_harmful_ones_have_another_colour() -> None:
    shares = {"a": Share(0.01, 0.001), "b": Share(-0.02), "c": Share(0.03)}
    without = {"a": 0.0, "b": -0.01, "c": 0.02}
    figure = figures.attribution_bars(shares, without)
    assert [*attribution_table(shares, without).loc["a"]] == [0.01, 0.001, 0.0]
    bars, marks = figure.data
    assert list(bars.y) == ["b", "a", "c"]
    np.testing.assert_allclose(bars.x, [-2, 1, 3])
    np.testing.assert_allclose(marks.x, [-1, 0, 2])
    assert bars.marker.color[0] != bars.marker.color[1] == bars.marker.color[2]
