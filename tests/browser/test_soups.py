import re

from playwright.sync_api import Page, expect

from soupcore import Evaluator, Store, Sweep, load_task, manual
from tests.browser import steps
from tests.browser.conftest import PROJECT, Server

SAMPLE = PROJECT / "sample_data" / "digits"


def test_without_a_soup_the_pages_say_what_to_do(page: Page, server: Server) -> None:
    steps.open_app(page, server.url)
    steps.go_to(page, "Download")
    expect(page.get_by_text("There is no soup of this sweep yet")).to_be_visible()
    steps.go_to(page, "Soups")
    page.get_by_role("tab", name="Compare").click()
    expect(page.get_by_text("No soup of this sweep yet")).to_be_visible()


def test_coefficients_by_hand_are_evaluated_as_they_settle_and_can_be_kept(
    page: Page, server: Server, store: Store
) -> None:
    page.goto(f"{server.url}/soups?selection=run-01&selection=run-02")
    expect(steps.heading(page, "Soups")).to_be_visible()
    page.get_by_role("radiogroup").get_by_text("By hand", exact=True).click()
    slider = page.get_by_role("slider", name="run-01")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowLeft")
    expect(page.get_by_text("run-01 0.333, run-02 0.667")).to_be_visible()
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(re.compile(r"\d+\.\d\d%"))
    shown = page.get_by_test_id("stMetricValue").first.inner_text()

    sweep = Sweep.from_folder(SAMPLE / "sweep")
    evaluator = Evaluator(load_task(f"{SAMPLE / 'task.py'}:task"), store, device="cpu")
    soup = manual(sweep, {"run-01": 1, "run-02": 2}).evaluate(evaluator, ["select"])
    assert shown == f"{soup.evaluations['select'].accuracy:.2%}"

    page.get_by_role("button", name="Keep this soup").click()
    expect(page.get_by_text("Keep a soup made by hand · done")).to_be_visible()
    steps.go_to(page, "Download")
    expect(page.get_by_role("combobox", name="Soup", exact=True)).to_have_value(
        re.compile("manual")
    )
