"""The list of the sweeps of a workspace: what it says, and what it reads for that."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event

from soupcore import Evaluator, Store, Sweep, greedy
from soupcore.analysis import paired
from soupcore.calls import Context
from soupcore.jobs import Queue, State
from soupcore.jobs.known_sweeps import known_sweeps, remember, verdict_of
from soupcore.overview import Overview
from soupcore.store.leases import Holder
from tests.postgres import DATABASES

NAMES = ["run1", "run2", "run10"]
TASK = "task.py:task"


@pytest.fixture
def context(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator, str(sweep.folder), TASK)


def test_a_verdict_in_the_list_has_the_numbers_of_the_verdict(context: Context) -> None:
    store, evaluator = context.store, context.evaluator
    remember(Overview.of(context))
    (first,) = known_sweeps(store)
    assert first.verdict is not None
    assert (first.verdict.best, first.verdict.soup, first.ingredients) == ("", "", 3)
    assert first.verdict.outcome == "unknown"

    for split in evaluator.task.reported:
        evaluator.evaluate_all(context.mixtures(NAMES), split)
    soup = greedy(context.sweep, evaluator)
    soup.evaluate(evaluator)
    context.keep_soup(soup, {})
    known = Overview.of(context)
    remember(known)
    (found,) = known_sweeps(store)
    verdict = found.verdict
    assert verdict == verdict_of(known)
    assert verdict is not None
    assert known.best is not None
    expected = paired(
        evaluator.evaluate(soup.mixture, "test").scores,
        evaluator.evaluate(context.sweep[known.best].mixture, "test").scores,
    )
    unit = evaluator.task.score_unit
    assert (verdict.best, verdict.split, verdict.n) == (known.best, "test", 90)
    assert verdict.gain == unit.difference_text(expected.difference)
    assert verdict.interval == unit.difference_interval(expected.interval)
    assert verdict.sentence == known.verdict.sentences[0]
    assert found.changed > first.changed


def test_an_unchanged_verdict_is_not_a_change(context: Context) -> None:
    known = Overview.of(context)
    remember(known)
    (before,) = known_sweeps(context.store)
    remember(Overview.of(context))
    assert known_sweeps(context.store) == [before]
    remember(Overview.of(replace(context, task_spec="other.py:task")))
    assert len(known_sweeps(context.store)) == 2  # one for each task


@pytest.mark.parametrize("database", DATABASES)
def test_sweeps_without_a_verdict_are_known_by_their_jobs_and_soups(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = None if database == "sqlite" else request.getfixturevalue("postgres_url")
    store = Store(tmp_path / "shared", url)
    queue = Queue(store)
    assert known_sweeps(store) == []
    started = time.time()
    queue.submit("open", "Open a", {"sweep": "/sweeps/a", "weights": ""})
    queue.submit("geometry", "Look", {"sweep": "/sweeps/b", "task": TASK})
    queue.submit("other", "Of no sweep", {})
    worker = Holder(store.engine, "worker")
    with worker.held():
        job = queue.claim("worker", kinds=["open"])
        assert job is not None
        queue.finish(job, State.DONE, result={"ingredients": 7, "findings": 0})
    worker.leave()
    store.add_soup("1" * 16, "/sweeps/c", {"task": None, "recipe": "uniform"})
    found = {each.folder: each for each in known_sweeps(store)}
    assert {folder: each.ingredients for folder, each in found.items()} == {
        "/sweeps/a": 7, "/sweeps/b": None, "/sweeps/c": None,
    }  # fmt: skip
    assert all(each.verdict is None for each in found.values())
    assert all(abs(each.changed - started) < 600 for each in found.values())
    times = [each.changed for each in known_sweeps(store)]
    assert times == sorted(times, reverse=True)
    store.close()


def test_the_number_of_ingredients_is_that_of_the_job_that_ended_last(tmp_path: Path) -> None:
    store = Store(tmp_path)
    queue = Queue(store)
    for weights in ("", "ema"):
        queue.submit("open", "Open a", {"sweep": "/sweeps/a", "weights": weights})
    worker = Holder(store.engine, "worker")
    with worker.held():
        first, second = queue.claim("worker"), queue.claim("worker")
        assert first is not None
        assert second is not None
        for job, ingredients in ((second, 3), (first, 7)):
            queue.finish(job, State.DONE, result={"ingredients": ingredients, "findings": 0})
            time.sleep(0.01)
    worker.leave()
    assert [each.ingredients for each in known_sweeps(store)] == [7]
    store.close()


def test_a_longer_list_takes_no_more_queries_and_opens_nothing(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = context.store, []
    Queue(store)
    known = verdict_of(Overview.of(context))
    event.listen(store.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    monkeypatch.setattr(Sweep, "from_folder", None)  # no sweep is opened
    counts = []
    for number in range(50):
        each = replace(known, folder=f"/gone/{number}")
        store.add_result(each.key, "verdict", vars(each))
        asked.clear()
        assert len(known_sweeps(store)) == number + 1
        counts.append(len(asked))
    assert set(counts) == {counts[0]}
    assert counts[0] <= 5
