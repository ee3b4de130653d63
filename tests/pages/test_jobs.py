"""Jobs that pages add by themselves are added once, and only where they find something."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st

from pages.components import jobs, jobs_panel, settings, state
from pages.components.state import View
from soupcore import barriers
from soupcore.calls import BestIngredientBias, IngredientScores
from soupcore.jobs import State
from soupcore.jobs.kinds import KINDS, WarmState
from tests.pages.conftest import NAMES, evaluator_of


class Added:
    """The jobs that were added, none of them done unless a test does them."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.state = State.DONE

    def submit(self, kind: str, title: str, request: dict[str, Any]) -> int:
        self.requests.append(request)
        return len(self.requests)

    def get(self, job_id: int) -> Any:
        is_unfinished = self.state in (State.QUEUED, State.RUNNING)
        return SimpleNamespace(
            state=self.state, is_unfinished=is_unfinished, error="It broke.", id=job_id
        )


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch, view: View) -> Added:
    found = Added()
    monkeypatch.setattr(jobs, "submit", found.submit)
    monkeypatch.setattr(jobs, "get", found.get)
    monkeypatch.setattr(st, "session_state", {"is_linked": False})
    monkeypatch.setattr(state, "store", lambda: view.evaluations.store)
    monkeypatch.setattr(state, "opened", lambda: {view.folder})
    queue = SimpleNamespace(unfinished=lambda kind: [], latest=lambda kind, request: None)
    monkeypatch.setattr(state, "supervisor", lambda: SimpleNamespace(queue=queue))
    return found


