from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from soupcore.maintenance import repair
from tests.browser.conftest import start_server, stop_server

pytestmark = pytest.mark.integration  # it takes long


def test_a_damaged_database_is_shown_with_the_way_out_until_it_is_repaired(
    page: Page, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "stockpot.sqlite").write_bytes(b"garbage" * 1000)
    server = start_server(tmp_path)
    try:
        page.goto(server.url)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("stockpot.sqlite is damaged")
        expect(alert).to_contain_text("python -m soupcore.maintenance repair")
        assert "Traceback" not in server.log.read_text()
        repair(workspace)
        page.reload()
        sidebar = page.get_by_test_id("stSidebar")
        sidebar.get_by_text("Workspace ·").click()
        expect(sidebar.get_by_text("damaged databases")).to_be_visible()
        expect(sidebar.get_by_text("python -m soupcore.maintenance --help")).to_be_visible()
    finally:
        stop_server(server)
