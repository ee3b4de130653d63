"""The jobs in the sidebar: by sweep, each a way to its result, and failed ones can be dismissed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.components import jobs_panel, state
from soupcore import Store, escaping
from soupcore.jobs import Queue
from soupcore.jobs.kinds import KINDS
from tests.helpers import save_sweep
from tests.toy import random_state, toy_runs

MAIN = Path(__file__).parents[2] / "pages" / "main.py"


@pytest.mark.parametrize(
    ("kind", "request_", "page"),
    [
        *((kind, {}, None) for kind in KINDS),
        ("paths", {"alphas": "adaptive", "splits": ["val"]}, "connectivity.py"),
        ("paths", {"alphas": 3, "splits": ["val"]}, "soup_vs_ensemble.py"),
        ("paths", {"alphas": 11, "splits": ["test", "shift/a"]}, "from_base.py"),
        ("of a later version", {}, "overview.py"),
    ],
)
def test_a_job_of_any_kind_leads_to_a_page(
    kind: str, request_: dict[str, Any], page: str | None
) -> None:
    found = jobs_panel.page_of(kind, request_)
    assert (MAIN.parent / found).is_file()
    assert kind in jobs_panel._PAGES or page is not None
    assert page in (None, found)


def test_jobs_are_grouped_by_sweep_and_those_of_the_current_one_come_first() -> None:
    recent: list[Any] = [
        SimpleNamespace(id=number, request={"sweep": folder} if folder else {})
        for number, folder in enumerate(["/b", "/a", "", "/b", "/c", "/a"])
    ]
    groups = jobs_panel.by_sweep(recent, "/a")
    assert {folder: [job.id for job in jobs] for folder, jobs in groups.items()} == {
        "/a": [1, 5], "/b": [0, 3], "": [2], "/c": [4],
    }  # fmt: skip
    assert next(iter(groups)) == "/a"


@pytest.fixture
def session(served: Store, tmp_path: Path) -> AppTest:
    base = random_state(0)
    there = save_sweep(tmp_path / "sweeps" / "there", {"base": base} | toy_runs(base))
    queue = Queue(served)
    for folder in (there, tmp_path / "sweeps" / "gone", Path("/elsewhere")):
        name = folder.name
        queue.submit("geometry", f"Look at {name}", {"sweep": str(folder), "weights": "model"})
    queue.fail_waiting(None, "It *broke*.")
    return AppTest.from_file(str(MAIN), default_timeout=60).run()


def test_a_click_on_a_job_leads_to_its_sweep_and_its_result(
    session: AppTest, tmp_path: Path
) -> None:
    captions = [each.value for each in session.sidebar.caption]
    assert ":material/folder: **sweeps/there**" in captions
    assert any(each.endswith("Look at there · failed") for each in captions)
    assert escaping.markdown("It *broke*.") in captions
    show = [each for each in session.sidebar.button if each.label == "Show"]
    # The newest first; the folder of one is gone, and that of the other not of this server.
    assert [each.disabled for each in show] == [True, True, False]
    assert [bool(each.help) for each in show] == [True, True, False]
    assert str(tmp_path / "sweeps" / "there") not in state.opened()
    show[-1].click().run()
    assert session.session_state["sweep"] == str(tmp_path / "sweeps" / "there")
    assert session.session_state["weights"] == "model"
    assert str(tmp_path / "sweeps" / "there") in state.opened()


def test_a_failed_job_is_dismissed_for_all(session: AppTest) -> None:
    dismiss = [each for each in session.sidebar.button if each.label == "Dismiss"]
    assert len(dismiss) == 3
    assert any(each.value.endswith("3 failed") for each in session.markdown)
    dismiss[0].click().run()
    assert any(each.value.endswith("2 failed") for each in session.markdown)
    another = AppTest.from_file(str(MAIN), default_timeout=60).run()
    for each in (session, another):
        assert len([b for b in each.sidebar.button if b.label == "Dismiss"]) == 2
