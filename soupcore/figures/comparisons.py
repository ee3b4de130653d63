"""Two-model soups of pairs, against angles, ensembles and theory; grids of hyperparameters."""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from soupcore.analysis import Grid
from soupcore.figures.axes import clip_outliers, log_ticks
from soupcore.figures.style import NEUTRAL, cell_numbers, finish, scatter, space_before
from soupcore.tasks import SHARE, Unit

_TICKS = 6  # distinct values that are all ticks
_HEIGHT = 460  # pixels
_WIDTH = 560  # pixels, about
_MARKER = 9.0  # pixels
_MANY = 500  # points
_PAIR = "<b>%{customdata[0]} + %{customdata[1]}</b><br>"


def angle_scatter(
    table: pd.DataFrame,
    *,
    colour: str = "",
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Plot the gain of two-model soups against the angle between the task vectors.

    As in figure 3 of Model Soups (arXiv:2203.05482), the gain is the score of the soup minus the
    mean score of the two endpoints.

    Args:
        table: One row per pair. Columns: `first`, `second`, `angle` in degrees, `advantage`, and
            `colour` if `colour` is given.
        colour: Name of the quantity shown by colour.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    figure = _scatter(
        table, table["angle"], table["advantage"] * score_unit.scale, colour,
        f"{_PAIR}%{{x:.1f}}°<br>{score_unit.difference_hover('y')}",
    )  # fmt: skip
    figure.add_hline(0, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="Angle between task vectors, °")
    figure.update_yaxes(
        title=score_unit.difference_label(f"Midpoint {score_name} − mean of endpoints")
    )
    clip_outliers(figure, better={"y": 1})
    return finish(figure, height=_HEIGHT)


def soup_ensemble_scatter(
    table: pd.DataFrame,
    *,
    colour: str = "",
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Plot the score of two-model soups against that of two-model ensembles.

    This is figure 4 of Model Soups (arXiv:2203.05482).

    Args:
        table: One row per pair. Columns: `first`, `second`, `ensemble`, `soup`, and `colour` if
            `colour` is given.
        colour: Name of the quantity shown by colour.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    figure = _scatter(
        table, table["ensemble"] * score_unit.factor, table["soup"] * score_unit.factor, colour,
        f"{_PAIR}ensemble {score_unit.hover('x')}<br>soup {score_unit.hover('y')}",
    )  # fmt: skip
    figure.update_xaxes(title=score_unit.label(f"Two-model ensemble {score_name}"))
    figure.update_yaxes(title=score_unit.label(f"Two-model soup {score_name}"))
    clip_outliers(figure, better={"x": score_unit.sign, "y": score_unit.sign})
    _diagonal(figure)
    return finish(figure, height=_HEIGHT)


def theory_scatter(table: pd.DataFrame, *, colour: str = "") -> go.Figure:
    """Plot the measured loss gap between soup and ensemble against the predicted gap.

    The prediction is equation 1 of Model Soups (arXiv:2203.05482, section 4).

    Args:
        table: One row per pair. Columns: `first`, `second`, `predicted` and `gap` in nats, and
            `colour` if `colour` is given.
        colour: Name of the quantity shown by colour.
    """
    figure = _scatter(
        table, table["predicted"], table["gap"], colour,
        f"{_PAIR}predicted %{{x:+.4f}}<br>measured %{{y:+.4f}}",
    )  # fmt: skip
    figure.update_xaxes(title="Predicted L(soup) − L(ensemble), nats")
    figure.update_yaxes(title="Measured L(soup) − L(ensemble), nats")
    clip_outliers(figure)
    _diagonal(figure)
    return finish(figure, height=_HEIGHT)


def grid_heatmap(
    grid: Grid,
    *,
    title: str,
    unit: str = "",
    decimals: int | None = 2,
    diverges: bool = False,
) -> go.Figure:
    """Draw the mean of a quantity over a grid of two hyperparameters.

    A cell stays empty if no ingredient or pair has its combination of values.

    Args:
        grid: Means and counts.
        title: Name of the quantity.
        unit: Suffix of each number.
        decimals: Decimals per number in a cell; None for three significant digits.
        diverges: Whether the colour scale is centred on 0.
    """
    known = grid.means[np.isfinite(grid.means)]
    far = max(np.abs(known).max(initial=0), 1e-9)
    heatmap = go.Heatmap(
        z=grid.means,
        x=[str(value) for value in grid.columns],
        y=[str(value) for value in grid.rows],
        customdata=grid.counts,
        colorscale="RdBu" if diverges else "Viridis",
        zmin=-far if diverges else None,
        zmax=far if diverges else None,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": title, "side": "right"}, "thickness": 12},
        meta=[grid.column_name, grid.row_name, unit.strip()],
        hovertemplate="%{meta[0]} %{x}<br>%{meta[1]} %{y}<br>"
        f"%{{z:{'.4g' if decimals is None else f'.{decimals + 1}f'}}}"
        f"{space_before(unit)}%{{meta[2]}}, mean of %{{customdata}}<extra></extra>",
    )
    figure = go.Figure([heatmap, cell_numbers(heatmap, decimals, size=11)])
    figure.update_xaxes(title=grid.column_name, type="category", showgrid=False)
    figure.update_yaxes(title=grid.row_name, type="category", showgrid=False)
    return finish(figure, height=max(320, 140 + 44 * len(grid.rows)))


def colour_scale(values: "pd.Series[float]", title: str) -> dict[str, object]:
    """Return a marker with values as colours; on a log scale if they span a decade.

    Args:
        values: The values of the points.
        title: Title of the colour bar.
    """
    bar: dict[str, object] = {"title": {"text": title, "side": "right"}, "thickness": 12}
    known = values.dropna()
    known = known[np.isfinite(known)]
    if len(known) and known.min() > 0 and known.max() > 10 * known.min():
        # Values such as learning rates span orders of magnitude.
        values = values.map(math.log10)
        ticks = sorted(known.unique())
        if len(ticks) > _TICKS:
            ticks = log_ticks(known.min(), known.max())
        bar |= {
            "tickvals": [math.log10(tick) for tick in ticks],
            "ticktext": [f"{tick:g}" for tick in ticks],
        }
    elif known.nunique() == 1:  # plotly would invent a range around a single value
        bar |= {"tickvals": [known.iloc[0]], "ticktext": [f"{known.iloc[0]:g}"]}
    return {"color": values, "colorscale": "Viridis", "showscale": True, "colorbar": bar}


def _scatter(
    table: pd.DataFrame, x: "pd.Series[float]", y: "pd.Series[float]", colour: str, hover: str
) -> go.Figure:
    drawn, hidden = _one_per_place(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    x, y, table = x.iloc[drawn], y.iloc[drawn], table.iloc[drawn]
    coloured = colour != "" and "colour" in table
    shown = table[["first", "second"]].assign(
        more=[f"<br>and {count:,} more pairs here" if count else "" for count in hidden],
        **({"colour": table["colour"]} if coloured else {}),
    )
    return go.Figure(
        scatter(
            x=x,
            y=y,
            mode="markers",
            customdata=shown.to_numpy(),
            marker={"size": _MARKER, "opacity": 0.85, "line": {"width": 0.5, "color": NEUTRAL}}
            | (colour_scale(table["colour"], colour) if coloured else {"color": NEUTRAL}),
            meta=[colour],
            hovertemplate=hover
            + ("<br>%{meta[0]} %{customdata[3]}" if coloured else "")
            + "%{customdata[2]}<extra></extra>",
            showlegend=False,
        )
    )


def _one_per_place(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the points to draw, and how many each of them hides.

    A browser takes 10 s for the 19,900 pairs of 200 ingredients. Of more than `_MANY` points, only
    the first in each square is drawn. The squares are as large as a marker, and grow until few
    enough remain.
    """
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    squares, count = np.arange(len(finite)), len(finite)  # the square of each point, as a number
    if count > _MANY:
        places = np.empty(count, dtype=np.complex128)  # both coordinates as one value
        x, y = x[finite], y[finite]
        # Outliers are drawn at the edge.
        across, up = (np.subtract(*np.quantile(values, [0.995, 0.005])) for values in (x, y))
    side = _MARKER
    while count > _MANY:
        places.real = np.floor(x / (across * side / _WIDTH or side))
        places.imag = np.floor(y / (up * side / _HEIGHT or side))
        squares, distinct = pd.factorize(places)  # numbered in the order of their first points
        count = len(distinct)
        side *= 1.25
    first = np.unique(squares, return_index=True)[1]
    return finite[first], np.bincount(squares, minlength=count) - 1


def _diagonal(figure: go.Figure) -> None:
    points = figure.data[0]
    low = min(min(points.x, default=0), min(points.y, default=0))
    high = max(max(points.x, default=1), max(points.y, default=1))
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", name="y = x", hoverinfo="skip",
        line={"color": NEUTRAL, "width": 1, "dash": "dash"},
    )  # fmt: skip
