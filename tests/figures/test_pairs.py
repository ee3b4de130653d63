import numpy as np
import pytest

from soupcore import Barriers, LinearPath, figures
from soupcore.connectivity import tree
from soupcore.figures.tables import pairs_table
from soupcore.inner_products import Floats

NAN = np.nan


def known(barrier: float) -> Barriers:
    path = LinearPath(
        alphas=np.array([0, 0.5, 1]),
        losses=np.array([1, 1.5 + barrier, 2]),
        scores=np.array([0.8, 0.6, 0.7]),
        split="select",
        n=100,
    )
    return Barriers(("a", "b", "c"), {("a", "b"): path})


@pytest.mark.parametrize(
    ("measure", "value"),
    [("loss", 0.25), ("error", 15), ("error (Frankle)", 15), ("midpoint", -15)],
)
def test_known_pairs_are_shown_both_ways_and_the_others_stay_empty(
    measure: str, value: float
) -> None:
    settled, preliminary, _, empty, cells = figures.barrier_heatmap(
        known(0.25), measure=measure
    ).data
    expected = [[0, value, NAN], [value, 0, NAN], [NAN, NAN, 0]]
    np.testing.assert_allclose(settled.z, expected, atol=1e-12)
    assert np.isnan(preliminary.z).all()
    assert ["".join(cell[:2]) for cell in cells.customdata] == ["ab", "ba"]
    assert ["".join(cell) for cell in empty.customdata] == ["ac", "bc", "ca", "cb"]
    assert empty.meta[0].endswith("not evaluated")


def test_preliminary_pairs_are_faded() -> None:
    found = known(0.25)
    settled, preliminary, *_ = figures.pair_heatmap(
        found.names, found.loss, figures.MEASURES["loss"], preliminary=[("a", "b")]
    ).data
    np.testing.assert_array_equal(settled.z, np.where(np.eye(3, dtype=bool), 0, NAN))
    expected = [[NAN, 0.25, NAN], [0.25, NAN, NAN], [NAN, NAN, NAN]]
    np.testing.assert_allclose(preliminary.z, expected, atol=1e-12)
    assert (settled.opacity, preliminary.opacity) == (1, 0.6)


@pytest.mark.parametrize(("count", "drawn"), [(40, None), (41, 1)])
def test_a_browser_draws_no_marker_on_each_cell_of_many(count: int, drawn: int | None) -> None:
    names = [f"run-{number}" for number in range(count)]
    values = np.full((count, count), NAN)
    values[7, :], values[:, 7] = 0.5, 0.5
    empty, cells = figures.pair_heatmap(names, values, figures.MEASURES["loss"]).data[-2:]
    assert empty.marker.maxdisplayed == cells.marker.maxdisplayed == drawn
    assert [tuple(cell[:2]) for cell in cells.customdata if cell[0] == "run-7"] == [
        ("run-7", name) for name in names if name != "run-7"
    ]
    assert len(empty.x) == len(empty.customdata) == (count - 1) * (count - 2)
    for trace in (empty, cells):
        assert [(names[i], names[j]) for i, j in zip(trace.y, trace.x, strict=True)] == [
            tuple(cell[:2]) for cell in trace.customdata
        ]


def matrix() -> Floats:
    values = np.array([[0, 0.9, 0.05, 0.8], [0, 0, 0.7, 0.02], [0, 0, 0, 0.6], [0, 0, 0, 0.0]])
    both: Floats = values + values.T
    return both


@pytest.mark.parametrize("count", [12, 72, 200])
def test_labels_of_rows_are_legible_and_do_not_overlap(count: int) -> None:
    names = [f"run-{i}" for i in range(count)]
    figure = figures.pair_heatmap(names, np.ones((count, count)), figures.MEASURES["loss"])
    axis, height = figure.layout.yaxis, figure.layout.height
    size = axis.tickfont.size
    assert size >= 9
    assert axis.ticktext == tuple(names[i] for i in axis.tickvals)
    step = axis.tickvals[1] - axis.tickvals[0]
    assert step * height / count >= size - 1


