"""Loss and score along lines in weight space, and scores along paths from the base (WiSE-FT)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from soupcore.connectivity import LinearPath
from soupcore.connectivity.path import Pair
from soupcore.figures.style import NEUTRAL, colours, finish
from soupcore.tasks import SHARE, Unit

_ACROSS = 2  # splits side by side
_PANEL = 240  # height in pixels


def path_curves(
    paths: Mapping[Pair, Sequence[LinearPath]],
    *,
    loss_name: str = "loss",
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Plot loss and score along the lines between pairs, one panel of each per split.

    Markers are the evaluated α values. The dashed line is the chord, the linear interpolation of
    the endpoints. A loss curve is a spline through its points, and a vertical line between curve
    and chord marks its barrier.

    Args:
        paths: `{(a, b): [path]}` with one path per split. `a` is at α = 0, `b` at α = 1.
        loss_name: Name of the loss.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    splits = list(dict.fromkeys(path.split for many in paths.values() for path in many))
    across = min(len(splits), _ACROSS)
    bands = -(-len(splits) // _ACROSS)  # each band is a row of losses and a row of scores
    titles = [""] * (2 * bands * across)
    for number, split in enumerate(splits):
        titles[number // across * 2 * across + number % across] = split if len(splits) > 1 else ""
    figure = make_subplots(
        rows=2 * bands, cols=across, shared_xaxes="all", subplot_titles=titles,
        vertical_spacing=0.09 / bands, horizontal_spacing=0.09,
    )  # fmt: skip
    inks = colours(f"{a} → {b}" for a, b in paths)
    for (a, b), many in paths.items():
        for path in many:
            number = splits.index(path.split)
            place = {"row": number // across * 2 + 1, "col": number % across + 1}
            legend = {"legendgroup": f"{a} → {b}", "showlegend": number == 0}
            _loss(figure, (a, b), path, inks[f"{a} → {b}"], place, legend, loss_name)
            _score(figure, (a, b), path, inks[f"{a} → {b}"], place, score_name, score_unit)
    for number in range(len(splits)):
        place = {"row": number // across * 2 + 1, "col": number % across + 1}
        below = place | {"row": place["row"] + 1}
        if number % across == 0:
            figure.update_yaxes(title=loss_name, **place)
            figure.update_yaxes(title=score_unit.label(score_name), **below)
        figure.update_xaxes(title="α (0 = first, 1 = second)", showticklabels=True, **below)
    finished = finish(figure, height=80 + 2 * _PANEL * bands)
    return finished.update_layout(legend={"y": 1.04 if len(splits) > 1 else 1.02})


def from_base(
    paths: Mapping[str, pd.DataFrame],
    colours: Mapping[str, str],
    *,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Plot paths from the base by the score on `report` and the mean score over shift splits.

    This is the figure of WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903). A curve that bulges to
    the upper right passes through mixtures that beat both endpoints on both axes.

    Args:
        paths: `{name: table}` with the columns `alpha`, `report` and `shift` and one row per α,
            from 0 (the base) to 1.
        colours: Colour of each ingredient; other names are drawn in grey.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    figure = go.Figure()
    for name, table in paths.items():
        ink = colours.get(name, NEUTRAL)
        figure.add_scatter(
            x=table["report"] * score_unit.factor,
            y=table["shift"] * score_unit.factor,
            name=name,
            mode="lines+markers",
            line={"color": ink, "width": 2},
            marker={"size": np.where(table["alpha"] == 1, 11, 6), "color": ink},
            customdata=table["alpha"],
            meta=[name],
            hovertemplate="%{meta[0]}, α = %{customdata:.2f}<br>"
            f"test {score_unit.hover('x')}<br>mean shift {score_unit.hover('y')}<extra></extra>",
        )
    if paths:
        table = next(iter(paths.values()))
        base = table[table["alpha"] == 0]
        figure.add_scatter(
            x=base["report"] * score_unit.factor,
            y=base["shift"] * score_unit.factor,
            name="base",
            mode="markers",
            marker={"size": 12, "symbol": "square", "color": NEUTRAL},
            hovertemplate=f"<b>base</b><br>test {score_unit.hover('x')}<br>"
            f"mean shift {score_unit.hover('y')}<extra></extra>",
        )
    figure.update_xaxes(title=score_unit.label(f"Test {score_name}"))
    figure.update_yaxes(title=score_unit.label(f"Mean {score_name} over shifts"))
    return finish(figure, height=560)


def _loss(
    figure: go.Figure, pair: Pair, path: LinearPath, ink: str,
    place: Mapping[str, int], legend: Mapping[str, object], loss_name: str,
) -> None:  # fmt: skip
    label = " → ".join(pair)
    alphas, losses = path.interpolated()
    hidden = {"showlegend": False, "hoverinfo": "skip", "legendgroup": label, **place}
    figure.add_scatter(
        x=path.alphas, y=path.losses, name=f"{label} · barrier {_barrier(path)}",
        mode="markers", marker={"color": ink, "size": 6}, cliponaxis=False,
        meta=[label, loss_name],
        hovertemplate="%{meta[0]}<br>α = %{x:.3f}<br>%{meta[1]} %{y:.4f}<extra></extra>",
        **legend, **place,
    )  # fmt: skip
    figure.add_scatter(x=alphas, y=losses, mode="lines", line={"color": ink, "width": 2}, **hidden)
    for beyond in (path.alphas <= 0, path.alphas >= 1):
        if beyond.sum() > 1:
            figure.add_scatter(
                x=path.alphas[beyond], y=path.losses[beyond], mode="lines",
                line={"color": ink, "width": 2, "dash": "dot"}, **hidden,
            )  # fmt: skip
    figure.add_scatter(
        x=[0, 1], y=[path.losses[path.alphas == 0][0], path.losses[path.alphas == 1][0]],
        mode="lines", line={"color": NEUTRAL, "width": 1, "dash": "dash"}, **hidden,
    )  # fmt: skip
    if path.barrier > 0:
        index = int(np.flatnonzero(path.alphas == path.barrier_alpha)[0])
        figure.add_scatter(
            x=[path.barrier_alpha] * 2, y=[path.chord[index], path.losses[index]],
            mode="lines", line={"color": NEUTRAL, "width": 2}, **hidden,
        )  # fmt: skip


def _score(
    figure: go.Figure, pair: Pair, path: LinearPath, ink: str,
    place: Mapping[str, int], score_name: str, score_unit: Unit,
) -> None:  # fmt: skip
    label = " → ".join(pair)
    row = {"row": place["row"] + 1, "col": place["col"]}
    at_ends = np.isin(path.alphas, [0, 1])
    figure.add_scatter(
        x=path.alphas[at_ends], y=path.scores[at_ends] * score_unit.factor, mode="lines",
        line={"color": NEUTRAL, "width": 1, "dash": "dash"}, showlegend=False, hoverinfo="skip",
        legendgroup=label, **row,
    )  # fmt: skip
    figure.add_scatter(
        x=path.alphas, y=path.scores * score_unit.factor, **row,
        legendgroup=label, showlegend=False, mode="lines+markers",
        line={"color": ink, "width": 2}, marker={"size": 6},
        meta=[label, score_name],
        hovertemplate="%{meta[0]}<br>α = %{x:.3f}<br>%{meta[1]} "
        f"{score_unit.hover('y')}<extra></extra>",
    )  # fmt: skip


def _barrier(path: LinearPath) -> str:
    low, high = path.barrier_bracket
    if not np.isfinite(high):
        return f"≥ {low:.3f}"
    return f"{low:.3f}" if high - low < 0.0005 else f"{low:.3f}–{high:.3f}"
