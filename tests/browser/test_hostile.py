import re
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import pytest
from playwright.sync_api import Page, expect

from soupcore.sweeps.folder import find_runs
from tests.browser import steps
from tests.browser.conftest import Server, start_server, stop_server
from tests.hostile.corpus import CORPUS, write_corpus
from tests.troubled import SAMPLE

pytestmark = pytest.mark.integration  # it takes long

# A sentence of the report for each of these files.
TOLD = {
    "call-os.system.pt": "runs code",
    "zip-tampered.pt": "checksum",
    "lfs-pointer-pt.pt": "Git LFS pointer",
    "torchscript.pt": "TorchScript",
}
TASK = """
import torch
from torch import nn
from soupcore import ClassificationTask, Split

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4, 4))

    def forward(self, inputs):
        return inputs @ self.w

torch.manual_seed(0)
split = Split("select", torch.rand(20, 4), torch.randint(4, (20,)))
task = ClassificationTask(Net, {"select": split}, name="Four by four")
"""


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    write_corpus(folder, CORPUS)
    yield folder
    rmtree(folder)  # 330 MB


@pytest.fixture(scope="module")
def server(hostile_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("hostile-server")
    (place / "four.py").write_text(TASK)
    server = start_server(place, f"--root={hostile_folder}", f"--task={place / 'four.py'}:task")
    yield server
    stop_server(server)


def test_a_folder_of_hostile_files_is_reported_file_by_file_and_the_server_lives(
    page: Page, server: Server, hostile_folder: Path
) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    steps.open_app(page, f"{server.url}/?sweep={SAMPLE}")
    page.get_by_role("button", name="Open another sweep").click()
    page.get_by_role("combobox", name="Task (how ingredients are evaluated)").click()
    page.get_by_role("option", name="four.py: task").click()
    page.get_by_role("dialog").get_by_text("Folder on the server", exact=True).click()
    page.get_by_role("combobox", name="Root").click()
    page.get_by_role("option", name=hostile_folder.name).click()
    found = len(find_runs(hostile_folder))
    page.get_by_role("button", name=f"Open ({found} checkpoints)").click()
    report = page.get_by_text(re.compile(r"Fit report: \d+ excluded"))
    expect(report).to_be_visible(timeout=120_000)
    left_out = re.search(r"(\d+) excluded", report.inner_text())
    assert left_out is not None
    assert int(left_out.group(1)) >= len(CORPUS) * 0.9
    table = page.get_by_test_id("stTable")
    for sentence in TOLD.values():
        expect(table.get_by_text(re.compile(sentence)).first).to_be_attached()
    expect(page.get_by_text("Traceback")).to_have_count(0)

    steps.evaluate_everything(page)
    assert server.process.poll() is None
    assert [url for url in requested if not url.startswith((server.url, "data:", "blob:"))] == []
