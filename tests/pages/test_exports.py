"""Exports of figures: titles with splits and n, HTML that stands alone, and the script."""

import pandas as pd
import plotly.graph_objects as go
import pytest

from pages.components import exports
from pages.components.state import View
from soupcore import figures


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (("val",), "validation (val), n = 48"),
        (("select", "report"), "validation (val), n = 48 · test, n = 48"),
    ],
)
def test_splits_are_named_with_their_numbers_of_examples(
    view: View, chosen: tuple[str, ...], text: str
) -> None:
    n = {name: len(view.task.split(name)) for name in ("val", "test")}
    text = text.replace("(val), n = 48", f"(val), n = {n['val']}")
    assert exports.sizes(view.task, *chosen) == text.replace(
        "test, n = 48", f"test, n = {n['test']}"
    )


def test_html_is_titled_on_white_and_its_names_are_text() -> None:
    figure = figures.accuracy_overview(
        pd.DataFrame({"score": [0.5], "low": [0.4], "high": [0.6]}, index=["a"]), {"a": "#123456"}
    )
    html = exports._html(figure, "Scores of <b>x</b>", "test, n = 9")
    assert "Scores of &lt;b>x" in html.replace("\\u003c", "<").replace("\\u003e", ">")
    assert "test, n = 9" in html
    assert "<script src=" not in html  # it stands alone
    assert not figure.layout.title.text  # the page has the title above the figure


def test_the_title_of_images_is_kept_beside_the_figure() -> None:
    figure = go.Figure()
    exports.title(figure, "basin-map", "", "n = 3")
    assert figure.layout.meta["title"]["text"] == "Basin map"
    assert figure.layout.meta["title"]["subtitle"]["text"] == "n = 3"
    assert figure.layout.title.text is None


def test_the_script_is_safe_within_a_page() -> None:
    assert "<" not in exports.SCRIPT.removeprefix("<script>").removesuffix("</script>")
