from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load_file, save_file

from tests.browser import steps
from tests.browser.conftest import SAMPLE, TASK, Server, start_server, stop_server

WRONG_NETWORK = """
from torch import nn
from soupcore import ClassificationTask, Split
import torch
torch.manual_seed(0)
split = Split("select", torch.rand(20, 4), torch.randint(3, (20,)))
task = ClassificationTask(lambda: nn.Linear(4, 3), {"select": split}, name="Wrong network")
"""

FAILING = "raise RuntimeError('no such data here')\n"


@pytest.fixture(scope="module")
def picker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("picker")
    make_troubled_sweep(folder / "sweeps" / "troubled")
    (folder / "sweeps" / "empty").mkdir()
    (folder / "wrong.py").write_text(WRONG_NETWORK)
    (folder / "failing.py").write_text(FAILING)
    server = start_server(
        folder,
        f"--root={folder / 'sweeps'}",
        f"--task={folder / 'wrong.py'}:task",
        f"--task={folder / 'failing.py'}:task",
        f"--task={TASK}",
    )
    yield server
    stop_server(server)


def make_troubled_sweep(folder: Path) -> None:
    copytree(SAMPLE / "sweep", folder)
    good = load_file(folder / "run-01.safetensors")
    save_file(good, folder / "copy-of-run-01.safetensors")
    save_file(good | {"head.weight": torch.zeros(3, 3)}, folder / "other-head.safetensors")
    save_file(good | {"head.bias": torch.full((10,), torch.nan)}, folder / "diverged.safetensors")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def choose(page: Page, source: str) -> None:
    page.get_by_role("button", name="Open another sweep").click()
    page.get_by_role("dialog").get_by_text(source, exact=True).click()


def choose_task(page: Page, task: str) -> None:
    page.get_by_role("combobox", name="Task (how ingredients are evaluated)").click()
    page.get_by_role("option", name=task).click()


@pytest.mark.integration
def test_a_folder_with_every_kind_of_trouble_opens_without_the_misfits(
    page: Page, picker: Server
) -> None:
    steps.open_app(page, f"{picker.url}/?sweep={SAMPLE / 'sweep'}")
    choose(page, "Folder on the server")
    page.get_by_role("combobox", name="Root").click()
    page.get_by_role("option", name="sweeps").click()
    page.get_by_role("dialog").get_by_role("button", name="troubled").click()
    choose_task(page, "digits/task.py: task")
    page.get_by_role("button", name="Open (21 checkpoints)").click()
    expect(page.get_by_text("Fit report: 4 excluded, 1 warning")).to_be_visible()
    expect(page.get_by_text("0 of 16 ingredients selected")).to_be_visible()
    steps.evaluate_everything(page)


@pytest.mark.integration
def test_an_empty_folder_says_so_before_it_is_opened(page: Page, picker: Server) -> None:
    steps.open_app(page, f"{picker.url}/?sweep={SAMPLE / 'sweep'}")
    choose(page, "Folder on the server")
    page.get_by_role("combobox", name="Root").click()
    page.get_by_role("option", name="sweeps").click()
    page.get_by_role("dialog").get_by_role("button", name="empty").click()
    expect(page.get_by_role("button", name="Open (0 checkpoints)")).to_be_disabled()


@pytest.mark.integration
def test_uploaded_checkpoints_become_a_sweep(page: Page, server: Server, tmp_path: Path) -> None:
    good = load_file(SAMPLE / "sweep" / "run-01.safetensors")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for scale, file in zip((0.99, 1.01), files, strict=True):
        save_file({name: tensor * scale for name, tensor in good.items()}, file)
    steps.open_app(page, f"{server.url}/?sweep={SAMPLE / 'sweep'}")
    choose(page, "Upload")
    choose_task(page, "digits/task.py: task")
    page.get_by_role("dialog").locator("input[type=file]").set_input_files(files)
    page.get_by_role("button", name="Open upload").click()
    expect(page.get_by_text("0 of 2 ingredients selected")).to_be_visible()
    steps.evaluate_everything(page)
    (copied,) = (server.workspace / "uploads").glob("uploaded-*")
    assert {file.name for file in copied.iterdir()} == {file.name for file in files}


@pytest.mark.integration
def test_checkpoints_that_do_not_fit_the_task_fail_in_words(page: Page, picker: Server) -> None:
    steps.open_app(page, f"{picker.url}/?sweep={SAMPLE / 'sweep'}")
    choose(page, "Folder on the server")
    choose_task(page, "wrong.py: task")
    page.get_by_role("button", name="Open (16 checkpoints)").click()
    page.get_by_role("button", name="Evaluate all ingredients").click()
    expect(page.get_by_text("does not fit the network of the task 'Wrong network'")).to_be_visible()
    expect(page.get_by_text("Traceback")).to_have_count(0)


@pytest.mark.integration
def test_a_task_that_fails_to_load_is_named_with_its_error(page: Page, picker: Server) -> None:
    steps.open_app(page, f"{picker.url}/?sweep={SAMPLE / 'sweep'}")
    choose(page, "Folder on the server")
    choose_task(page, "failing.py: task")
    page.get_by_role("button", name="Open (16 checkpoints)").click()
    expect(page.get_by_text("RuntimeError: no such data here")).to_be_visible()
    expect(page.get_by_text("Traceback")).to_have_count(0)
