"""BatchNorm's statistics and previews in bfloat16, on a toy with BatchNorm."""

import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import save_file

from soupcore import Evaluator, Store, Sweep, load_task, uniform
from tests.browser import steps
from tests.browser.conftest import Server, start_server, stop_server
from tests.helpers import save_sweep
from tests.toy import FEATURES, moved, random_state

pytestmark = pytest.mark.integration  # it takes long

TASK = """
from pathlib import Path
from safetensors.torch import load_file
from torch import nn
from soupcore import ClassificationTask, Split

def build_model():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

data = load_file(Path(__file__).with_name("data.safetensors"))
splits = {
    "train": Split("train", data["inputs"] + 1, data["targets"]),
    "select": Split("select", data["inputs"], data["targets"]),
}
task = ClassificationTask(build_model, splits, name="toy")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("statistics")
    base = random_state(0)
    save_sweep(folder / "sweeps" / "toy", {f"run{i}": moved(base, 1.0, i) for i in (1, 2)})
    inputs = torch.randn(200, FEATURES, generator=torch.Generator().manual_seed(0))
    save_file({"inputs": inputs, "targets": torch.arange(200) % 3}, folder / "data.safetensors")
    (folder / "task.py").write_text(TASK)
    server = start_server(
        folder, f"--root={folder / 'sweeps'}", f"--task={folder / 'task.py'}:task"
    )
    yield server
    stop_server(server)


def open_soups(page: Page, server: Server) -> tuple[Sweep, Evaluator]:
    folder = server.workspace.parent
    query = {"sweep": folder / "sweeps" / "toy", "selection": ["run1", "run2"]}
    page.goto(f"{server.url}/soups?{urlencode(query, doseq=True)}")
    soups, read = steps.heading(page, "Soups"), page.get_by_role("button", name="Read the")
    expect(soups.or_(read).first).to_be_visible()
    if read.is_visible():  # unless a test before this one had the checkpoints read
        read.click()
    expect(soups).to_be_visible()
    task = load_task(f"{folder / 'task.py'}:task")
    evaluator = Evaluator(task, Store(folder / "expected"), device="cpu")
    return Sweep.from_folder(folder / "sweeps" / "toy"), evaluator


def test_a_soup_is_shown_with_either_statistics_and_the_better_are_proposed(
    page: Page, server: Server
) -> None:
    sweep, averaged = open_soups(page, server)
    steps.build(page, "Uniform")
    # They stand below the recipe and in the comparison.
    both = re.compile("^Uniform .*: averaged vs. re-estimated BatchNorm$")
    expect(page.get_by_text(both).first).to_be_visible()
    evaluators = {
        "averaged": averaged,
        "re-estimated (train)": averaged.with_statistics("re-estimated"),
    }
    mixture = uniform(sweep).mixture
    scores = {
        name: (e := evaluator.evaluate(mixture, "select")).score * 1000 - e.loss
        for name, evaluator in evaluators.items()
    }
    best = max(scores, key=lambda name: scores[name])
    better = page.get_by_text(f"This soup is better on select with {best} statistics")
    expect(better.first).to_be_visible()

    control = page.get_by_test_id("stSidebar").get_by_role("radiogroup")
    control.get_by_text("re-estimated", exact=True).click()
    expect(page.get_by_role("button", name="Build with the other statistics")).to_have_count(0)
    steps.go_to(page, "Ingredients")
    expect(page.get_by_text(re.compile("re-estimated")).first).to_be_visible()


def test_a_preview_is_marked_as_one_and_leaves_the_exact_result(page: Page, server: Server) -> None:
    sweep, evaluator = open_soups(page, server)
    page.get_by_role("radiogroup").get_by_text("Manual", exact=True).click()
    exact = f"{100 * evaluator.evaluate(uniform(sweep).mixture, 'select').accuracy:.2f} %"
    value = page.get_by_test_id("stMetricValue").first
    expect(value).to_have_text(exact)
    toggle = page.get_by_text("Fast preview (bfloat16)", exact=True)
    steps.wait_until_idle(page)
    toggle.click()
    expect(page.get_by_text(re.compile("bfloat16 preview$"))).to_be_visible()
    expect(value).to_have_text(re.compile(r"^≈ \d+\.\d\d %$"))
    expect(page.get_by_text(re.compile("^bfloat16 error on select, measured on"))).to_be_visible()
    steps.wait_until_idle(page)
    toggle.click()
    expect(value).to_have_text(exact)