@pytest.mark.parametrize("state", [State.DONE, State.RUNNING, State.FAILED, State.CANCELLED])
def test_a_job_without_a_result_is_not_added_on_every_run(
    view: View, added: Added, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    captions: list[str] = []
    monkeypatch.setattr(st, "caption", captions.append)
    added.state = state
    call = BestIngredientBias(tuple(NAMES))
    for _ in range(3):
        assert jobs.derived(view, call, "Bias", key="bias") is None
    assert len(added.requests) == 1
    assert bool(captions) == (state in (State.FAILED, State.CANCELLED))
    assert jobs.derived(view, BestIngredientBias(("run1", "run2")), "Bias", key="bias") is None
    assert len(added.requests) == 2


@pytest.mark.parametrize("state", [State.DONE, State.RUNNING])
def test_the_page_is_drawn_again_for_a_job_that_ends_while_it_is_drawn(
    view: View, added: Added, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    reruns: list[bool] = []
    monkeypatch.setattr(jobs_panel, "rerun_after_this", lambda: reruns.append(True))
    monkeypatch.setattr(jobs_panel, "_recent", list)  # the job is not listed once it is done
    st.session_state.update({"drawn": 0.0, "jobs_drawn": {}})
    for expected in ([True] if state == State.RUNNING else [], []):
        added.state, reruns[:] = state, []
        jobs.derived(view, BestIngredientBias(tuple(NAMES)), "Bias", key="bias")
        added.state = State.DONE
        jobs_panel.redraw_if_outdated()
        assert reruns == expected


def test_a_link_adds_no_job(view: View, added: Added, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "opened", set)
    buttons: list[str] = []
    monkeypatch.setattr(jobs, "unfinished", lambda kind, **request: None)
    monkeypatch.setattr(st, "button", lambda label, **options: buttons.append(label))
    barriers(view.sweep, evaluator_of(view), NAMES, 3)
    forget(view)
    assert jobs.derived(view, BestIngredientBias(tuple(NAMES)), "Bias", key="bias") is None
    assert len(jobs.pairs(view, NAMES, 3, "val")) == 0
    assert (added.requests, buttons) == ([], ["Compute"])


def forget(view: View) -> None:
    """Make the workspace one of a version that kept no summaries."""
    with view.evaluations.store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM lines")


@pytest.mark.parametrize("alphas", ["adaptive", 3, 11, 30])
def test_pairs_are_looked_up_only_where_all_of_their_points_are_known(
    view: View, added: Added, alphas: int | str
) -> None:
    evaluator = evaluator_of(view)
    for _ in range(2):
        assert len(jobs.pairs(view, NAMES, alphas, "val")) == 0
    assert added.requests == []
    barriers(view.sweep, evaluator, NAMES)  # with adaptive α: the midpoints, but no grid of 11
    for _ in range(3):
        jobs.pairs(view, NAMES, alphas, "val")
    assert len(added.requests) == (alphas == 3)


def test_pairs_of_an_earlier_version_are_looked_up_once(
    view: View, added: Added, monkeypatch: pytest.MonkeyPatch
) -> None:
    barriers(view.sweep, evaluator_of(view), ["run1", "run2"], 3)
    forget(view)
    warm = WarmState(view.evaluations.store, [view.task_spec], "cpu")
    jobs.pairs(view, NAMES, 3, "val")
    (request,) = added.requests
    KINDS["known pairs"](warm, request, lambda done, total, partial=None: None)
    for _ in range(3):
        assert list(jobs.pairs(view, NAMES, 3, "val").paths) == [("run1", "run2")]
    assert len(added.requests) == 1


@pytest.mark.parametrize("kind", ["paths", "line"])
def test_pairs_that_are_being_evaluated_are_not_looked_up(
    view: View, added: Added, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    barriers(view.sweep, evaluator_of(view), NAMES, 3)
    forget(view)
    running = SimpleNamespace(request={"sweep": view.folder})
    queue = SimpleNamespace(unfinished=lambda wanted: [running] * (wanted == kind))
    monkeypatch.setattr(state, "supervisor", lambda: SimpleNamespace(queue=queue))
    assert len(jobs.pairs(view, NAMES, 3, "val")) == 0
    assert added.requests == []


@pytest.mark.parametrize(
    ("seconds", "change", "starts"),
    [
        (9.9, "", True),
        (10.0, "", False),
        (None, "", False),  # no pass was timed
        (0.1, "a link was followed", False),
        (0.1, "the sweep was never opened here", False),
        (0.1, "the workspace is read-only", False),
        (0.1, "the server always asks", False),
        (0.1, State.DONE, True),
        (0.1, State.FAILED, False),
        (0.1, State.CANCELLED, False),
        (0.1, State.RUNNING, False),
        (0.1, "the analysis is running", False),
    ],
)
def test_short_jobs_start_without_a_click_only_where_the_user_opened_the_sweep(
    view: View,
    added: Added,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float | None,
    change: str,
    starts: bool,
) -> None:
    jobs._started.cache_clear()
    settings.configure(["--auto", "0"] if change == "the server always asks" else [])
    st.session_state["is_linked"] = change == "a link was followed"
    if change == "the sweep was never opened here":
        monkeypatch.setattr(state, "opened", set)
    if change == "the workspace is read-only":
        monkeypatch.setattr(view.evaluations.store, "is_read_only", True)
    if isinstance(change, State):
        last = SimpleNamespace(state=change)
        queue = SimpleNamespace(unfinished=lambda kind: [], latest=lambda kind, request: last)
        monkeypatch.setattr(state, "supervisor", lambda: SimpleNamespace(queue=queue))
    if change == "the analysis is running":
        analysis = SimpleNamespace(request=view.request)
        queue = SimpleNamespace(
            unfinished=lambda kind: [analysis] * (kind == "analyze"),
            latest=lambda kind, request: None,
        )
        monkeypatch.setattr(state, "supervisor", lambda: SimpleNamespace(queue=queue))
    call = IngredientScores(tuple(NAMES), ("val",))
    found = [jobs.start_if_short(view, call, "Evaluate", seconds) for _ in range(3)]
    assert len(added.requests) == starts  # and not again, whatever came of it
    assert found == ([1, None, None] if starts else [None] * 3)
    settings.configure([])


@pytest.mark.parametrize(
    ("price", "starts", "label"),
    [
        (None, True, "Run 3 evaluations"),
        (0.2, False, "Run 3 evaluations, about 1 s"),
        (0.2, True, "Run 3 evaluations, about 1 s"),
        (200.0, True, "Run 3 evaluations, about 3 min"),
    ],
)
def test_a_button_shows_its_price_and_a_short_job_starts_without_a_click(
    view: View,
    added: Added,
    monkeypatch: pytest.MonkeyPatch,
    price: float | None,
    starts: bool,
    label: str,
) -> None:
    jobs._started.cache_clear()
    settings.configure([])
    shown: list[str] = []
    monkeypatch.setattr(st, "button", lambda label, **options: shown.append(label))
    call = IngredientScores(tuple(NAMES), ("val",))
    jobs.call_button(
        view, "Run 3 evaluations", call, "Evaluate", key="run", price=price, starts=starts
    )
    assert shown == [label]
    assert len(added.requests) == (starts and price == 0.2)


def test_a_short_job_starts_again_once_its_sweep_has_changed(view: View, added: Added) -> None:
    jobs._started.cache_clear()
    settings.configure([])
    call = IngredientScores(tuple(NAMES), ("val",))
    changed = replace(view, sweep=view.sweep.including({"new": view.sweep["run1"].checkpoint}))
    started = [jobs.start_if_short(each, call, "Evaluate", 1.0) for each in (view, view, changed)]
    assert started == [1, None, 2]
