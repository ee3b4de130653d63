"""No page has a serious problem of accessibility, as axe-core finds them, in either theme."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

import soupcore
from tests.browser import steps
from tests.browser.conftest import SAMPLE, TASK, Server, start_server, stop_server

pytestmark = pytest.mark.integration  # it takes long

PAGES = {
    "": "Overview",
    "ingredients": "Ingredients",
    "soups": "Soups",
    "soups?tab=all": "Soups",
    "connectivity": "Connectivity",
    "compare": "Compare",
    "report": "Report",
    "from_base": "Paths",
    "plane": "Plane",
    "geometry": "Geometry",
    "soup_vs_ensemble": "Ensembles",
    "all_sweeps": "Sweeps",
    # Their heading is the name of the soup.
    "soup": "",
    "soup?section=evidence": "",
    "soup?section=download": "",
}
STREAMLITS_OWN = {
    "list",  # the navigation nests lists without items
    "listitem",
    "scrollable-region-focusable",  # a code block that is too wide cannot be focused
}

_CODE = '<span class="token'  # Streamlit colours code, with too little contrast


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose pages have something to show."""
    folder = tmp_path_factory.mktemp("server")
    store = soupcore.Store(folder / "workspace")
    sweep = soupcore.Sweep.from_folder(SAMPLE / "sweep")
    evaluator = soupcore.Evaluator(soupcore.load_task(TASK), store, device="cpu")
    points = [each.mixture for each in (*sweep.ingredients.values(), sweep.base) if each]
    for split in evaluator.task.reported:
        evaluator.evaluate_all(points, split)
    for soup in (soupcore.uniform(sweep), soupcore.greedy(sweep, evaluator)):
        body = soup.evaluate(evaluator).to_json() | {"task": TASK, "offered": {}}
        store.add_soup(soup.id, str(SAMPLE / "sweep"), body)
    soupcore.barriers(sweep, evaluator, names=sweep.names()[:4])
    soupcore.geometry(sweep, store)
    store.close()
    server = start_server(folder)
    yield server
    stop_server(server)


@pytest.fixture(params=["light", "dark"])
def themed(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1440, "height": 1400},
        color_scheme=request.param,
        reduced_motion="reduce",
    )
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def test_axe_finds_nothing_serious(themed: Page, server: Server) -> None:
    axe, found = Axe(), []
    for path, title in PAGES.items():
        themed.goto(f"{server.url}/{path}")
        heading = steps.heading(themed, title) if title else themed.get_by_role("heading", level=2)
        heading.first.wait_for()
        steps.wait_until_idle(themed)
        # What a run replaced fades out, with less contrast.
        themed.wait_for_function("() => !document.querySelector('[data-stale=true]')")
        for problem in axe.run(themed).response["violations"]:
            if problem["impact"] in ("serious", "critical") and problem["id"] not in STREAMLITS_OWN:
                nodes = [node["html"] for node in problem["nodes"]]
                found += [(path, problem["id"], n) for n in nodes if not n.startswith(_CODE)]
    assert found == []
