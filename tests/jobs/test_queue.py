import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from soupcore import Store
from soupcore.jobs import Job, Queue, State
from soupcore.jobs.job import INTERACTIVE, overtaking
from soupcore.jobs.queue import Counts, LostJobError
from soupcore.store.leases import Holder
from tests.postgres import DATABASES


@pytest.fixture(autouse=True)
def workers(store: Store) -> Iterator[None]:
    """Two workers, which hold leases."""
    one, two = (Holder(store.engine, name) for name in ("one", "two"))
    with one.held(), two.held():
        yield
    one.leave()
    two.leave()


def claim(queue: Queue, worker: str = "one") -> Job:
    job = queue.claim(worker)
    assert job is not None
    return job


def test_a_job_that_is_submitted_twice_runs_once(queue: Queue) -> None:
    first = queue.submit("evaluate", "Evaluate", {"names": ["a"]})
    assert queue.submit("evaluate", "Evaluate", {"names": ["a"]}) == first
    assert queue.submit("evaluate", "Evaluate", {"names": ["b"]}) != first
    queue.cancel(first)
    second = queue.submit("evaluate", "Evaluate", {"names": ["a"]})
    assert second != first
    assert queue.resume(first) == second
    assert [state(queue, job) for job in (first, second)] == [State.CANCELLED, State.QUEUED]


