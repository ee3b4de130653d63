import re

from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.conftest import Server


def test_a_soup_is_held_against_the_best_ingredient_and_its_members(
    page: Page, server: Server
) -> None:
    steps.open_app(page, server.url)
    steps.evaluate_everything(page)
    steps.go_to(page, "Evidence")
    expect(page.get_by_text("There is no soup of this sweep yet")).to_be_visible()
    steps.go_to(page, "Soups")
    steps.build(page, "Greedy")
    steps.go_to(page, "Evidence")
    expect(
        page.get_by_role("heading", name=re.compile("Against the best ingredient"))
    ).to_be_visible()
    expect(page.get_by_text("so choosing flatters by")).to_be_visible()
    expect(page.locator(".st-key-reliability .scatterlayer .trace")).to_have_count(4)
    page.get_by_role("button", name="Find out").click()
    expect(page.locator(".st-key-attribution .bars .point")).to_have_count(3)
