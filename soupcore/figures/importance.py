"""The marginal importance of hyperparameters."""

from collections.abc import Mapping

import plotly.graph_objects as go

from soupcore.analysis.importance import Importance
from soupcore.figures.style import NEUTRAL, finish

_ROW = 26  # pixels


def importance_bars(found: Mapping[str, Importance], *, score_name: str = "score") -> go.Figure:
    """Draw the marginal importance of hyperparameters; see `soupcore.analysis.importance`.

    Args:
        found: `{hyperparameter: importance}`, drawn from top to bottom.
        score_name: Name of the score.
    """
    names = list(found)
    figure = go.Figure(
        go.Bar(
            x=[max(each.share, 0) for each in found.values()],
            y=names,
            orientation="h",
            marker={"color": NEUTRAL},
            text=[_text(each) for each in found.values()],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="<b>%{y}</b><br>%{text}<extra></extra>",
        )
    )
    figure.update_xaxes(
        title=f"Share of the rank variance of {score_name}",
        range=[0, 1.3],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
    )
    figure.update_yaxes(type="category", autorange="reversed")
    return finish(figure, height=max(150, 80 + _ROW * len(names)))


def _text(each: Importance) -> str:
    rho = "" if each.rho is None else f" · ρ = {each.rho:+.2f}".replace("-", "−")
    return f"{max(each.share, 0):.2f}{rho} · n = {each.n}"
