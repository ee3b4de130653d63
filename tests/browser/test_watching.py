import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.conftest import PROJECT, Server

pytestmark = pytest.mark.integration  # it takes long

SAMPLE = PROJECT / "sample_data" / "digits" / "sweep"


def test_a_new_checkpoint_appears_once_it_is_complete_and_the_page_stays(
    page: Page, server: Server
) -> None:
    folder = server.sweeps / "growing"
    folder.mkdir()
    for name in ("run-01", "run-02"):
        (folder / f"{name}.safetensors").write_bytes((SAMPLE / f"{name}.safetensors").read_bytes())
    content = (SAMPLE / "run-03.safetensors").read_bytes()
    steps.follow(page, server.link("ingredients", folder))
    expect(page.get_by_text("0 of 2 ingredients selected")).to_be_visible()
    page.evaluate("window.stays = true")

    with (folder / "run-03.safetensors").open("wb", buffering=0) as file:
        file.write(content[:1000])
        # The page waits for a moment, until the file stops growing.
        waits = page.get_by_text("Waiting for run-03.safetensors: 1 kB so far.")
        excluded = page.get_by_text("Fit report: 1 excluded, 0 warnings")
        expect(waits.or_(excluded).first).to_be_visible()
        expect(excluded).to_be_visible()
        expect(page.get_by_role("cell", name="If it is still being written")).to_be_visible()
        expect(page.get_by_text("0 of 2 ingredients selected")).to_be_visible()
        file.write(content[1000:])
    expect(page.get_by_text("0 of 3 ingredients selected")).to_be_visible()
    expect(page.get_by_text("Waiting for")).to_have_count(0)
    (folder / "run-02.safetensors").unlink()
    expect(page.get_by_text("0 of 2 ingredients selected")).to_be_visible()
    assert page.evaluate("window.stays")  # nothing was reloaded
