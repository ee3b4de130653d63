"""The tab of the picker for URLs, with a Hub on the loopback interface."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.conftest import SAMPLE, TASK, Server, start_server, stop_server
from tests.remote.hub_server import LoopbackHub, running

pytestmark = pytest.mark.integration

CONFIG = json.dumps({"architectures": ["Digits"]}).encode()


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    pytest.importorskip("huggingface_hub")
    hub = LoopbackHub()
    for name in ("run-01", "run-02"):
        weights = (SAMPLE / "sweep" / f"{name}.safetensors").read_bytes()
        hub.commit(f"lab/{name}", {"config.json": CONFIG, "model.safetensors": weights})
    hub.repos["lab/run-02"].private = True
    with running(hub):
        yield hub


@pytest.fixture(scope="module")
def server(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "sweeps" / "table").mkdir(parents=True)
    rows = "checkpoint,lr\nhf://lab/run-01,0.1\nhf://lab/run-02@main,0.2\n"
    (folder / "sweeps" / "table" / "sweep.csv").write_text(rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_ENDPOINT", hub.url)
        patched.setenv("HF_TOKEN", hub.token)
        patched.setenv("HF_HOME", str(folder / "home"))
        server = start_server(folder, f"--root={folder / 'sweeps'}", f"--task={TASK}")
    yield server
    stop_server(server)


def choose(page: Page, server: Server, source: str) -> None:
    steps.open_app(page, f"{server.url}/?sweep={SAMPLE / 'sweep'}")
    page.get_by_role("button", name="Open another sweep").click()
    page.get_by_role("dialog").get_by_text(source, exact=True).click()


def files_of(folder: Path) -> Iterator[bytes]:
    yield from (path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_urls_become_a_sweep_and_a_soup_is_pushed(
    page: Page, server: Server, hub: LoopbackHub
) -> None:
    choose(page, server, "Hub or S3")
    urls = page.get_by_role("textbox", name="URLs, one per line")
    urls.fill("https://example.com/a")
    urls.press("Control+Enter")
    page.get_by_role("button", name="Open URLs").click()
    expect(page.get_by_text("cannot be opened on a page; use hf:")).to_be_visible()
    urls.fill("hf://lab/run-01\nhf://lab/run-02@main")
    urls.press("Control+Enter")
    page.get_by_role("button", name="Open URLs").click()
    expect(page.get_by_text("0 of 2 ingredients selected")).to_be_visible()
    page.get_by_text("Remote files: 2 checkpoint files").click()
    expect(page.get_by_role("button", name="Check the URLs for changes")).to_be_visible()
    steps.go_to(page, "Soups")
    steps.build(page, "Uniform")
    steps.open_built(page, "Download")
    page.get_by_text("Push to the Hugging Face Hub").click()
    repo = page.get_by_role("textbox", name="Repository")
    repo.fill("lab/soup")
    repo.press("Enter")
    page.get_by_role("button", name=re.compile("Push weights and model card")).click()
    expect(page.get_by_text(re.compile(r"Pushed: .*/lab/soup/commit/"))).to_be_visible()
    assert hub.repos["lab/soup"].private
    token = hub.token.encode()
    assert token not in server.log.read_bytes()
    assert not any(token in content for content in files_of(server.workspace))
    assert token.decode() not in page.content()


def test_a_table_of_urls_is_a_sweep(page: Page, server: Server) -> None:
    choose(page, server, "Folder on the server")
    page.get_by_role("combobox", name="Root").click()
    page.get_by_role("option", name="sweeps").click()
    page.get_by_role("dialog").get_by_role("button", name="table").click()
    page.get_by_role("button", name="Open (2 checkpoints, 2 remote)").click()
    expect(page.get_by_text("0 of 2 ingredients selected")).to_be_visible()
    expect(page.get_by_text("Remote files: 2 checkpoint files")).to_be_visible()
