"""The forms in which a soup's weights are taken home, from a sweep of files of training runs."""

import json
import re
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Locator, Page, expect
from safetensors.torch import load_file

from soupcore import open_checkpoint
from tests.browser import steps
from tests.browser.conftest import SAMPLE, TASK, Server
from tests.helpers import State, average, same_weights

pytestmark = pytest.mark.integration  # it takes long

NAMES = ("run-01", "run-02")
ABOUT = {"epoch": 3, "args": {"data": "/home/anna/digits.yaml", "lr": 0.1}}


class Mystery:
    """A class that no list of harmless ones has."""


@pytest.fixture(scope="module")
def server(server: Server) -> Server:
    folder = server.sweeps
    for sweep, more in (("runs", {}), ("unknown", {"logger": Mystery()})):
        (folder / sweep).mkdir()
        for name in NAMES:
            saved = {"model_ema": weights(name), "model": weights("run-05")} | ABOUT | more
            torch.save(saved, folder / sweep / f"{name}.pt")
    return server


def weights(name: str) -> State:
    return load_file(SAMPLE / "sweep" / f"{name}.safetensors")


def open_download(page: Page, server: Server, sweep: str) -> None:
    steps.follow(page, server.link("soups", server.sweeps / sweep, task=TASK))
    expect(steps.heading(page, "Soups")).to_be_visible()
    steps.build(page, "Uniform")
    steps.open_built(page, "Download")


def prepare(page: Page, form: str) -> None:
    page.get_by_role("radiogroup").get_by_text(form, exact=True).click()
    steps.wait_until_idle(page)


def take(page: Page, link: Locator, folder: Path) -> Path:
    with page.expect_download() as taken:
        link.click()
    return steps.save(taken.value, folder)


def test_a_soup_in_shards_is_taken_home_file_by_file(
    page: Page, server: Server, tmp_path: Path
) -> None:
    open_download(page, server, "runs")
    prepare(page, "sharded safetensors")
    size = page.get_by_label("Max shard size, MB")
    size.fill("0.05")
    size.press("Enter")
    expect(page.get_by_text("shard_size=50000")).to_be_visible()
    page.get_by_role("button", name="Create file").click()
    links = page.get_by_role("link", name=re.compile(r"^model"))
    expect(links.last).to_have_text("model.safetensors.index.json")
    files = [take(page, link, tmp_path) for link in links.all()]
    assert len(files) > 2
    checkpoint = open_checkpoint(tmp_path / "model.safetensors.index.json")
    assert same_weights(checkpoint.state_dict(), average([weights(name) for name in NAMES]))


def test_a_soup_is_taken_home_as_the_file_that_training_saved(
    page: Page, server: Server, tmp_path: Path
) -> None:
    open_download(page, server, "runs")
    prepare(page, ".pt (copy of run-01 with new weights)")
    expect(page.get_by_text("with its EMA weights replaced by the soup's")).to_be_visible()
    expect(page.get_by_text("every loader finds them: model (weights)")).to_be_visible()
    expect(page.get_by_text("before training: epoch (progress of the run)")).to_be_visible()
    expect(page.get_by_text("Kept as in run-01.pt: args")).to_be_visible()
    expect(page.get_by_text("/home/anna/digits.yaml (args.data)")).to_be_visible()
    page.get_by_role("button", name="Create file").click()
    recipe = take(page, page.get_by_role("link", name=re.compile(r"\.recipe\.json$")), tmp_path)
    file = take(page, page.get_by_role("link", name=re.compile(r"\.pt$")), tmp_path)
    assert json.loads(recipe.read_text())["coefficients"] == dict.fromkeys(NAMES, "1/2")
    loaded = torch.load(file, weights_only=True)
    assert same_weights(loaded["model_ema"], average([weights(name) for name in NAMES]))
    assert same_weights(loaded["model"], loaded["model_ema"])
    assert {name: loaded[name] for name in ABOUT} == ABOUT | {"epoch": -1}
    assert loaded.keys() - ABOUT.keys() == {"model", "model_ema", "stockpot"}
    # What was prepared before is still there.
    prepare(page, "safetensors")
    page.get_by_role("button", name="Create file").click()
    expect(page.get_by_role("link", name=re.compile("Download uniform-"))).to_be_visible()
    prepare(page, ".pt (copy of run-01 with new weights)")
    expect(page.get_by_role("link", name=re.compile(r"\.pt$"))).to_be_visible()


def test_where_a_copy_could_run_code_only_safetensors_is_offered_and_the_page_says_why(
    page: Page, server: Server
) -> None:
    open_download(page, server, "unknown")
    expect(page.get_by_text(re.compile(r"\.pt export unavailable: .*Mystery"))).to_be_visible()
    expect(page.get_by_role("radiogroup").get_by_text("copy of run-01")).to_have_count(0)
