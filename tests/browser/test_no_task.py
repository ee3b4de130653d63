"""A sweep opened without a task, from its folder to a downloaded soup."""

import re
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Page, expect
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.browser import steps
from tests.browser.conftest import PROJECT, start_server, stop_server
from tests.helpers import average, same_weights

SAMPLE = PROJECT / "sample_data" / "digits" / "sweep"
NAMES = ("run-01", "run-02")


def test_a_uniform_soup_is_built_and_downloaded_without_a_task(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    states: list[Mapping[str, Tensor]] = [
        load_file(SAMPLE / f"{name}.safetensors") for name in NAMES
    ]
    for name, tensors in zip(NAMES, states, strict=True):
        save_file(dict(tensors), folder / f"{name}.safetensors")
    server = start_server(tmp_path, str(folder))
    try:
        steps.open_app(page, server.url)
        expect(page.get_by_text("Evaluating ingredients needs a task")).to_be_visible()
        steps.go_to(page, "Soups")
        steps.build(page, "Uniform")
        steps.go_to(page, "Download")
        page.get_by_role("button", name="Create file").click()
        with page.expect_download() as taken:
            page.get_by_role("link", name=re.compile("^Download ")).click()
        file = steps.save(taken.value, tmp_path)
    finally:
        stop_server(server)
    assert same_weights(load_file(file), average(states))
