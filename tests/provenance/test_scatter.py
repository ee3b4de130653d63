from xml.etree import ElementTree

import pytest

from soupcore.provenance import scores_svg

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 - our own


def test_a_figure_has_a_mark_for_each_value() -> None:
    points = {"a": (0.8, 0.6), "b & <c>": (0.9, 0.7)}
    root = parsed(scores_svg(points, (0.92, 0.75), base=(0.7, 0.4)))
    dots = {dot.findtext(f"{SVG}title"): dot for dot in root.iter(f"{SVG}circle")}
    assert list(dots) == ["a", "b & <c>"]
    a, b = dots.values()
    assert float(a.attrib["cx"]) < float(b.attrib["cx"])
    assert float(a.attrib["cy"]) > float(b.attrib["cy"])  # down the page is down the scale
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles == ["a", "b & <c>", "base", "soup"]


@pytest.mark.parametrize(
    "points", [{}, {"a": (0.5, 0.5)}, {"a": (0.0, 1.0), "b": (0.5001, 0.5)}], ids=len
)
def test_every_tick_is_a_round_number_within_the_figure(
    points: dict[str, tuple[float, float]],
) -> None:
    root = parsed(scores_svg(points, (0.5, 0.5), axes=("x", "y")))
    numbers = [
        t for t in root.iter(f"{SVG}text") if t.text not in ("x", "y") and "★" not in str(t.text)
    ]
    assert len(numbers) >= 4
    for number in numbers:
        assert len(str(number.text)) <= 5
        assert 0 <= float(number.attrib["x"]) <= 640
        assert 0 <= float(number.attrib["y"]) <= 420
