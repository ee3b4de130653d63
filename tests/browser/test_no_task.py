"""A sweep opened without a task, from its folder to a downloaded soup."""

import re
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Page, expect
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.browser import steps
from tests.browser.conftest import PROJECT, Server
from tests.helpers import average, same_weights

SAMPLE = PROJECT / "sample_data" / "digits" / "sweep"
NAMES = ("run-11", "run-12")


def test_a_uniform_soup_is_built_and_downloaded_without_a_task(
    page: Page, server: Server, tmp_path: Path
) -> None:
    folder = server.sweeps / "no task"
    folder.mkdir()
    states: list[Mapping[str, Tensor]] = [
        load_file(SAMPLE / f"{name}.safetensors") for name in NAMES
    ]
    for name, tensors in zip(NAMES, states, strict=True):
        save_file(dict(tensors), folder / f"{name}.safetensors")
    steps.follow(page, server.link("ingredients", folder, task="none"))
    expect(page.get_by_text("Evaluating ingredients needs a task")).to_be_visible()
    steps.go_to(page, "Soups")
    steps.build(page, "Uniform")
    steps.open_built(page, "Download")
    page.get_by_role("button", name="Create file").click()
    with page.expect_download() as taken:
        page.get_by_role("link", name=re.compile("^Download ")).click()
    file = steps.save(taken.value, tmp_path)
    assert same_weights(load_file(file), average(states))
