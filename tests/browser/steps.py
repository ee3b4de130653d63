"""What a user does on the pages, so that the tests read like it."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Download, Locator, Page, expect
from playwright.sync_api import TimeoutError as NotThereError

TABLE_HEADER = 35  # pixels
TABLE_ROW = 35
_PAGES = "Overview|Ingredients|Soup|Connectivity|Plane|Geometry|Ensembles"


def open_app(page: Page, url: str) -> None:
    page.goto(urlsplit(url)._replace(path="/ingredients").geturl())
    expect(heading(page, "Ingredients")).to_be_visible()


def follow(page: Page, url: str) -> None:
    """Follow a link to a sweep, and read the sweep where the server has not read it yet."""
    page.goto(url)
    read = page.get_by_role("button", name="Read the checkpoints")
    pages = page.get_by_role("heading", name=re.compile(_PAGES), level=2)
    was_read = pages.or_(page.get_by_text("Fit report"))
    expect(read.or_(was_read).first).to_be_visible()
    if read.is_visible():
        read.click()
        expect(was_read.first).to_be_visible()


def go_to(page: Page, name: str) -> None:
    wait_until_idle(page)
    link = page.get_by_test_id("stSidebarNav").get_by_role("link", name=name)
    link.click()
    expect(heading(page, name)).to_be_visible()


def running_script(page: Page) -> Locator:
    return page.locator("[data-testid=stApp]:not([data-test-script-state=notRunning])")


def act_at_once(page: Page) -> None:
    """Let actions no longer wait until the page is drawn."""
    page.remove_locator_handler(running_script(page))


def wait_until_idle(page: Page) -> None:
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def heading(page: Page, name: str) -> Locator:
    return page.get_by_role("heading", name=name, exact=True, level=2)


def evaluate_everything(page: Page) -> None:
    button = page.get_by_role("button", name="Evaluate all ingredients")
    button.click()
    expect(button).to_have_count(0, timeout=90_000)
    wait_until_idle(page)  # what stood below is drawn twice until the figures above it are done


def click_row(page: Page, row: int) -> None:
    """Tick the box of a row of the run table."""
    wait_until_idle(page)
    table = page.get_by_test_id("stDataFrame").locator("canvas").first
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 17, box["y"] + TABLE_HEADER + TABLE_ROW * row + TABLE_ROW / 2)


def click_name(page: Page, row: int) -> None:
    """Click the name in a row of the list of soups."""
    table = page.get_by_test_id("stDataFrame").locator("visible=true").locator("canvas").first
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    assert box is not None
    x, y = box["x"] + 50, box["y"] + TABLE_HEADER + TABLE_ROW * (row + 0.5)
    page.mouse.move(x, y)  # a cell is drawn anew under the pointer before it takes clicks
    wait_until_idle(page)
    page.mouse.click(x, y)


def click_point(page: Page, figure: str, index: int) -> None:
    wait_until_idle(page)  # while the page is drawn, figures move
    page.locator(f".st-key-{figure} .scatterlayer .point").nth(index).click(force=True)


def expect_selected(page: Page, *names: str) -> None:
    query = "&".join(f"selection={name}" for name in names)
    pattern = rf"[?&]{query}(?!&selection=)(&|$)" if names else r"^((?!selection=).)*$"
    expect(page).to_have_url(re.compile(pattern))


def build(page: Page, recipe: str) -> None:
    page.get_by_role("radiogroup").get_by_text(recipe, exact=True).click()
    page.get_by_role("button", name=f"Build {recipe.lower()}").click()
    expect(page.get_by_text(re.compile(f"{recipe} soup from .* is ready"))).to_be_visible()


def open_built(page: Page, section: str) -> None:
    """Open a section of the page of the soup that was built last, from its result."""
    wait_until_idle(page)
    page.locator(".st-key-result-card").get_by_role("button", name=section, exact=True).click()
    expect_section(page, section)


def expect_section(page: Page, section: str) -> None:
    """Expect a section of the page of a soup."""
    tab = page.get_by_role("tab", name=section, exact=True)
    expect(tab).to_have_attribute("aria-selected", "true")
    wait_until_idle(page)


def pick_soup(page: Page, label: str, picker: str = "Soup") -> None:
    """Choose the newest soup whose label holds this; pages open on the best."""
    option = page.get_by_role("option", name=re.compile(label)).last
    for _ in range(20):
        wait_until_idle(page)
        page.get_by_role("combobox", name=picker, exact=True).click()
        try:
            option.click(timeout=2_000)
            break
        except NotThereError:  # a job ended, and the page that was drawn again closed the list
            page.keyboard.press("Escape")
    else:
        raise AssertionError(f"{picker!r} has no option {label!r}")
    wait_until_idle(page)


def download(page: Page, label: str) -> Download:
    """Download the weights of a soup, whose recipe has this title, from its page."""
    prepare = page.get_by_role("button", name="Create file")
    link = page.get_by_role("link", name=re.compile(f"Download {label.lower()}"))
    expect(prepare.or_(link)).to_be_visible()
    if prepare.is_visible():
        prepare.click()
    with page.expect_download() as taken:
        link.click()
    return taken.value


def save(taken: Download, folder: Path) -> Path:
    path = folder / taken.suggested_filename
    taken.save_as(path)
    return path
