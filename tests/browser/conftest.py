import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright
from safetensors.torch import load_file, save_file

from tests.browser import steps
from tests.browser.chromium import find
from tests.pages import hostile

PROJECT = Path(__file__).parents[2]
SAMPLE = PROJECT / "sample_data" / "digits"
expect.set_options(timeout=60_000)  # the machine may be busy with other tests
TASK = f"{SAMPLE / 'task.py'}:task"
# The sample's task with more examples to select on, so that learning is not over before a click.
SLOW = f"""
from soupcore import ClassificationTask, Split, load_task

sample = load_task({TASK!r})
select = sample.split("select")
many = Split("select", select.inputs.repeat(30, 1, 1, 1), select.targets.repeat(30))
task = ClassificationTask(sample.build_model, sample.splits | {{"select": many}}, name="Slow")
"""
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the text of the page and the server's log to the report of a failed test."""
    report = yield
    if report.failed and call.when == "call" and isinstance(item, pytest.Function):
        for each in item.funcargs.values():
            if isinstance(each, Page):
                with suppress(Error):
                    report.sections.append(("page", each.inner_text("body")))
            elif isinstance(each, Server):
                report.sections.append(("server", each.log.read_text()[-5_000:]))
    return report


@dataclass(frozen=True)
class Server:
    url: str
    workspace: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def sweeps(self) -> Path:
        return self.workspace.with_name("sweeps")

    @property
    def slow_task(self) -> str:
        return f"{self.workspace.with_name('slow.py')}:task"

    def link(self, page: str, sweep: Path, **query: Any) -> str:
        """Return the URL of a page of a sweep."""
        return f"{self.url}/{page}?{urlencode({'sweep': sweep} | query, doseq=True)}"

    def copy_of_sample(self, name: str) -> Path:
        """Copy the sample's sweep; return the folder.

        The networks compute the same probabilities with other weights. Results belong to weights,
        and soups to a folder, so the copy has neither.
        """
        added = (1 + len([*self.sweeps.iterdir()])) / 1024  # to all logits
        folder = self.sweeps / name
        copytree(SAMPLE / "sweep", folder)
        for file in folder.glob("*.safetensors"):
            state = load_file(file)
            save_file(state | {"head.bias": state["head.bias"] + added}, file)
        return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_server(folder: Path, *arguments: str) -> Server:
    port = free_port()
    workspace, log = folder / "workspace", folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "streamlit",
                "run",
                "app.py",
                f"--server.port={port}",
                "--",
                "--auto=0",  # tests click the buttons
                *arguments,
            ],
            cwd=PROJECT,
            env=os.environ | {"STOCKPOT_WORKSPACE": str(workspace)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}", workspace, process, log)
    wait_until_up(server)
    return server


def wait_until_up(server: Server, patience: float = 300) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            requests.get(f"{server.url}/_stcore/health", timeout=1)
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the server did not start:\n{server.log.read_text()}")


def stop_server(server: Server) -> None:
    server.process.terminate()
    server.process.wait(120)  # the machine may be busy


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests.

    It shows the bundled sample, which no test evaluates, the sweeps in `Server.sweeps`, where each
    module writes some of its own, and one whose names are full of markup.
    """
    folder = tmp_path_factory.mktemp("server")
    (folder / "sweeps").mkdir()
    (folder / "slow.py").write_text(SLOW)
    names, task_of_names = hostile.write(folder / "names")
    server = start_server(
        folder,
        str(SAMPLE / "sweep"),
        f"--root={folder / 'sweeps'}",
        f"--root={names}",
        f"--task={TASK}",
        f"--task={task_of_names}",
        f"--task={folder / 'slow.py'}:task",
    )
    yield server
    stop_server(server)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One for all tests, so that the browser loads and compiles the app once for each server."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 1400}, accept_downloads=True, reduced_motion="reduce"
    )
    context.set_default_timeout(30_000)
    context.on("page", wait_for_scripts)
    yield context
    context.close()


def wait_for_scripts(page: Page) -> None:
    """Let every action and assertion wait until the page is drawn.

    While a script runs, elements move, are replaced between the press and the release of a click,
    and appear twice: where they stood before and where they stand now. See `steps.act_at_once`.
    """
    page.add_locator_handler(steps.running_script(page), lambda: None)  # waits until it is hidden


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    yield page
    with suppress(Error):  # a page that shows nothing has no storage
        page.evaluate("localStorage.clear()")
    for each in context.pages:
        each.close()
    context.clear_cookies()
