"""Filters and brushes of parallel coordinates are in the URL and survive a reload."""

import json
import re
from contextlib import suppress
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as NotThereError

from tests.browser import steps
from tests.browser.conftest import PROJECT, Server

SWEEP = PROJECT / "sample_data" / "digits" / "sweep" / "sweep.jsonl"
COLUMN = "learning_rate"


@pytest.mark.integration
def test_a_brush_filters_and_selects_through_the_url(page: Page, server: Server) -> None:
    rows = [json.loads(line) for line in SWEEP.read_text().splitlines()]
    rates = {row["checkpoint"].removesuffix(".safetensors"): row[COLUMN] for row in rows}
    page.goto(f"{server.url}/ingredients?{urlencode({'filter': 'run'})}")
    figure = page.locator(".st-key-parallel")
    expect(figure.locator(".scatterlayer .point").first).to_be_attached()
    brush(page, figure)
    query = parse_qs(urlsplit(page.url).query)
    found = re.fullmatch(f"run and {COLUMN} >= (.+)", query["filter"][0])
    assert found is not None, query["filter"]
    passing = {name for name, rate in rates.items() if rate >= float(found[1])}
    assert 0 < len(passing) < len(rates)
    assert {*query["selection"]} == passing
    page.reload()
    expect(page.get_by_placeholder("Filter:")).to_have_value(query["filter"][0])
    expect(figure.locator(".shapelayer path[style*='fill-opacity: 0.25']")).to_have_count(1)
    expect(page.get_by_text(f"{len(passing)} of {len(rates)} ingredients selected")).to_be_visible()
    page.get_by_role("button", name="Clear brushes").click()
    expect(page.get_by_placeholder("Filter:")).to_have_value("run")
    expect(page).not_to_have_url(re.compile("selection="))


def brush(page: Page, figure: Locator) -> None:
    """Drag from above an axis to its middle; again if the page moved meanwhile."""
    for _ in range(10):
        steps.wait_until_idle(page)
        plot = figure.locator(".nsewdrag").first
        plot.scroll_into_view_if_needed()
        box, label = plot.bounding_box(), figure.get_by_text(COLUMN).bounding_box()
        assert box is not None
        assert label is not None
        axis = label["x"] + label["width"] / 2
        page.mouse.move(axis - 30, box["y"] + 2)
        page.mouse.down()
        page.mouse.move(axis + 30, box["y"] + box["height"] / 2, steps=8)
        page.mouse.up()
        with suppress(NotThereError):
            page.wait_for_url(re.compile("selection="), timeout=10_000)
            return
    raise AssertionError("The brush does not select.")
