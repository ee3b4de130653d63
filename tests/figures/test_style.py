from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from soupcore.figures.style import NEUTRAL, SOUP, colours

Floats = npt.NDArray[np.float64]

EIGHT = [*colours(map(str, range(8))).values()]

# sRGB to CIE XYZ (D65), and deuteranopia in linear RGB (Machado et al. 2009, severity 1).
XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip
WHITE = np.array([0.95047, 1, 1.08883])
DEUTERANOPIA = np.array([
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
])  # fmt: skip


def linear(colour: str) -> Floats:
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    ratios = XYZ @ rgb.clip(0, 1) / WHITE
    f = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios * 841 / 108 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("seen", [np.eye(3), DEUTERANOPIA], ids=["usual", "deuteranopia"])
def test_any_two_of_the_first_eight_colours_can_be_told_apart(seen: Floats) -> None:
    for one, other in combinations([*EIGHT, SOUP, NEUTRAL], 2):
        distance = np.linalg.norm(lab(seen @ linear(one)) - lab(seen @ linear(other)))
        assert distance >= 10, (one, other)  # CIE 1976


@pytest.mark.parametrize("background", ["#ffffff", "#0e1117"])
def test_colours_stand_out_from_the_background(background: str) -> None:
    assert min(contrast(colour, background) for colour in EIGHT) > 2.2


def test_a_colour_depends_on_the_position_only() -> None:
    many = colours(map(str, range(40)))
    assert [*many.values()][:8] == EIGHT
    assert len({*many.values()}) == 40
