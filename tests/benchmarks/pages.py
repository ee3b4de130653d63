"""How long does each page take with 15, 72 and 200 ingredients, with all pairs evaluated?

Times are from the click on a page's link until the page has been drawn, in a real browser with an
idle server on the same machine. Pages only read results, so the goals are at most 1.5 times the
time for 15 ingredients with 72, and at most 2.5 times with 200.
"""

import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, expect, sync_playwright

import soupcore
from tests.benchmarks.made import make_sweep
from tests.benchmarks.table import lines, number
from tests.browser import steps
from tests.browser.chromium import find
from tests.browser.conftest import QUIET, start_server, stop_server

SIZES = (15, 72, 200)
GOALS = {72: 1.5, 200: 2.5}
VISITS = 3
PATIENCE = 120_000  # milliseconds
PAGES = (
    "Overview",
    "Ingredients",
    "Soups",
    "Evidence",
    "Download",
    "Report",
    "Connectivity",
    "Compare",
    "Paths",
    "Plane",
    "Geometry",
    "Ensembles",
)
TASK = """
from soupcore import ClassificationTask, Split
from tests.benchmarks.made import make_data, network

images, labels = make_data("MLP", 600)
splits = {
    "select": Split("select", images[:300], labels[:300]),
    "report": Split("report", images[300:], labels[300:]),
}
task = ClassificationTask(lambda: network("MLP"), splits)
"""


def benchmark(folder: Path) -> list[str]:
    """Measure, with sweeps and workspaces in the folder, and return the report."""
    taken = {size: visit_all(folder / str(size), size) for size in SIZES}
    cells = [("", *(f"{size}, s" for size in SIZES), *(f"{size} ÷ 15" for size in GOALS))]
    for name in PAGES:
        times = [taken[size][name] for size in SIZES]
        ratios = [f"{taken[size][name] / taken[15][name]:.2f}" for size in GOALS]
        cells.append((name, *map(number, times), *ratios))
    cells.append(("goal", *("" for _ in SIZES), *(f"{goal}" for goal in GOALS.values())))
    return [f"Seconds to draw a page, median of {VISITS} visits, by ingredients", *lines(cells)]


def visit_all(folder: Path, size: int) -> dict[str, float]:
    """Make a sweep with all pairs evaluated, and return the seconds that each page takes."""
    sweep = folder / "sweeps" / f"made-{size}"
    make_sweep(sweep, "MLP", size)
    task = folder / "task.py"
    task.write_text(TASK)
    spec = f"{task}:task"
    know_all(sweep, spec, folder / "workspace")
    arguments = (f"--root={folder / 'sweeps'}", f"--task={spec}")
    server = start_server(folder, *arguments)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find(), args=QUIET)
            page = browser.new_page(viewport={"width": 1440, "height": 1400})
            page.set_default_timeout(PATIENCE)
            expect.set_options(timeout=PATIENCE)
            steps.follow(page, f"{server.url}/?sweep={sweep}&task={spec}")
            expect(steps.heading(page, "Overview")).to_be_visible()
            found = {name: median(visit(page, name) for _ in range(VISITS)) for name in PAGES}
            browser.close()
    finally:
        stop_server(server)
    return found


def know_all(folder: Path, spec: str, workspace: Path) -> None:
    """Evaluate all ingredients, all lines and a soup, and measure the geometry."""
    store = soupcore.Store(workspace)
    sweep = soupcore.Sweep.from_folder(folder)
    evaluator = soupcore.Evaluator(soupcore.load_task(spec), store, device="cpu")
    for split in evaluator.task.reported:
        evaluator.evaluate_all([sweep[name].mixture for name in sweep.names()], split)
    soup = soupcore.greedy(sweep, evaluator).evaluate(evaluator)
    store.add_soup(soup.id, str(folder), soup.to_json() | {"task": spec, "offered": {}})
    soupcore.geometry(sweep, store)
    soupcore.barriers(sweep, evaluator)
    store.close()


def visit(page: Page, name: str) -> float:
    """Go to a page from another one, and return the seconds until it was drawn."""
    other = "Download" if name != "Download" else "Ingredients"
    steps.go_to(page, other)
    steps.wait_until_idle(page)
    started = time.perf_counter()
    steps.go_to(page, name)
    steps.wait_until_idle(page)
    return time.perf_counter() - started
