import pytest

from soupcore.jobs import Job, Queue, State
from soupcore.jobs.queue import INTERACTIVE, overtaking


def test_a_job_that_is_asked_for_twice_is_done_once(queue: Queue) -> None:
    first = queue.submit("evaluate", "Evaluate", {"names": ["a"]})
    assert queue.submit("evaluate", "Evaluate", {"names": ["a"]}) == first
    assert queue.submit("evaluate", "Evaluate", {"names": ["b"]}) != first
    queue.cancel(first)
    assert queue.submit("evaluate", "Evaluate", {"names": ["a"]}) != first


def test_no_two_workers_get_the_same_job_and_the_oldest_goes_first(queue: Queue) -> None:
    ids = [queue.submit("evaluate", "", {"n": n}) for n in range(3)]
    taken = [queue.claim("one"), queue.claim("two"), queue.claim("one"), queue.claim("two")]
    assert [job.id if job else None for job in taken] == [*ids, None]


def test_what_someone_waits_for_goes_first(queue: Queue) -> None:
    kinds = ["paths", "evaluate", "mixture", "open", "mixture"]
    ids = [queue.submit(kind, "", {"n": n}) for n, kind in enumerate(kinds)]
    urgent = [queue.claim("one", INTERACTIVE) for _ in range(2)]
    assert [job.id if job else None for job in urgent] == [ids[2], ids[3]]
    rest = [queue.claim("one") for _ in range(3)]
    assert [job.id if job else None for job in rest] == [ids[4], ids[0], ids[1]]
    assert queue.claim("one", INTERACTIVE) is None


def test_what_was_clicked_goes_before_what_is_long_and_after_what_someone_waits_for(
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


def test_long_jobs_stay_in_sight_whatever_is_looked_at_meanwhile(queue: Queue) -> None:
    running, stopped = (queue.submit("paths", "", {"n": n}) for n in range(2))
    queue.claim("one")
    queue.cancel(stopped)
    looks = []
    for n in range(9):
        looks.append(queue.submit("mixture", "", {"n": n}))
        queue.claim("two", INTERACTIVE)
        queue.finish(looks[-1], State.DONE)
    assert [job.id for job in queue.overview(4)] == [*looks[:-4:-1], stopped, running]
    waiting = queue.submit("paths", "", {"n": 3})
    assert next(job.id for job in queue.overview(4)) == waiting


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_is_asked_to_stop(
    queue: Queue,
) -> None:
    running, waiting = (queue.submit("evaluate", "", {"n": n}) for n in range(2))
    queue.claim("one")
    queue.cancel(running)
    queue.cancel(waiting)
    assert state(queue, running) == State.CANCELLING
    assert state(queue, waiting) == State.CANCELLED
    assert queue.report(running, 1, 2, None) is State.CANCELLING


def test_a_job_whose_worker_is_gone_has_failed_and_can_be_resumed(queue: Queue) -> None:
    abandoned, cancelled, alive = (queue.submit("evaluate", "", {"n": n}) for n in range(3))
    queue.claim("gone")
    queue.claim("gone")
    queue.cancel(cancelled)
    lock = queue.worker_lock("here")
    queue.claim("here")
    queue.fail_abandoned()
    assert lock
    assert state(queue, abandoned) == State.FAILED
    assert state(queue, cancelled) == State.CANCELLED
    assert state(queue, alive) == State.RUNNING
    queue.resume(abandoned)
    queue.resume(alive)
    assert state(queue, abandoned) == State.QUEUED
    assert state(queue, alive) == State.RUNNING


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "left"),
    [(0, 10, 5, None), (5, 10, 5, 5), (1, 4, 10, 30), (10, 10, 5, None), (0, 0, 5, None)],
)
def test_the_time_left_follows_the_pace_so_far(
    done: int, total: int, elapsed: float, left: float | None
) -> None:
    job = Job(done=done, total=total, started=1000.0)
    assert job.seconds_left(1000.0 + elapsed) == left


def state(queue: Queue, job_id: int) -> str:
    job = queue.get(job_id)
    assert job is not None
    return job.state
