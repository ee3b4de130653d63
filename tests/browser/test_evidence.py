import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from soupcore import rebuild
from tests.browser import steps
from tests.browser.conftest import Server

pytestmark = pytest.mark.integration  # it takes long


@pytest.fixture(scope="module")
def folder(server: Server) -> Path:
    return server.copy_of_sample("evidence")


def test_a_soup_is_held_against_the_best_ingredient_and_its_members(
    page: Page, server: Server, folder: Path, tmp_path: Path
) -> None:
    members = ["run-02", "run-05", "run-06"]
    steps.follow(page, server.link("ingredients", folder, selection=members))
    steps.evaluate_everything(page)
    steps.go_to(page, "Soups")
    steps.build(page, "Greedy")
    steps.open_built(page, "Evidence")
    expect(
        page.get_by_role("heading", name=re.compile("Soup vs. best single ingredient"))
    ).to_be_visible()
    expect(page.get_by_text("ingredients inflates its select score by")).to_be_visible()
    expect(page.get_by_role("heading", name="Gain per accepted ingredient")).to_be_visible()
    expect(page.locator(".st-key-reliability .scatterlayer .trace")).to_have_count(4)
    page.get_by_role("button", name="Compute contributions").click()
    expect(page.locator(".st-key-attribution .bars .point")).to_have_count(3)
    steps.wait_until_idle(page)
    with page.expect_download() as taken:
        page.locator(".st-key-exports-attribution").get_by_role("button", name="CSV").click()
    table = steps.save(taken.value, tmp_path)
    assert table.name == "stockpot-attribution.csv"
    assert {line.split(",")[0] for line in table.read_text().splitlines()[1:]} == {*members}
    page.get_by_role("button", name="Estimate greedy's selection bias").click()
    expect(page.get_by_text("Cross-fitted greedy")).to_be_visible()
    steps.wait_until_idle(page)
    page.get_by_role("button", name="Test 10 random orders").click()
    expect(page.get_by_text(re.compile("Greedy over 10 random orders, mean ± "))).to_be_visible()


def test_the_artifacts_of_a_soup_are_downloads(
    page: Page, server: Server, folder: Path, tmp_path: Path
) -> None:
    page.goto(server.link("download", folder))  # as in earlier versions
    steps.expect_section(page, "Download")
    base_model = page.get_by_role("textbox", name="Base model (Hugging Face ID)")
    base_model.fill("them/base")
    base_model.press("Enter")
    named: dict[str, Path] = {}

    def take(label: str) -> None:
        steps.wait_until_idle(page)
        with page.expect_download() as taken:
            page.get_by_role("button", name=label).click()
        named[label] = steps.save(taken.value, tmp_path)

    for _ in range(50):  # nothing on the page shows when the card has the new base
        take("Model card (README.md)")
        card = named["Model card (README.md)"].read_text()
        if "them/base" in card:
            break
    for label in ("Recipe (JSON)", "Card figure (SVG)", "mergekit (YAML)"):
        take(label)
    assert named["Model card (README.md)"].name == "README.md"
    assert card.startswith('---\nbase_model:\n- "them/base"\n')
    assert f"]({named['Card figure (SVG)'].name})" in card
    assert named["Card figure (SVG)"].read_text().startswith("<svg")
    assert "merge_method: linear" in named["mergekit (YAML)"].read_text()
    soup = rebuild(json.loads(named["Recipe (JSON)"].read_text()), folder)
    assert f"| report | {soup.recorded['scores']['report']['score']:.4f} |" in card
