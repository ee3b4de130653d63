import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import streamlit as st

from pages.components import settings


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "task.py"
    path.write_text("task = None\n")
    return path


def test_roots_and_tasks_named_at_the_start_come_before_the_sample(
    tmp_path: Path, task_file: Path
) -> None:
    known = settings.configure([f"--root={tmp_path}", f"--task={task_file}:task"])
    assert known.roots[0] == tmp_path.resolve()
    assert known.tasks == (f"{task_file.resolve()}:task", settings.SAMPLE_TASK)
    assert Path(settings.SAMPLE_SWEEP).is_relative_to(known.roots[1])


def test_a_link_inside_a_root_does_not_lead_out_of_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "inside").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    known = settings.configure([f"--root={root}"])
    assert known.allows(root / "inside")
    assert not known.allows(root / "link")
    assert not known.allows(root / ".." / "outside")


def test_a_sweep_named_at_the_start_is_shown_first(tmp_path: Path, task_file: Path) -> None:
    known = settings.configure([str(tmp_path), f"--task={task_file}:task"])
    assert known.sweep == str(tmp_path.resolve())
    assert known.task_of(known.sweep) == f"{task_file.resolve()}:task"
    assert known.allows(tmp_path)


def test_a_root_named_at_the_start_is_shown_first(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    known = settings.configure([f"--root={tmp_path}", f"--root={tmp_path / 'other'}"])
    assert known.sweep == str(tmp_path.resolve())
    known = settings.configure([f"{tmp_path / 'other'}", f"--root={tmp_path}"])
    assert known.sweep == str(tmp_path.resolve() / "other")
    assert settings.configure([]).sweep == settings.SAMPLE_SWEEP


def test_the_task_of_the_sample_is_for_the_sample_only(tmp_path: Path, task_file: Path) -> None:
    known = settings.configure([str(tmp_path)])
    assert known.task_of(known.sweep) == ""
    assert known.tasks_for(known.sweep) == ()
    assert known.task_of(settings.SAMPLE_SWEEP) == settings.SAMPLE_TASK
    spec = f"{task_file.resolve()}:task"
    known = settings.configure([str(tmp_path), f"--task={spec}"])
    assert known.tasks_for(known.sweep) == (spec,)
    assert known.tasks_for(settings.SAMPLE_SWEEP) == (spec, settings.SAMPLE_TASK)
    known = settings.configure([str(tmp_path), f"--task={settings.SAMPLE_TASK}"])
    assert known.task_of(known.sweep) == settings.SAMPLE_TASK  # named explicitly


@pytest.mark.parametrize(
    "argument", ["--root=/nowhere", "--task=/nowhere.py:task", "--task={file}", "--task={file}:a b"]
)
def test_invalid_arguments_end_with_a_message(
    task_file: Path, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings.configure([argument.format(file=task_file)])
    assert argument.format(file=task_file).partition("=")[2] in capsys.readouterr().err


def test_a_teams_database_is_named_by_an_argument_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.configure([]).database is None
    monkeypatch.setenv("STOCKPOT_DATABASE", "postgresql://team")
    assert settings.configure([]).database == "postgresql://team"
    assert settings.configure(["--database=postgresql://other"]).database == "postgresql://other"


def test_each_device_named_gets_a_worker() -> None:
    assert settings.configure([]).devices == ("auto",)
    twice = ["--device=cuda:0", "--device=cuda:1", "--device=cuda:0"]
    assert settings.configure(twice).devices == ("cuda:0", "cuda:1")


PROJECT = Path(__file__).parents[2]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Streamlit's options, as its command line, its files and the environment would set them."""
    found: dict[str, object] = {
        "server.address": "127.0.0.1",
        "server.baseUrlPath": "",
        "server.port": 8501,
        "server.sslCertFile": None,
    }
    monkeypatch.setattr(st, "get_option", lambda name: found[name])
    monkeypatch.delenv("STOCKPOT_TOKEN", raising=False)
    return found


@pytest.mark.parametrize(
    ("address", "required", "has_one"),
    [
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("localhost", False, False),
        ("127.0.0.1", True, True),
        ("0.0.0.0", False, True),  # noqa: S104
        ("192.0.2.1", False, True),
        ("node7.example.org", False, True),
        (None, False, True),  # Streamlit binds to all addresses then
    ],
)
def test_an_exposed_server_always_has_a_token(
    options: dict[str, object], address: str | None, required: bool, has_one: bool
) -> None:
    options["server.address"] = address
    first, second = settings.token(required=required), settings.token(required=required)
    assert (first is not None) == has_one
    if first is not None:
        assert len(first) >= 32
        assert first != second


def test_a_token_in_the_environment_is_removed_from_it(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_TOKEN", "sixteen-letters-")
    assert settings.token(required=False) == "sixteen-letters-"
    assert settings.token(required=False) is None  # the workers would have inherited it
    for short in ("", "fifteen-letters"):
        monkeypatch.setenv("STOCKPOT_TOKEN", short)
        with pytest.raises(SystemExit, match="shorter than 16 characters"):
            settings.token(required=False)


@pytest.mark.parametrize(
    ("changes", "token", "links"),
    [
        ({}, None, ["http://127.0.0.1:8501/"]),
        ({}, "a-b_c", ["http://127.0.0.1:8501/?token=a-b_c"]),
        ({"server.address": "::1"}, None, ["http://[::1]:8501/"]),
        (
            {"server.address": "0.0.0.0", "server.baseUrlPath": "/team/pot/"},  # noqa: S104
            "t",
            ["http://HOST:8501/team/pot/?token=t", "http://127.0.0.1:8501/team/pot/?token=t"],
        ),
        ({"server.address": "192.0.2.1", "server.sslCertFile": "x"}, "t", ["https://192.0.2.1:8501/?token=t"]),
    ],
)  # fmt: skip
def test_the_links_can_be_opened(
    options: dict[str, object], changes: dict[str, object], token: str | None, links: list[str]
) -> None:
    options.update(changes)
    assert settings.links(token) == [re.sub("HOST", socket.gethostname(), link) for link in links]


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        ([], None),
        (["--root", "/data", "--address", "127.0.0.1"], None),
        (["--root", "/data", "--address=192.0.2.1", "--token"], "192.0.2.1"),
    ],
)
def test_the_process_starts_again_only_for_another_address(
    options: dict[str, object], arguments: list[str], address: str | None
) -> None:
    assert settings.requested_address(arguments) == address


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("127.0.0.1", {"127.0.0.1", "localhost", "::1", "pot.example"}),
        (
            "192.0.2.1",
            {"127.0.0.1", "localhost", "::1", "pot.example", "192.0.2.1", socket.gethostname()},
        ),
    ],
)
def test_the_server_answers_to_its_names(
    options: dict[str, object], address: str, hosts: set[str]
) -> None:
    options["server.address"] = address
    assert set(settings.hosts(["pot.example"])) == hosts


def test_the_pages_html_is_streamlits() -> None:
    assert '<div id="root">' in settings.index_html()


def test_a_server_ends_while_a_page_is_being_drawn() -> None:
    program = """
import threading, time
from pages.components import (settings)

settings._GRACE = 0.2
threading.Thread(target=time.sleep, args=(600,), name="draws a large page").start()
settings.end_soon()
print("the last line of the program", flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, timeout=120, check=True
    )
    assert ended.stdout == b"the last line of the program\n"
