"""The list of sweeps: its texts, and a click that opens one."""

from dataclasses import asdict
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages import all_sweeps
from pages.components import state
from soupcore import Store, escaping
from soupcore.jobs.known_sweeps import KnownVerdict
from tests.helpers import save_sweep
from tests.toy import random_state as random
from tests.toy import toy_runs

MAIN = Path(__file__).parents[2] / "pages" / "main.py"


def remember(store: Store, folder: Path, **changes: object) -> None:
    known = {
        "folder": str(folder), "task": "", "ingredients": 72, "best": "run-*02*",
        "soup": "Greedy · 3 of 72", "split": "test", "gain": "+3.43 points",
        "interval": "+1.69 to +5.14", "n": 700, "metric": "accuracy", "outcome": "better",
        "sentence": "It beats the best run.",
    }  # fmt: skip
    verdict = KnownVerdict(**known | changes)  # type: ignore[arg-type]
    store.add_result(verdict.key, "verdict", asdict(verdict))


def shown(session: AppTest) -> str:
    return "\n".join(each.value for kind in (session.markdown, session.caption) for each in kind)


def test_an_empty_workspace_has_a_message(served: Store) -> None:
    session = AppTest.from_file(str(MAIN), default_timeout=60).switch_page("all_sweeps.py").run()
    assert [each.value for each in session.header] == ["Sweeps"]
    assert any("No sweeps yet" in each.value for each in session.info)
    assert not session.exception


def test_sweeps_are_listed_with_their_verdicts_and_a_click_opens_one(
    served: Store, tmp_path: Path
) -> None:
    base = random(0)
    there = save_sweep(tmp_path / "sweeps" / "there", {"base": base} | toy_runs(base))
    remember(served, there)
    remember(served, tmp_path / "sweeps" / "gone", outcome="unknown", soup="", gain="", interval="")
    remember(served, Path("/elsewhere"), gain="-0.50 points", interval="")
    session = AppTest.from_file(str(MAIN), default_timeout=60).switch_page("all_sweeps.py").run()
    assert str(there) not in state.opened()
    text = shown(session)
    assert f"Greedy · 3 of 72: **{escaping.markdown('+3.43 points')}**" in text
    interval = escaping.markdown("+1.69 to +5.14")
    assert f"accuracy on test (95 % interval {interval}, n = 700)" in text
    assert f"Best run: {escaping.markdown('run-*02*')}" in text
    assert "72 ingredients" in text
    assert text.count("The folder is gone") == 1
    assert text.count("Not in a folder of this server") == 1
    buttons = {each.label.strip("*"): each for each in session.button if each.key}
    names = ("sweeps/there", "sweeps/gone", escaping.markdown("/elsewhere"))
    assert [buttons[name].disabled for name in names] == [False, True, True]
    buttons["sweeps/there"].click().run()
    assert session.session_state["sweep"] == str(there)
    assert str(there) in state.opened()
    assert session.header[0].value != "Sweeps"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "just now"), (59, "just now"), (60, "1 minute ago"), (7199, "1 hour ago"),
        (7200, "2 hours ago"), (86_400 * 3.5, "3 days ago"),
    ],
)  # fmt: skip
def test_times_are_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert all_sweeps.ago(seconds) == text
