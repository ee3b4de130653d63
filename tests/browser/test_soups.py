import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from safetensors import safe_open

from soupcore import RECIPES, Evaluator, Store, Sweep, load_task, manual
from tests.browser import steps
from tests.browser.conftest import TASK, Server


@pytest.fixture(scope="module")
def folder(server: Server) -> Path:
    return server.copy_of_sample("soups")


def open_soups(page: Page, server: Server, folder: Path, *selection: str) -> None:
    steps.follow(page, server.link("soups", folder, selection=selection))
    expect(steps.heading(page, "Soups")).to_be_visible()


def test_without_a_soup_the_pages_say_what_to_do(page: Page, server: Server, folder: Path) -> None:
    steps.follow(page, server.link("evidence", folder))  # as in earlier versions
    expect(steps.heading(page, "Soup")).to_be_visible()
    expect(page.get_by_text("No soups yet")).to_be_visible()
    steps.go_to(page, "Compare")
    expect(page.get_by_text("No soups yet")).to_be_visible()
    page.get_by_role("button", name="Build a soup").click()
    expect(steps.heading(page, "Soups")).to_be_visible()


@pytest.mark.integration
def test_coefficients_by_hand_are_evaluated_as_they_settle_and_can_be_kept(
    page: Page, server: Server, folder: Path, store: Store
) -> None:
    open_soups(page, server, folder, "run-01", "run-02")
    page.get_by_role("radiogroup").get_by_text("Manual", exact=True).click()
    slider = page.get_by_role("slider", name="run-01")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowLeft")
    expect(page.get_by_text("run-01 0.333, run-02 0.667")).to_be_visible()

    sweep = Sweep.from_folder(folder)
    evaluator = Evaluator(load_task(TASK), store, device="cpu")
    soup = manual(sweep, {"run-01": 1, "run-02": 2}).evaluate(evaluator, ["select"])
    accuracy = f"{100 * soup.evaluations['select'].accuracy:.2f} %"
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(accuracy)

    page.get_by_role("button", name="Save soup").click()
    expect(page.get_by_text("Save manual soup · done")).to_be_visible()
    page.get_by_role("tab", name="All soups").click()
    steps.click_name(page, 0)
    expect(page.get_by_role("heading", name=re.compile("^Manual · "), level=2)).to_be_visible()


@pytest.mark.integration
def test_every_recipe_is_built_and_joins_the_comparison(
    page: Page, server: Server, folder: Path
) -> None:
    open_soups(page, server, folder, "run-07", "run-09")
    for recipe in RECIPES.values():
        steps.build(page, recipe.title)
        title = re.escape(recipe.title)
        result = page.locator(".st-key-result-card").get_by_role("heading")
        expect(result).to_have_text(re.compile(f"^{title} · "))
        expect(page.get_by_text("accuracy on test (report)", exact=True)).to_be_visible()
    steps.go_to(page, "Compare")
    soups = page.locator(".st-key-comparison-scatter .scatterlayer .trace").last.locator(".point")
    expect(soups.nth(len(RECIPES) - 1)).to_be_attached()


@pytest.mark.integration
def test_a_value_is_picked_from_a_curve(page: Page, server: Server, folder: Path) -> None:
    open_soups(page, server, folder, "run-07")
    page.get_by_role("radiogroup").get_by_text("WiSE-FT", exact=True).click()
    alpha = page.get_by_role("spinbutton", name="α")
    expect(alpha).to_have_value("0.50")
    page.get_by_text("Tune α").click()
    page.get_by_role("button", name="Sweep 11 values").click()
    expect(page.get_by_text(re.compile("Best on select: α = "))).to_be_visible()
    promised = page.get_by_text(re.compile("Picking the best of 11 values of α inflates"))
    expect(promised).to_be_visible()
    points = page.locator(".st-key-curve-wise_ft-alpha .scatterlayer .trace").first.locator(
        ".point"
    )
    expect(points).to_have_count(11)
    steps.wait_until_idle(page)
    points.nth(8).click(force=True)
    expect(alpha).to_have_value("0.80")
    steps.build(page, "WiSE-FT")
    expect(page.get_by_text("WiSE-FT · 1 of 15").first).to_be_visible()

    steps.open_built(page, "Evidence")
    expect(promised).to_be_visible()
    best = re.compile(r"Only \d of 15 ingredients have been evaluated on select")
    expect(page.get_by_text(best)).to_be_visible()
    assert "Session State API" not in server.log.read_text()


