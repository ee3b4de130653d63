"""How long does each page take with 15, 72 and 200 ingredients, with all pairs evaluated?

Times are from the click on a page's link until the page has been drawn, in a real browser with an
idle server on the same machine. Pages only read results, so the goals are at most 1.5 times the
time for 15 ingredients with 72, and at most 2.5 times with 200.

The last columns have the CPU time of a page's script when it runs again, as after a click on a
widget. The goal is at most 0.3 seconds with 200 ingredients.

The ingredients, a soup, four paths from the base and the geometry are evaluated. The summaries of
the lines between all pairs, of which there are 19,900 with 200 ingredients, are drawn from those of
curves with a random rise, which replace 100,000 evaluations.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from streamlit.testing.v1 import AppTest

import soupcore
from pages.components import settings, state
from soupcore.connectivity import lines as connecting
from soupcore.connectivity.adaptive import ADAPTIVE, lobatto
from soupcore.connectivity.path import LinearPath, grid
from soupcore.connectivity.summaries import LineSummary, lines_key
from soupcore.jobs import Queue
from tests.benchmarks.made import make_sweep
from tests.benchmarks.table import lines, number
from tests.browser import steps
from tests.browser.chromium import find
from tests.browser.conftest import PROJECT, QUIET, start_server, stop_server
from tests.pages.conftest import forget_server

SIZES = (15, 72, 200)
GOALS = {72: 1.5, 200: 2.5}
VISITS = 3
CURVES = 200
PATIENCE = 120_000  # milliseconds
PAGES = {
    "Overview": "overview.py",
    "Evidence": "soup.py",  # of the soup of the verdict, by a click on the Overview page
    "Ingredients": "ingredients.py",
    "Soups": "soups.py",
    "Connectivity": "connectivity.py",
    "Compare": "compare.py",
    "Report": "report.py",
    "Paths": "from_base.py",
    "Plane": "plane.py",
    "Geometry": "geometry.py",
    "Ensembles": "soup_vs_ensemble.py",
}
TASK = """
from soupcore import ClassificationTask, Split
from tests.benchmarks.made import make_data, network

images, labels = make_data("small MLP", 900)

def split(role, start):
    return Split(role, images[start : start + 300], labels[start : start + 300])

splits = {"select": split("select", 0), "report": split("report", 300),
          "shift": split("shift", 600)}