@pytest.fixture(params=DATABASES)
def any_url(request: pytest.FixtureRequest) -> str | None:
    """The URL of an empty database; None for the SQLite of a folder."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return url


def test_equal_jobs_that_many_submit_at_the_same_moment_are_one(
    any_url: str | None, tmp_path: Path
) -> None:
    stores = [Store(tmp_path / "shared", any_url) for _ in range(6)]
    queues = [Queue(store) for store in stores]
    start = threading.Barrier(len(queues))
    ids: list[list[int]] = [[] for _ in range(5)]

    def submit(queue: Queue) -> None:
        for number, found in enumerate(ids):
            start.wait(300)
            found.append(queue.submit("evaluate", "", {"names": ["n" * 3000], "n": number}))

    threads = [threading.Thread(target=submit, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(len(found), len(set(found))) for found in ids] == [(6, 1)] * 5
    for store in stores:
        store.close()


def test_no_two_workers_get_the_same_job_and_the_oldest_goes_first(queue: Queue) -> None:
    ids = [queue.submit("evaluate", "", {"n": n}) for n in range(3)]
    taken = [queue.claim("one"), queue.claim("two"), queue.claim("one"), queue.claim("two")]
    assert [job.id if job else None for job in taken] == [*ids, None]


def test_a_worker_takes_the_jobs_of_its_task_only(queue: Queue) -> None:
    a, none, b = (queue.submit("evaluate", "", task) for task in ({"task": "a"}, {}, {"task": "b"}))
    taken = [queue.claim("one", task=task) for task in ("b", None, "a", "c", "b", None)]
    assert [job.id if job else None for job in taken] == [b, none, a, None, None, None]


def test_a_worker_leaves_jobs_that_it_cannot_run_to_others(queue: Queue) -> None:
    ids = [queue.submit("open", "", {"sweep": folder}) for folder in ("/a", "/b", "/a/c")]

    def below_b(request: Mapping[str, Any]) -> bool:
        return str(request["sweep"]).startswith("/b")

    taken = [queue.claim("one", accepts=below_b), queue.claim("one", accepts=below_b)]
    assert [job.id if job else None for job in taken] == [ids[1], None]
    rest = [queue.claim("two"), queue.claim("two")]
    assert [job.id if job else None for job in rest] == [ids[0], ids[2]]


def test_a_worker_without_a_lease_gets_nothing(queue: Queue) -> None:
    queue.submit("evaluate", "", {})
    assert queue.claim("nobody") is None


def test_interactive_jobs_go_first(queue: Queue) -> None:
    kinds = ["paths", "evaluate", "mixture", "open", "mixture"]
    ids = [queue.submit(kind, "", {"n": n}) for n, kind in enumerate(kinds)]
    urgent = [queue.claim("one", INTERACTIVE) for _ in range(2)]
    assert [job.id if job else None for job in urgent] == [ids[2], ids[3]]
    rest = [queue.claim("one") for _ in range(3)]
    assert [job.id if job else None for job in rest] == [ids[4], ids[0], ids[1]]
    assert queue.claim("one", INTERACTIVE) is None


def test_clicked_jobs_go_between_interactive_and_long_ones(
    queue: Queue,
) -> None:
    long, line, slider = (queue.submit(kind, "", {}) for kind in ("paths", "line", "mixture"))
    assert queue.claim("one", overtaking("mixture")) is None
    assert [job.id if job else None for job in (queue.claim("one") for _ in range(3))] == [
        slider, line, long,
    ]  # fmt: skip
    assert "mixture" in overtaking("line")
    assert "line" not in overtaking("line")
    assert {"mixture", "line"} < {*overtaking("paths")}


def test_interactive_jobs_do_not_displace_long_jobs_from_the_list(queue: Queue) -> None:
    running, stopped = (queue.submit("paths", "", {"n": n}) for n in range(2))
    queue.claim("one")
    queue.cancel(stopped)
    looks = []
    for n in range(9):
        looks.append(queue.submit("mixture", "", {"n": n}))
        queue.finish(claim(queue, "two"), State.DONE)
    assert [job.id for job in queue.overview(4)] == [*looks[:-4:-1], stopped, running]
    waiting = queue.submit("paths", "", {"n": 3})
    assert next(job.id for job in queue.overview(4)) == waiting


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_is_asked_to_stop(
    queue: Queue,
) -> None:
    running, waiting = (queue.submit("evaluate", "", {"n": n}) for n in range(2))
    job = claim(queue)
    queue.cancel(running)
    queue.cancel(waiting)
    assert state(queue, running) == State.CANCELLING
    assert state(queue, waiting) == State.CANCELLED
    assert queue.report(job, 1, 2, None) is State.CANCELLING


def test_a_job_whose_worker_is_gone_has_failed_and_can_be_resumed(
    queue: Queue, store: Store
) -> None:
    abandoned, alive = (queue.submit("evaluate", "", {"n": n}) for n in range(2))
    gone = Holder(store.engine, "gone", lease=0.01)
    with gone.held():
        claim(queue, "gone")
    claim(queue)
    while state(queue, abandoned) == State.RUNNING:  # its lease is not renewed any more
        queue.fail_abandoned()
    assert state(queue, abandoned) == State.FAILED
    assert state(queue, alive) == State.RUNNING
    for job in (abandoned, alive):
        queue.resume(job)
    assert state(queue, abandoned) == State.QUEUED
    assert state(queue, alive) == State.RUNNING


def test_writes_of_a_worker_that_lost_its_job_are_refused(queue: Queue) -> None:
    job_id = queue.submit("evaluate", "", {})
    slow = claim(queue, "one")
    queue.report(slow, 1, 4, {"by": "one"})
    queue.abandon("one")
    with pytest.raises(LostJobError):
        queue.report(slow, 2, 4, {"by": "one"})
    queue.resume(job_id)
    other = claim(queue, "two")
    queue.report(other, 3, 4, {"by": "two"})
    with pytest.raises(LostJobError):
        queue.report(slow, 4, 4, {"by": "one"})
    assert not queue.finish(slow, State.FAILED, error="late")
    job = queue.get(job_id)
    assert job is not None
    assert (job.state, job.done, job.partial, job.error) == (State.RUNNING, 3, {"by": "two"}, None)
    assert queue.finish(other, State.DONE, result={})


def test_a_worker_that_reclaims_a_job_cannot_write_with_its_old_claim(
    queue: Queue,
) -> None:
    queue.submit("evaluate", "", {})
    before = claim(queue)
    queue.give_back(before)
    claim(queue)
    with pytest.raises(LostJobError):
        queue.report(before, 1, 2, None)


def test_the_last_job_of_a_worker_that_ended_fails_and_interrupted_ones_are_queued(
    queue: Queue,
) -> None:
    aside, cancelled, at = (queue.submit("evaluate", "", {"n": n}) for n in range(3))
    for _ in range(3):
        claim(queue)
    queue.cancel(cancelled)
    queue.abandon("one", "It crashed.")
    assert [state(queue, job) for job in (aside, cancelled, at)] == [
        State.QUEUED, State.CANCELLED, State.FAILED,
    ]  # fmt: skip
    job = queue.get(at)
    assert job is not None
    assert str(job.error).startswith("It crashed. Finished evaluations are stored")


def test_a_job_is_asked_to_stop_at_its_deadline(queue: Queue) -> None:
    queue.submit("evaluate", "", {"n": 0}, deadline_s=0)
    job = claim(queue)
    while not (standing := queue.standing()[0]).is_overdue:
        pass
    queue.stop_overdue(standing)
    assert queue.report(job, 1, 2, None) is State.CANCELLING
    queue.finish(job, State.CANCELLED)
    ended = queue.get(job.id)
    assert ended is not None
    assert "deadline" in str(ended.error)


@pytest.mark.parametrize(
    ("words", "start"),
    [("caf\udce9.png", "caf\\udce9"), ("a\0b", "a\\x00b"), ("x" * 100_000, "xxx")],
    ids=["half a character", "zero", "long"],
)
def test_texts_that_no_database_stores_are_escaped_and_shortened(
    any_url: str | None, tmp_path: Path, words: str, start: str
) -> None:
    shared = Store(tmp_path / "shared", any_url)
    queue, task = Queue(shared), words[:50]
    with shared.holder.held():
        job_id = queue.submit("evaluate", words, {"task": task})
        assert queue.submit("evaluate", words, {"task": task}) == job_id
        job = queue.claim(shared.holder.name, task=task)
        assert job is not None
        queue.report(job, 1, 2, {"words": words})
        queue.finish(job, State.FAILED, error=words)
    ended = queue.get(job_id)
    assert ended is not None
    assert str(ended.error).startswith(start)
    assert len(str(ended.error)) < 20_000
    shared.close()


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "left"),
    [(0, 10, 5, None), (5, 10, 5, 5), (1, 4, 10, 30), (10, 10, 5, None), (0, 0, 5, None)],
)
def test_the_remaining_time_is_estimated_from_the_average_speed(
    done: int, total: int, elapsed: float, left: float | None
) -> None:
    job = Job(done=done, total=total, started=1000.0)
    assert job.seconds_left(1000.0 + elapsed) == left


def state(queue: Queue, job_id: int) -> str:
    job = queue.get(job_id)
    assert job is not None
    return job.state


# The table as it was before jobs were held by leases.
OLD_JOBS = """
CREATE TABLE jobs (
    id INTEGER NOT NULL PRIMARY KEY, kind VARCHAR NOT NULL, title VARCHAR NOT NULL,
    request JSON NOT NULL, fingerprint VARCHAR NOT NULL, state VARCHAR NOT NULL,
    done INTEGER NOT NULL, total INTEGER NOT NULL, partial JSON, result JSON, error VARCHAR,
    worker VARCHAR, created FLOAT NOT NULL, started FLOAT, finished FLOAT);
