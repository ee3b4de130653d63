import re

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from tests.browser import steps
from tests.browser.conftest import Server
from tests.troubled import FINE, TROUBLES, make_troubled_sweep

pytestmark = pytest.mark.integration  # it takes long

HOSTILE_NAME = "![x](http:__evil.example_x.png) :red[y] $z$"


@pytest.fixture(scope="module")
def server(server: Server) -> Server:
    troubled = make_troubled_sweep(server.sweeps / "troubled")
    (troubled / f"{HOSTILE_NAME}.pt").write_bytes(b"")
    hopeless = server.sweeps / "hopeless"
    hopeless.mkdir()
    (hopeless / "empty.pt").write_bytes(b"")
    torch.save({"lora_A": torch.ones(2, 2)}, hopeless / "adapter.pt")
    return server


def open_sweep(page: Page, server: Server, name: str) -> None:
    steps.follow(page, server.link("ingredients", server.sweeps / name))


def report(page: Page) -> Locator:
    return page.get_by_test_id("stTable").get_by_role("row")


def test_every_trouble_stands_in_the_report_and_the_rest_goes_on(
    page: Page, server: Server
) -> None:
    open_sweep(page, server, "troubled")
    left_out = sum(trouble[0] for trouble in TROUBLES.values()) + 1
    looks = len(TROUBLES) + 1 - left_out
    expect(page.get_by_text(f"Fit report: {left_out} excluded, {looks} warnings")).to_be_visible()
    expect(
        page.get_by_text(re.compile(f"0 of {len(FINE) + looks - 1} ingredients selected"))
    ).to_be_visible()
    for name, (is_misfit, problem, _) in TROUBLES.items():
        row = report(page).filter(has=page.get_by_role("cell").get_by_text(name, exact=True))
        expect(row).to_have_count(1)
        expect(row).to_contain_text("excluded" if is_misfit else "warning")
        expect(row).to_contain_text(problem, ignore_case=True)
    expect(page.get_by_text("Ignored trainer files: optimizer.pt")).to_be_visible()


def test_no_text_of_the_report_is_cut_off(page: Page, server: Server) -> None:
    open_sweep(page, server, "troubled")
    expect(report(page).first).to_be_visible()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        clipped = (
            page.get_by_test_id("stTable")
            .locator("td")
            .evaluate_all(
                "cells => cells.filter(c => [c, ...c.querySelectorAll('*')]"
                ".some(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0))"
                ".map(c => c.textContent)"
            )
        )
        assert clipped == []


def test_names_of_files_are_shown_as_they_are(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_sweep(page, server, "troubled")
    expect(page.get_by_test_id("stTable").get_by_text(HOSTILE_NAME)).to_be_visible()
    assert [url for url in asked if "evil" in url] == []


def test_where_nothing_fits_the_report_says_why_of_each(page: Page, server: Server) -> None:
    open_sweep(page, server, "hopeless")
    expect(page.get_by_text("has no usable checkpoint").first).to_be_visible()
    expect(page.get_by_text("Fit report: 2 excluded, 0 warnings")).to_be_visible()
    expect(report(page).filter(has_text="Copy or download it again")).to_have_count(1)
    expect(report(page).filter(has_text="merge_and_unload")).to_have_count(1)
    expect(page.get_by_text("Open another sweep or task from the sidebar.")).to_be_visible()


def test_the_weights_to_take_are_shown_and_can_be_changed(page: Page, server: Server) -> None:
    open_sweep(page, server, "troubled")
    expect(page.get_by_text("Using EMA weights (the writing framework's default)")).to_be_visible()
    page.get_by_role("radiogroup").get_by_text("raw weights", exact=True).click()
    expect(page.get_by_text("Using raw weights (your choice)")).to_be_visible()
    expect(page).to_have_url(re.compile("weights=raw"))
    steps.evaluate_everything(page)
    page.get_by_text("Reproduce in Python").click()
    expect(page.get_by_text("weights='raw weights'")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Using raw weights (your choice)")).to_be_visible()
    expect(page.get_by_role("button", name="Evaluate all ingredients")).to_have_count(0)
    page.get_by_role("radiogroup").get_by_text("EMA weights", exact=True).click()
    expect(
        page.get_by_role("button", name="Evaluate all ingredients (7 evaluations)")
    ).to_be_visible()