def test_rows_have_the_order_of_the_tree() -> None:
    names = ["a", "b", "c", "d"]
    joined = tree(names, matrix())
    figure = figures.pair_heatmap(
        names, matrix(), figures.MEASURES["loss"], tree=joined, threshold=0.1
    )
    branches, heatmap, _, _, cells = figure.data
    order = [names.index(name) for name in joined.order]
    np.testing.assert_array_equal(heatmap.z, matrix()[np.ix_(order, order)])
    assert figure.layout.xaxis2.ticktext == joined.order == figure.layout.yaxis2.ticktext
    assert np.isnan(branches.x).sum() == 3  # a gap after each of the three joins
    np.testing.assert_allclose(np.nanmax(branches.y), 0.6)
    assert figure.layout.shapes[0].y0 == 0.1
    first = cells.customdata[0]
    assert tuple(first[:2]) == joined.order[:2]


def test_hover_texts_include_the_details_of_a_pair() -> None:
    figure = figures.pair_heatmap(
        ["a", "b"], matrix()[:2, :2], figures.MEASURES["loss"], details={("a", "b"): "a screen"}
    )
    cells = figure.data[-1]
    assert [tuple(cell[2:]) for cell in cells.customdata] == [
        ("loss barrier 0.900 · a screen",)
    ] * 2
    assert cells.hovertemplate.endswith("%{customdata[2]}<extra></extra>")


@pytest.mark.parametrize(
    ("measure", "values", "low", "high"),
    [
        pytest.param("loss", 0.02, 0, 0.1, id="what is connected gets no colour of alarm"),
        pytest.param("loss", 0.4, 0, 0.4, id="the highest"),
        pytest.param("loss", 3.0, 0, 0.5, id="clipped at five times the threshold"),
        pytest.param("error", -0.05, -5, 2, id="below 0"),
        pytest.param("midpoint", -0.05, -5, 5, id="0 in the middle"),
        pytest.param("distance", 4.0, 0, 4, id="distance"),
    ],
)
def test_the_colours_span_the_relevant_range(
    measure: str, values: float, low: float, high: float
) -> None:
    shown = np.array([[0, values], [values, 0]])
    heatmap = figures.pair_heatmap(["a", "b"], shown, figures.MEASURES[measure]).data[0]
    assert (heatmap.zmin, heatmap.zmax) == pytest.approx((low, high))


def test_the_colour_bar_of_clipped_barriers_counts_thresholds() -> None:
    shown = np.array([[0, 3.0], [3.0, 0]])
    loss = figures.MEASURES["loss"]
    heatmap = figures.pair_heatmap(["a", "b"], shown, loss, threshold=0.2).data[0]
    assert heatmap.zmax == 1.0
    assert heatmap.colorbar.ticktext == ("0", "0.2", "0.4", "0.6", "0.8", "≥ 1")
    assert figures.pair_heatmap(["a", "b"], shown, loss, threshold=0.0).data[0].zmax == 3.0


@pytest.mark.parametrize(
    ("group", "corners"),
    [
        (["c", "b"], (0.5, 2.5)),
        (["a", "b", "c", "d"], (-0.5, 3.5)),
        (["a", "c"], None),  # rows that are not adjacent
        (["a"], None),
    ],
)
def test_a_basin_is_outlined_where_its_rows_are_adjacent(
    group: list[str], corners: tuple[float, float] | None
) -> None:
    figure = figures.pair_heatmap(
        list("abcd"), matrix(), figures.MEASURES["loss"], outlined=[group]
    )
    labels = [f"{name} · B1" if name in group else name for name in "abcd"]
    assert list(figure.layout.yaxis.ticktext) == labels
    assert list(figure.layout.xaxis.ticktext) == list("abcd")
    shapes = figure.layout.shapes
    assert [(shape.x0, shape.x1) for shape in shapes] == ([corners] if corners else [])
    assert [(shape.y0, shape.y1) for shape in shapes] == ([corners] if corners else [])


@pytest.mark.parametrize("count", [0, 1, 100])
def test_any_number_of_ingredients_is_drawn(count: int) -> None:
    names = [f"run-{number}" for number in range(count)]
    values = np.full((count, count), NAN)
    joined = tree(names, values)
    figure = figures.pair_heatmap(names, values, figures.MEASURES["loss"], tree=joined)
    assert figure.layout.height <= 1100
    points = [trace for trace in figure.data if trace.name in ("empty cells", "cells")]
    assert sum(len(trace.x) for trace in points) == count * max(count - 1, 0)


def test_the_table_has_a_row_per_pair() -> None:
    table = pairs_table(["a", "b", "c"], {"loss barrier": matrix()[:3, :3]})
    assert table.to_dict("list") == {
        "first": ["a", "a", "b"],
        "second": ["b", "c", "c"],
        "loss barrier": [0.9, 0.05, 0.7],
    }