task = ClassificationTask(lambda: network("small MLP"), splits)
"""


def benchmark(folder: Path) -> list[str]:
    """Measure, with sweeps and workspaces in the folder, and return the report."""
    drawn, scripts = {}, {}
    for size in SIZES:
        drawn[size], scripts[size] = _measure(folder / str(size), size)
    titles = [f"{size}, s" for size in SIZES]
    cells = [("", *titles, *(f"{size} ÷ 15" for size in GOALS), *(f"script {t}" for t in titles))]
    for name in PAGES:
        times = [number(drawn[size][name]) for size in SIZES]
        ratios = [f"{drawn[size][name] / drawn[15][name]:.2f}" for size in GOALS]
        cells.append((name, *times, *ratios, *(number(scripts[size][name]) for size in SIZES)))
    empty = ["" for _ in SIZES]
    cells.append(("goal", *empty, *(f"{goal}" for goal in GOALS.values()), *empty[1:], "0.3"))
    return [
        f"Seconds to draw a page and CPU seconds of its script, median of {VISITS}, by ingredients",
        *lines(cells),
    ]


def _measure(folder: Path, size: int) -> tuple[dict[str, float], dict[str, float]]:
    """Make a sweep with all pairs evaluated; return the seconds of each page and of its script."""
    sweep = folder / "sweeps" / f"made-{size}"
    make_sweep(sweep, "small MLP", size, with_base=True)
    task = folder / "task.py"
    task.write_text(TASK)
    spec = f"{task}:task"
    know_all(sweep, spec, folder / "workspace")
    arguments = [f"--root={folder / 'sweeps'}", f"--task={spec}", "--auto=0"]
    server = start_server(folder, *arguments)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find(), args=QUIET)
            page = browser.new_page(viewport={"width": 1440, "height": 1400})
            page.set_default_timeout(PATIENCE)
            expect.set_options(timeout=PATIENCE)
            steps.follow(page, f"{server.url}/?sweep={sweep}&task={spec}")
            expect(steps.heading(page, "Overview")).to_be_visible()
            drawn = _visit_all(page, soupcore.Store(folder / "workspace"), size)
            browser.close()
    finally:
        stop_server(server)
    return drawn, _run_all([str(sweep), *arguments], folder / "workspace", size)


def know_all(folder: Path, spec: str, workspace: Path) -> None:
    """Store the results that the pages show."""
    store = soupcore.Store(workspace)
    sweep = soupcore.Sweep.from_folder(folder)
    evaluator = soupcore.Evaluator(soupcore.load_task(spec), store, device="cpu")
    points = [each.mixture for each in (*sweep.ingredients.values(), sweep.base) if each]
    for split in evaluator.task.reported:
        evaluator.evaluate_all(points, split)
    soup = soupcore.greedy(sweep, evaluator).evaluate(evaluator)
    store.add_soup(soup.id, str(folder), soup.to_json() | {"task": spec, "offered": {}})
    soupcore.geometry(sweep, store)
    assert sweep.base is not None
    from_base = [(sweep.base, sweep[name]) for name in sweep.names()[:4]]
    for split in ("report", "shift"):
        connecting.evaluate_lines(from_base, evaluator, 11, split=split)
    select = evaluator.task.select
    keys = [evaluator.key(sweep[name].mixture) for name in sweep.names()]
    random = np.random.default_rng(0)
    for alphas, values in ((ADAPTIVE, lobatto(8)), (3, grid(3))):
        drawn = [LineSummary.of(_curve(values, select, random)).to_bytes() for _ in range(CURVES)]
        pairs = list(combinations(keys, 2))
        which = random.integers(len(drawn), size=len(pairs)).tolist()
        rows = {pair: (True, drawn[index]) for pair, index in zip(pairs, which, strict=True)}
        store.add_lines(lines_key(evaluator, alphas, select), rows)
    store.close()


def _curve(alphas: list[Fraction], split: str, random: np.random.Generator) -> LinearPath:
    """Return a path with a random rise in the middle, below and above the basin threshold."""
    at = np.array([float(alpha) for alpha in alphas])
    rise = random.exponential(0.05) * np.sin(np.pi * at)
    return LinearPath(at, 0.5 + rise, 0.85 - 0.2 * rise, split, 300)


def _visit_all(page: Page, store: soupcore.Store, size: int) -> dict[str, float]:
    """Return the seconds that each page takes, after a first visit whose jobs have ended."""
    for name in PAGES:
        _visit(page, name)
    queue = Queue(store)
    while queue.unfinished():
        time.sleep(0.1)
    steps.wait_until_idle(page)
    taken: dict[str, list[float]] = {name: [] for name in PAGES}
    for _ in range(VISITS):
        for name, times in taken.items():
            times.append(_visit(page, name))
    store.close()
    return _report(f"{size} ingredients, drawn", taken)


def _visit(page: Page, name: str) -> float:
    """Go to a page from another one, and return the seconds until it was drawn."""
    steps.wait_until_idle(page)
    started = time.perf_counter()
    if name == "Evidence":
        page.get_by_role("button", name=name, exact=True).click()
        steps.expect_section(page, name)
    else:
        steps.go_to(page, name)
    steps.wait_until_idle(page)
    return time.perf_counter() - started


def _run_all(arguments: list[str], workspace: Path, size: int) -> dict[str, float]:
    """Return the CPU seconds that the script of each page takes when it runs again."""
    taken = {}
    with _server(arguments, workspace) as page:
        for name, file in PAGES.items():
            page.session_state["section"] = name.lower() if name == "Evidence" else ""
            page.switch_page(file).run()
            assert not page.exception, page.exception
            shown = [each.value for each in page.header]
            assert name in (*shown, "Evidence"), shown
            taken[name] = [_cpu_seconds(page.run) for _ in range(VISITS)]
    return _report(f"{size} ingredients, script", taken)


@contextmanager
def _server(arguments: list[str], workspace: Path) -> Iterator[AppTest]:
    """Run the scripts of the pages in this process."""
    # It warns that there is no session outside a page, where results of jobs are looked up.
    logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").disabled = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOCKPOT_WORKSPACE", str(workspace))
        forget_server()
        settings.configure(arguments)
        try:
            spec = settings.current().tasks[0]
            state.descriptions().get(spec, wait_s=PATIENCE / 1000)
            main = PROJECT / "pages" / "main.py"
            yield AppTest.from_file(str(main), default_timeout=PATIENCE / 1000).run()
        finally:
            forget_server()


def _cpu_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _report(what: str, taken: dict[str, list[float]]) -> dict[str, float]:
    """Print the medians, since the whole benchmark takes minutes, and return them."""
    found = {name: median(times) for name, times in taken.items()}
    print(f"{what}: {', '.join(f'{n} {number(s)}' for n, s in found.items())}", flush=True)
    return found
