"""The figure of a model card: scores of the soup and its ingredients, as plain SVG."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from soupcore.tasks import SHARE, Unit

_WIDTH, _HEIGHT = 640, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 32, 55  # margins
_TICKS = 5  # approximate number per axis

Place = tuple[float, float]


def scores_svg(
    points: Mapping[str, Place],
    soup: Place,
    *,
    base: Place | None = None,
    axes: tuple[str, str] = ("Test score (report), %", "Mean score over shifts, %"),
    unit: Unit = SHARE,
) -> str:
    """Return a figure with ingredients as dots, the base as a square and the soup as a star.

    It resembles figure 1 of Wortsman et al. 2022 (arXiv:2203.05482). The background is white, so
    that the figure is legible on any page.

    Args:
        points: `{ingredient: (score on report, mean score over shifts)}`.
        soup: Scores of the soup.
        base: Scores of the base, or None.
        axes: Titles of the axes.
        unit: Unit of the scores.
    """
    everything = [*points.values(), soup, *([base] if base else [])]
    across = _Axis([place[0] for place in everything], _LEFT, _WIDTH - _RIGHT)
    up = _Axis([place[1] for place in everything], _HEIGHT - _BOTTOM, _TOP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="13" fill="#555">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for value in across.ticks:
        x = across.at(value)
        lines.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM))
        lines.append(_text(x, _HEIGHT - _BOTTOM + 18, f"{unit.factor * value:g}"))
    for value in up.ticks:
        y = up.at(value)
        lines.append(_line(_LEFT, y, _WIDTH - _RIGHT, y))
        lines.append(_text(_LEFT - 20, y + 4, f"{unit.factor * value:g}"))
    lines.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, axes[0]))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    lines.append(_text(16, middle, axes[1], f' transform="rotate(-90 16 {middle:.1f})"'))
    for name, (x, y) in points.items():
        dot = f'cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="5" fill="#3b7dd8"'
        lines.append(f"<circle {dot}><title>{escape(name)}</title></circle>")
    if base:
        corner = f'x="{across.at(base[0]) - 5:.1f}" y="{up.at(base[1]) - 5:.1f}"'
        square = f'{corner} width="10" height="10" fill="#8a8f98"'
        lines.append(f"<rect {square}><title>base</title></rect>")
    lines.append(
        f'<path d="{_star(across.at(soup[0]), up.at(soup[1]))}" fill="#e0a100">'
        "<title>soup</title></path>"
    )
    legend = "★ soup  ● ingredients" + ("  ■ base" if base else "")
    lines.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _TOP - 12, legend))
    return "\n".join([*lines, "</svg>", ""])


class _Axis:
    """Maps scores to pixels and chooses round numbers for ticks."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 0.01
        self._low, self._high = low - margin, high + margin
        self._start, self._stop = start, stop
        rough = (self._high - self._low) / _TICKS
        power = 10.0 ** np.floor(np.log10(rough))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
        first, last = np.ceil(self._low / step), np.floor(self._high / step)
        self.ticks = [round(float(n * step), 9) for n in np.arange(first, last + 1)]

    def at(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._stop - self._start)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle"{more}>{escape(text)}</text>'


def _star(x: float, y: float) -> str:
    turns = np.arange(10) / 10 * 2 * np.pi
    radii = np.where(np.arange(10) % 2, 4.5, 11)
    corners = zip(x + radii * np.sin(turns), y - radii * np.cos(turns), strict=True)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in corners) + "Z"
