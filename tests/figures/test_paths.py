import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from soupcore import LinearPath, figures
from soupcore.figures.tables import barriers_table, paths_table


def path(barrier: float, split: str = "select", beyond: bool = False) -> LinearPath:
    return LinearPath(
        alphas=np.array([*([-0.5] if beyond else []), 0, 0.25, 0.5, 0.75, 1]),
        losses=np.array(
            [*([9.0] if beyond else []), 1, 1.25 + barrier / 2, 1.5 + barrier, 1.75, 2]
        ),
        scores=np.array([*([0.1] if beyond else []), 0.8, 0.75, 0.7, 0.65, 0.6]),
        split=split,
        n=100,
    )


def traces(figure: go.Figure, yaxis: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.yaxis == yaxis]


def test_a_path_is_drawn_with_its_points_its_chord_and_its_barrier() -> None:
    figure = figures.path_curves({("a", "b"): [path(barrier=0.25)]})
    points, curve, chord, barrier = traces(figure, "y")
    np.testing.assert_allclose(points.y, [1, 1.375, 1.75, 1.75, 2])
    assert points.mode == "markers"
    assert (len(curve.x), curve.x[0], curve.x[-1]) == (129, 0, 1)
    np.testing.assert_allclose(np.interp(points.x, curve.x, curve.y), points.y)
    assert (list(chord.x), list(chord.y)) == ([0, 1], [1, 2])
    assert (list(barrier.x), list(barrier.y)) == ([0.5, 0.5], [1.5, 1.75])
    chord, score = traces(figure, "y2")
    np.testing.assert_allclose(chord.y, [80, 60])
    np.testing.assert_allclose(score.y, [80, 75, 70, 65, 60])


def test_the_legend_gives_the_error_of_the_barrier() -> None:
    figure = figures.path_curves({("a", "b"): [path(barrier=0.25)]})
    low, high = path(barrier=0.25).barrier_bracket
    assert figure.data[0].name == f"a → b · barrier {low:.3f}–{high:.3f}"
    ends = LinearPath(np.array([0, 1.0]), np.ones(2), np.ones(2), "select", 9)
    assert "≥ 0.000" in figures.path_curves({("a", "b"): [ends]}).data[0].name


def test_no_barrier_is_drawn_for_a_line_without_one() -> None:
    figure = figures.path_curves({("a", "b"): [path(barrier=-0.25)]})
    assert len(traces(figure, "y")) == 3
    assert "barrier 0.000" in figure.data[0].name


def test_points_beyond_the_ends_are_dotted_and_not_part_of_the_curve() -> None:
    figure = figures.path_curves({("a", "b"): [path(barrier=0.25, beyond=True)]})
    points, curve, beyond, *_ = traces(figure, "y")
    assert points.x[0] == -0.5
    assert min(curve.x) == 0
    assert (list(beyond.x), list(beyond.y)) == ([-0.5, 0], [9, 1])
    assert beyond.line.dash == "dot"


@pytest.mark.parametrize(("splits", "across", "bands"), [(1, 1, 1), (2, 2, 1), (3, 2, 2)])
def test_every_split_has_a_panel_and_every_pair_a_colour(
    splits: int, across: int, bands: int
) -> None:
    names = [f"split-{number}" for number in range(splits)]
    paths = {pair: [path(0.1, split) for split in names] for pair in (("a", "b"), ("a", "c"))}
    figure = figures.path_curves(paths)
    panels = {(trace.xaxis, trace.yaxis) for trace in figure.data}
    assert len(panels) == 2 * splits
    assert len(figure._grid_ref) == 2 * bands
    assert len(figure._grid_ref[0]) == across
    shown = [trace for trace in figure.data if trace.mode == "markers"]
    assert len({trace.marker.color for trace in shown}) == 2
    assert [trace.showlegend for trace in shown].count(True) == 2
    titles = [note.text for note in figure.layout.annotations if note.text]
    assert titles == (names if splits > 1 else [])


def test_a_loss_that_is_no_number_leaves_a_gap() -> None:
    broken = path(0.1)
    broken.losses[2] = np.nan
    figure = figures.path_curves({("a", "b"): [broken]})
    assert np.isnan(figure.data[0].y[2])
    assert np.isnan(figure.data[1].y).all()


def test_paths_from_the_base_lie_in_the_plane_of_scores() -> None:
    table = pd.DataFrame(
        {"alpha": [0, 0.5, 1], "report": [0.5, 0.8, 0.7], "shift": [0.4, 0.6, 0.5]}
    )
    figure = figures.from_base({"a": table, "soup": table}, {"a": "#123456"})
    first, second, base = figure.data
    np.testing.assert_allclose(first.x, [50, 80, 70])
    np.testing.assert_allclose(first.y, [40, 60, 50])
    assert (list(base.x), list(base.y), base.marker.symbol) == ([50], [40], "square")
    assert first.line.color == "#123456" != second.line.color


def test_the_tables_have_the_drawn_values() -> None:
    paths = {("a", "b"): [path(0.25), path(0.1, "report")]}
    points = paths_table(paths)
    assert len(points) == 10
    assert points["split"].tolist() == ["select"] * 5 + ["report"] * 5
    assert points["loss"].tolist()[:5] == path(0.25).losses.tolist()
    barriers = barriers_table(paths)
    assert barriers["loss barrier"].tolist() == pytest.approx([0.25, 0.1])
    assert (barriers["up to"] >= barriers["loss barrier"]).all()
    assert barriers["points"].tolist() == [5, 5]
