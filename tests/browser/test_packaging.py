"""What an installation has, and that it works outside of the checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from playwright.sync_api import Page, expect

from soupcore.version import VERSION
from tests.browser.conftest import Server, free_port, stop_server, wait_until_up

PROJECT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
RANGES = {r.name: r for r in map(Requirement, PYPROJECT["project"]["dependencies"])}
PINNED = {
    r.name: r
    for line in (PROJECT / "requirements.txt").read_text().splitlines()
    if (text := line.partition("#")[0].strip())
    for r in [Requirement(text)]
}


def test_the_versions_of_make_app_are_in_the_ranges_of_the_package() -> None:
    assert RANGES.keys() == PINNED.keys()
    for name, pinned in PINNED.items():
        (pin,) = pinned.specifier
        assert pin.operator == "=="
        assert pin.version in RANGES[name].specifier, name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip(["wheel", "--no-deps", f"--wheel-dir={folder}", str(PROJECT)])
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in, beside the packages of these tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip(["install", "--no-deps", f"--target={folder}", str(wheel)])
    return folder


def pip(arguments: list[str]) -> None:
    options = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *arguments, *options], check=True)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with modules of the user's that have the names of ours."""
    folder = tmp_path / "elsewhere"
    (folder / "pages").mkdir(parents=True)
    for name in ("pages/__init__.py", "app.py", "random.py"):
        (folder / name).write_text(f"raise SystemExit({name!r})\n")
    return folder


def environment(installed: Path, workspace: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(installed), "STOCKPOT_WORKSPACE": str(workspace)}


@pytest.mark.integration
def test_the_wheel_has_two_packages_and_the_sample(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "soupcore",
        "stockpot",
        f"stockpot-{VERSION}.dist-info",
    }
    pages = {f"stockpot/{p.relative_to(PROJECT)}" for p in (PROJECT / "pages").rglob("*.py")}
    assert pages <= {*names}
    assert not [name for name in names if "__pycache__" in name]
    assert "stockpot/sample_data/digits/sweep/run-01.safetensors" in names
    assert wheel.stat().st_size < 5e6


@pytest.mark.integration
def test_the_command_works_from_any_folder(
    installed: Path, elsewhere: Path, workspace: Path
) -> None:
    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, installed / "bin" / "stockpot", *arguments],
            cwd=elsewhere,
            env=environment(installed, workspace),
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert run("--version") == f"stockpot {VERSION}\n"
    sample = installed / "stockpot" / "sample_data" / "digits"
    options = [f"--task={sample / 'task.py'}:task", "--split=select", "--ingredients=run-02"]
    assert run("evaluate", str(sample / "sweep"), *options).split()[-2:] == ["run-02", "86.29"]


@pytest.mark.integration
def test_the_dashboard_opens_from_any_folder(
    page: Page, installed: Path, elsewhere: Path, workspace: Path, tmp_path: Path
) -> None:
    sample = installed / "stockpot" / "sample_data" / "digits"
    shutil.copytree(sample / "sweep", tmp_path / "June")
    port, log = free_port(), tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, installed / "bin" / "stockpot", tmp_path / "June", f"--port={port}"],
            cwd=elsewhere,
            env=environment(installed, workspace),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}", workspace, process, log)
    try:
        wait_until_up(server)
        page.goto(server.url)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        expect(page.get_by_text("June", exact=True).first).to_be_visible()
    finally:
        stop_server(server)
    assert log.read_text().startswith(f"Stockpot is at {server.url}/\n")
    assert "Traceback" not in log.read_text()
