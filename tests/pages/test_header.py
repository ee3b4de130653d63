"""The line above every page, the mark, the title of the browser's tab, and the shortcuts."""

import base64
import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pages.components import access, header, jobs_panel, state
from pages.components.state import View
from soupcore import Store
from soupcore.jobs import State
from soupcore.jobs.queue import Counts

MAIN = Path(__file__).parents[2] / "pages" / "main.py"


@pytest.mark.parametrize("theme", [None, "light", "dark"])
def test_the_logo_is_an_image_without_requests(theme: str | None) -> None:
    image = header.mark(theme)
    assert image.startswith("<svg ")
    assert image.endswith("</svg>")
    assert (">Stockpot</text>" in image) == (theme is not None)
    assert "href" not in image


@pytest.mark.parametrize(
    ("selected", "has_task", "line"),
    [
        ([], True, "3 ingredients · share of them right"),
        (["run1", "run2"], True, "2 of 3 selected · share of them right"),
        (["run1"], False, "1 of 3 selected"),
    ],
)
def test_the_line_shows_the_selection_and_the_metric(
    view: View, monkeypatch: pytest.MonkeyPatch, selected: list[str], has_task: bool, line: str
) -> None:
    monkeypatch.setattr(st, "session_state", {"selection": selected})
    shown = view if has_task else View(view.sweep, view.store, view.folder)
    assert header._selection(shown) == line


@pytest.mark.parametrize(
    ("ends", "is_own_run", "title"),
    [
        ([], True, None),
        ([(State.DONE, 12.0)], True, "✓ Job 0 · Stockpot"),
        ([(State.DONE, 2.0)], True, None),  # nobody looked elsewhere for that
        ([(State.CANCELLED, 12.0)], True, None),  # by a click
        ([(State.FAILED, 12.0)], True, "✗ Job 0 · Stockpot"),
        ([(State.DONE, 12.0), (State.DONE, 30.0)], True, "✓ 2 jobs · Stockpot"),
        ([(State.DONE, 12.0), (State.FAILED, 30.0)], True, "✗ 2 jobs · Stockpot"),
        ([(State.DONE, 12.0)], False, None),  # the user is on the page
    ],
)
def test_the_tab_title_names_ended_long_jobs_until_the_user_returns(
    monkeypatch: pytest.MonkeyPatch,
    ends: list[tuple[State, float]],
    is_own_run: bool,
    title: str | None,
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(st, "set_page_config", lambda page_title: titles.append(page_title))
    session: dict[str, Any] = {"jobs_drawn": dict.fromkeys(range(len(ends)), (True, 0))}
    monkeypatch.setattr(st, "session_state", session)
    recent: list[Any] = [
        SimpleNamespace(id=n, title=f"Job {n}", state=how, started=100.0, finished=100.0 + took)
        for n, (how, took) in enumerate(ends)
    ]
    session["is_own_run"] = is_own_run
    header.show_ended(jobs_panel._ended(recent))
    assert titles == ([title] if title else [])
    # It stays while results of other jobs arrive, until the user does something.
    session |= {"jobs_drawn": {job.id: (False, 1) for job in recent}, "is_own_run": True}
    header.show_ended(jobs_panel._ended(recent))
    assert titles == ([title] * 2 if title else [])
    header.show_ended(jobs_panel._ended(recent))
    assert titles == ([title] * 2 if title else [])


def test_jobs_are_counted_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(st, "markdown", lambda text, width: lines.append(text.split(" ", 1)[1]))
    for numbers, line in (
        ((0, 0, 0), "no jobs"),
        ((1, 2, 0), "1 running · 2 queued"),
        ((0, 0, 1), "1 failed"),
    ):
        counts = Counts(*numbers)
        queue = SimpleNamespace(counts=lambda counts=counts: counts)
        monkeypatch.setattr(state, "supervisor", lambda queue=queue: SimpleNamespace(queue=queue))
        header._jobs()
        assert lines.pop() == line


def test_every_page_has_a_shortcut() -> None:
    pages = re.findall(r'st\.Page\(\s*"\w+\.py", title="(\w+)"(.*)', MAIN.read_text())
    titles = [title for title, options in pages if "hidden" not in options]
    assert len(titles) > 10
    assert sorted(titles) == sorted(header.PAGES.values())
    # A link is found by the end of its text, after the name of its icon.
    ends = [(one, other) for one in titles for other in titles if one != other]
    assert not [pair for pair in ends if pair[0].endswith(pair[1])]


def test_the_policy_allows_the_script_by_its_hash_and_no_other() -> None:
    script = header.SCRIPT.removeprefix("<script>").removesuffix("</script>")
    assert "<" not in script
    found = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = access._policy(header.SCRIPT)
    assert f"script-src 'self' 'sha256-{found}';" in policy


def test_the_help_lists_the_shortcuts(served: Store) -> None:
    session = AppTest.from_file(str(MAIN), default_timeout=60).run()
    next(each for each in session.button if each.label == "?").click().run()
    assert not session.exception
    shown = "\n".join(each.value for each in session.markdown)
    for key, title in header.PAGES.items():
        assert f"| `G` then `{key.upper()}` | {title} |" in shown
