import re
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import steps
from tests.browser.conftest import Server


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    """The URL of a sweep of which nothing is known."""
    return server.link("ingredients", server.copy_of_sample("jobs"))


def start_all_pairs(page: Page, url: str) -> None:
    """Begin thousands of evaluations: each test cancels them and leaves enough for the next."""
    steps.follow(page, url)
    steps.go_to(page, "Connectivity")
    page.get_by_role("combobox", name="α values per pair").click()
    page.get_by_role("option", name=re.compile("^61 ")).click()
    evaluate_button(page).click()
    expect(progress(page)).to_be_visible()


def progress(page: Page) -> Locator:
    return page.get_by_test_id("stProgress")


def cancel(page: Page) -> None:
    page.get_by_role("button", name="Cancel").click()


def evaluate_button(page: Page) -> Locator:
    return page.get_by_role("button", name=re.compile(r"Run [\d,]+ evaluations")).first


def workers_of(server: Server) -> set[str]:
    """Return the process ids of a server's workers."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            command = (process / "cmdline").read_bytes()
            if b"soupcore.jobs.worker" in command and str(server.workspace).encode() in command:
                found.add(process.name)
    assert found
    return found


def points_missing(page: Page) -> int:
    found = re.search(r"[\d,]+", evaluate_button(page).inner_text())
    assert found is not None
    return int(found.group().replace(",", ""))


@pytest.mark.integration
def test_a_cancelled_job_stops_by_itself_and_keeps_what_was_computed(
    page: Page, server: Server, url: str
) -> None:
    start_all_pairs(page, url)
    before = points_missing(page)
    expect(page.get_by_text(re.compile(r"\d+ s left|\d+ min"))).to_be_visible()
    workers = workers_of(server)
    cancel(page)
    expect(progress(page)).to_have_count(0)
    assert workers_of(server) == workers  # none was killed
    expect(page.get_by_text(re.compile("pairs on select · cancelled"))).to_be_visible()
    expect(evaluate_button(page)).not_to_contain_text(f"Run {before:,} evaluations")
    kept = before - points_missing(page)
    assert kept > 0

    page.get_by_role("button", name="Resume").first.click()
    expect(progress(page)).to_be_visible()
    cancel(page)
    expect(progress(page)).to_have_count(0)
    assert before - points_missing(page) >= kept


@pytest.mark.integration
def test_no_page_change_is_lost_while_results_come_in(page: Page, url: str) -> None:
    start_all_pairs(page, url)
    steps.act_at_once(page)
    link = page.get_by_test_id("stSidebarNav").get_by_role("link")
    for name in ["Ingredients", "Connectivity"] * 10:
        link.get_by_text(name).click()
        expect(steps.heading(page, name)).to_be_visible()
    cancel(page)
    expect(progress(page)).to_have_count(0)


@pytest.mark.integration
def test_a_reload_in_the_middle_of_a_job_shows_it_still_running(page: Page, url: str) -> None:
    start_all_pairs(page, url)
    page.reload()
    expect(progress(page)).to_be_visible()
    expect(page.get_by_text(re.compile(r"[\d,]+ pairs on select")).first).to_be_visible()
    second_tab = page.context.new_page()
    second_tab.goto(url)
    expect(progress(second_tab)).to_be_visible()
    cancel(second_tab)
    expect(progress(second_tab)).to_have_count(0)
    expect(progress(page)).to_have_count(0)


@pytest.mark.integration
def test_the_page_answers_while_a_job_runs(page: Page, url: str) -> None:
    start_all_pairs(page, url)
    steps.act_at_once(page)
    steps.go_to(page, "Ingredients")
    box = page.get_by_role("textbox", name="Filter")
    box.fill("run-03")
    box.press("Enter")
    expect(page.get_by_text(re.compile(r"1 of \d+ rows match the filter"))).to_be_visible()
    steps.click_row(page, 0)
    steps.expect_selected(page, "run-03")
    expect(progress(page)).to_be_visible()
    cancel(page)
    expect(progress(page)).to_have_count(0)


@pytest.mark.integration
def test_a_dialog_keeps_what_was_typed_while_results_come_in(page: Page, url: str) -> None:
    start_all_pairs(page, url)
    page.get_by_role("button", name="Open another sweep").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Hub or S3", exact=True).click()
    urls = dialog.get_by_role("textbox", name="URLs, one per line")
    urls.fill("hf://lab/run-01")
    second_tab = page.context.new_page()
    second_tab.goto(url)
    cancel(second_tab)
    expect(progress(page)).to_have_count(0)
    expect(urls).to_have_value("hf://lab/run-01")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(evaluate_button(page)).to_be_visible()


def test_keys_open_pages_and_the_list_of_keys(page: Page, server: Server) -> None:
    steps.open_app(page, server.url)
    steps.wait_until_idle(page)
    page.wait_for_function("window.stockpotKeys")  # loaded after the page is drawn
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(steps.heading(page, "Report")).to_be_visible()
    steps.wait_until_idle(page)
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keyboard")
    expect(help_.get_by_role("cell", name="Overview")).to_be_visible()
    page.keyboard.press("Escape")
    expect(help_).to_have_count(0)
