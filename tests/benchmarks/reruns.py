"""How much longer does a page take while a job runs than without a job?

Times are from the click on the link of the Connectivity page until its matrix is drawn, in a real
browser on the same machine, with the bundled sample. Before each visit, another page is opened.
Both cases have the same results in the store.
"""

import re
import time
from pathlib import Path
from statistics import quantiles

from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.benchmarks.table import lines, number
from tests.browser import steps
from tests.browser.chromium import find
from tests.browser.conftest import QUIET, start_server, stop_server

RUNS = 40


def benchmark(folder: Path) -> list[str]:
    """Measure, with a workspace in the folder, and return the report."""
    server = start_server(folder)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find(), args=QUIET)
            page = browser.new_page(viewport={"width": 1440, "height": 1400})
            steps.open_app(page, server.url)
            steps.go_to(page, "Connectivity")
            page.get_by_role("combobox", name="α values per pair").click()
            page.get_by_role("option", name=re.compile("^61 ")).click()
            page.get_by_role("button", name=re.compile(r"Run \d+ evaluations")).first.click()
            cancel = page.get_by_role("button", name="Cancel")
            expect(cancel).to_be_visible()
            expect(matrix(page)).to_be_visible()
            busy = [change(page) for _ in range(RUNS)]
            cancel.click()
            expect(cancel).to_have_count(0)
            steps.wait_until_idle(page)
            idle = [change(page) for _ in range(RUNS)]
            browser.close()
    finally:
        stop_server(server)
    cells = [("", "median, ms", "95th percentile, ms", "× the first", "goal")]
    last = p95(idle)
    for name, taken, goal in (("no job", idle, ""), ("a job runs", busy, "2")):
        middle = number(1000 * quantiles(taken, n=2)[0])
        times = f"{p95(taken) / last:.2f}"
        cells.append((name, middle, number(1000 * p95(taken)), times, goal))
    return [f"Connectivity page of the sample, {RUNS} visits each", *lines(cells)]


def matrix(page: Page) -> Locator:
    return page.locator(".st-key-heatmap .js-plotly-plot").first


def change(page: Page) -> float:
    """Go to another page and back, and return the seconds that the way back took."""
    links = page.get_by_test_id("stSidebarNav").get_by_role("link")
    links.get_by_text("Ingredients").click()
    expect(steps.heading(page, "Ingredients")).to_be_visible()
    expect(matrix(page)).to_have_count(0)
    started = time.perf_counter()
    links.get_by_text("Connectivity").click()
    expect(matrix(page)).to_be_visible()
    return time.perf_counter() - started


def p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]