@pytest.mark.integration
def test_a_learned_soup_that_is_stopped_is_kept_and_evaluated_later(
    page: Page, server: Server, folder: Path
) -> None:
    steps.follow(page, server.link("soups", folder, task=server.slow_task))
    choices = page.get_by_role("radiogroup")
    choices.get_by_text("Learned", exact=True).click()
    # The form of another recipe, which is shown until then, has more parameters too.
    page.locator(".st-key-rare-learned").get_by_text("More parameters").click()
    for choice in ("tensor", "AdamW"):
        choices.get_by_text(choice, exact=True).click()
    for label, value in (("Max passes", "100"), ("Held-out fraction", "0")):
        field = page.get_by_role("spinbutton", name=label)
        field.fill(value)
        field.press("Enter")
        steps.wait_until_idle(page)
    page.get_by_role("button", name="Build learned").click()
    expect(page.locator(".st-key-growing-curve .scatterlayer .trace").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled. The best soup so far was saved.")).to_be_visible()
    steps.wait_until_idle(page)

    # It is what both pages show, and both offer the rest.
    steps.go_to(page, "Compare")
    steps.pick_soup(page, "Learned", "Show the ensemble for")
    page.get_by_role("button", name=re.compile("Evaluate Learned .* on 6 splits")).click()
    expect(page.get_by_text(re.compile("Evaluate Learned .* · done"))).to_be_visible()
    steps.go_to(page, "Soups")
    # The form is as it was left, and the result is below it.
    expect(page.get_by_role("spinbutton", name="Max passes")).to_have_value("100")
    expect(page.get_by_text("accuracy on test (report)", exact=True)).to_be_visible()


@pytest.mark.integration
def test_a_soup_is_an_ingredient_of_the_next_one(
    page: Page, server: Server, folder: Path, tmp_path: Path
) -> None:
    open_soups(page, server, folder, "run-03", "run-04")
    steps.build(page, "Uniform")
    rename(page, "first")
    page.get_by_role("combobox", name="Include existing soups").click()
    page.get_by_role("option", name="first").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Build uniform soup from 3 ingredients").click()
    used = re.compile(r"^= run-03 × 1/3, run-04 × 1/3, (uniform [0-9a-f]{4}) × 1/3$")
    made = page.get_by_text(used)
    expect(made).to_be_visible()
    told = used.match(made.inner_text())
    assert told is not None
    expect(page.get_by_text("accuracy on test (report)", exact=True)).to_be_visible()
    rename(page, "second")

    steps.go_to(page, "Compare")
    steps.pick_soup(page, "second", "Show the ensemble for")
    cells = page.get_by_test_id("stDataFrame").locator("td")
    for name in ("first", "second", "ensemble of second's 3 ingredients"):
        expect(cells.get_by_text(name, exact=True).first).to_be_attached()
    steps.go_to(page, "Connectivity")
    page.get_by_role("combobox", name="To").fill("second")
    page.get_by_role("option", name="second").click()
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("base → second")).to_be_visible()
    expect(page).to_have_url(re.compile(r"pair=base&pair=uniform\+[0-9a-f]{4}"))
    steps.go_to(page, "Soups")
    steps.open_built(page, "Download")
    page.get_by_role("button", name="Create file").click()
    with page.expect_download() as taken:
        page.get_by_role("link", name=re.compile("Download uniform-")).click()
    expect(page.get_by_role("button", name="Model card")).to_be_visible()
    expect(page.get_by_text("mergekit cannot express this soup")).to_be_visible()
    with safe_open(steps.save(taken.value, tmp_path), framework="pt") as file:
        assert told[1] in json.loads(file.metadata()["stockpot"])["coefficients"]


@pytest.mark.integration
def test_a_soup_is_compared_deleted_and_restored(page: Page, server: Server, folder: Path) -> None:
    open_soups(page, server, folder, "run-03", "run-04", "run-05")
    steps.build(page, "Greedy")  # which evaluates the ingredients
    rename(page, "ours")
    page.locator(".st-key-result-card").get_by_role("button", name="Compare", exact=True).click()
    expect(steps.heading(page, "Compare")).to_be_visible()
    expect(page.locator(".st-key-differences .scatterlayer .trace").first).to_be_attached()
    for title in ("Coefficients", "Examples that differ"):
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile(r"\d+ better with ours"))).to_be_visible()
    expect(page.get_by_test_id("stImage").first).to_be_visible()

    page.locator(".stMain").get_by_role("button", name="ours", exact=True).first.click()
    expect(steps.heading(page, "ours")).to_be_visible()
    page.get_by_role("button", name="Delete", exact=True).click()
    undo = page.get_by_role("button", name="Undo", exact=True)
    expect(undo).to_be_visible()
    steps.wait_until_idle(page)
    undo.click()
    expect(undo).to_have_count(0)
    steps.wait_until_idle(page)
    rows = page.get_by_test_id("stDataFrame").locator("td")
    expect(rows.get_by_text("ours", exact=True).first).to_be_attached()


def rename(page: Page, name: str) -> None:
    """Name the soup that was just built."""
    steps.wait_until_idle(page)
    field = page.get_by_role("textbox", name="Name")
    field.fill(name)
    field.press("Enter")
    result = page.locator(".st-key-result-card").get_by_role("heading")
    expect(result).to_have_text(re.compile(f"^{name}( |$)"))
    steps.wait_until_idle(page)