CREATE INDEX ix_jobs_fingerprint ON jobs (fingerprint);
CREATE INDEX ix_jobs_state ON jobs (state)
"""


def test_jobs_of_an_earlier_version_are_kept_and_of_equal_ones_the_newest_waits(
    any_url: str | None, tmp_path: Path
) -> None:
    engine = create_engine(any_url or f"sqlite:///{tmp_path / 'stockpot.sqlite'}")
    with engine.begin() as connection:
        for statement in OLD_JOBS.split(";"):
            connection.exec_driver_sql(statement)
        for job_id, state_then in enumerate(["done", "failed", "queued", "queued", "running"], 1):
            connection.execute(
                text(
                    "INSERT INTO jobs VALUES (:id, 'evaluate', '', :request, 'old', :state, "
                    "1, 2, NULL, NULL, NULL, 'gone', 1.0, 1.0, NULL)"
                ),
                {
                    "id": job_id,
                    "state": state_then,
                    "request": '{"n": 1, "task": "a.py:task"}' if job_id < 5 else '{"n": 2}',
                },
            )
    engine.dispose()
    shared = Store(tmp_path, any_url)
    queue = Queue(shared)
    states = [state(queue, job_id) for job_id in range(1, 6)]
    assert states == ["done", "failed", "cancelled", "queued", "running"]
    assert queue.submit("evaluate", "", {"task": "a.py:task", "n": 1}) == 4
    queue.fail_abandoned()
    assert state(queue, 5) == State.FAILED
    queue.resume(5)
    with shared.holder.held():
        taken = [queue.claim(shared.holder.name, task=task) for task in ("a.py:task", None)]
    assert [job.id if job else None for job in taken] == [4, 5]
    shared.close()


def test_jobs_are_counted_until_failed_ones_are_dismissed(queue: Queue) -> None:
    running, waiting, failing, cancelled = (
        queue.submit("evaluate", "", {"n": n}) for n in range(4)
    )
    assert claim(queue).id == running
    queue.cancel(cancelled)
    queue.fail_waiting(None, "It broke.")
    waiting = queue.resume(waiting)
    assert queue.counts() == Counts(running=1, queued=1, failed=1)
    assert queue.counts().active == 2
    for job in (running, waiting, failing, cancelled):
        queue.dismiss(job)
    assert queue.counts() == Counts(running=1, queued=1, failed=0)
    assert [job.id for job in queue.overview()] == [waiting, running]
    again = queue.resume(failing)
    assert again == failing
    assert queue.counts() == Counts(running=1, queued=2, failed=0)
    queue.fail_waiting(None, "It broke again.")
    assert failing in [job.id for job in queue.overview()]  # the second failure is shown


def test_the_latest_job_of_a_request_is_found_in_any_state(queue: Queue) -> None:
    request = {"names": ["a"]}
    assert queue.latest("evaluate", request) is None
    first = queue.submit("evaluate", "", request)
    queue.cancel(first)
    assert (found := queue.latest("evaluate", request)) is not None
    assert (found.id, found.state) == (first, State.CANCELLED)
    second = queue.submit("evaluate", "", request)
    queue.submit("evaluate", "", {"names": ["b"]})
    assert (found := queue.latest("evaluate", request)) is not None
    assert (found.id, found.state) == (second, State.QUEUED)
