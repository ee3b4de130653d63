import os
import signal
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import soupcore
from soupcore.jobs import Job, State, Supervisor
from tests.helpers import State as Weights
from tests.helpers import average, same_weights
from tests.jobs.conftest import wait_for

Finished = Callable[[int], Job]
NAMES = ["run1", "run2", "run10"]
BATCHES = 10  # a pass over the split


@pytest.fixture
def request_(folder: str, task_file: Path) -> dict[str, Any]:
    return {"sweep": folder, "task": f"{task_file}:task"}


@pytest.fixture
def paths(request_: dict[str, Any]) -> dict[str, Any]:
    pairs = [list(pair) for pair in combinations(NAMES, 2)]
    return request_ | {"pairs": pairs, "alphas": 11, "splits": ["select"]}


def test_a_sweep_is_read_evaluated_and_made_into_a_soup_whose_weights_are_written(
    supervisor: Supervisor,
    finished: Finished,
    request_: dict[str, Any],
    folder: str,
    states: dict[str, Weights],
    store: soupcore.Store,
) -> None:
    opened = finished(supervisor.submit("open", "Read", {"sweep": folder}))
    assert opened.result == {"ingredients": 3, "findings": 0}
    wanted = request_ | {"names": NAMES, "splits": ["select"]}
    evaluated = finished(supervisor.submit("evaluate", "Evaluate", wanted))
    assert (evaluated.state, evaluated.result) == (State.DONE, {"evaluations": 3})
    recipe = request_ | {"recipe": "uniform", "names": NAMES, "parameters": {}}
    made = finished(supervisor.submit("soup", "Uniform", recipe)).result
    assert made is not None
    written = finished(supervisor.submit("weights", "Write", request_ | made)).result
    row = store.soup(made["soup"])
    assert row is not None
    assert written == made | {"sha256": row.sha256}
    weights = load_file(store.folder / str(row.file))
    assert same_weights(weights, average([states[name] for name in NAMES]))


def test_a_greedy_soup_shows_its_trace(
    supervisor: Supervisor, finished: Finished, request_: dict[str, Any]
) -> None:
    recipe = request_ | {"recipe": "greedy", "names": NAMES, "parameters": {"accept": ">"}}
    job = finished(supervisor.submit("soup", "Greedy", recipe))
    assert job.state == State.DONE
    assert job.partial is not None
    assert {step["candidate"] for step in job.partial["trace"]} == set(NAMES)


def test_a_recipe_that_learns_shows_its_passes_and_leaves_its_best_when_it_is_cancelled(
    supervisor: Supervisor,
    finished: Finished,
    request_: dict[str, Any],
    store: soupcore.Store,
) -> None:
    parameters = {"passes": 100, "held_back": 0.0, "space": "hyperplane", "optimizer": "adamw"}
    recipe = request_ | {"recipe": "learned", "names": NAMES, "parameters": parameters}
    job_id = supervisor.submit("soup", "Learned", recipe)
    wait_for(supervisor, job_id, lambda job: len((job.partial or {}).get("passes", ())) > 2)
    supervisor.queue.cancel(job_id)
    job = finished(job_id)
    assert job.state == State.CANCELLED
    (row,) = store.soups(request_["sweep"])
    assert 2 < len(row.body["passes"]) < 100
    assert row.body["recipe"] == "learned"


def test_a_curve_tells_its_points_and_making_the_one_picked_costs_nothing(
    supervisor: Supervisor,
    finished: Finished,
    request_: dict[str, Any],
    passes_made: Callable[[], int],
    store: soupcore.Store,
) -> None:
    recipe = request_ | {"recipe": "wise_ft", "names": ["run1"], "parameters": {}}
    wanted = {"parameter": "alpha", "values": [0, 0.5, 1], "splits": ["select"]}
    drawn = finished(supervisor.submit("curve", "Curve", recipe | wanted)).result
    assert drawn is not None
    assert store.soups(request_["sweep"]) == []
    assert [point["value"] for point in drawn["points"]] == [0, 0.5, 1]
    scores = {p["value"]: p["scores"]["select"]["score"] for p in drawn["points"]}
    assert scores[drawn["best"]] == max(scores.values())
    made_before = passes_made()
    finished(supervisor.submit("soup", "Pick", recipe | {"parameters": {"alpha": drawn["best"]}}))
    assert passes_made() == made_before
    (row,) = store.soups(request_["sweep"])
    assert row.body["scores"]["select"]["score"] == max(scores.values())


def test_a_cancelled_job_keeps_what_was_computed_and_resumes_with_the_rest(
    supervisor: Supervisor,
    finished: Finished,
    paths: dict[str, Any],
    passes_made: Callable[[], int],
) -> None:
    job_id = supervisor.submit("paths", "Paths", paths)
    wait_for(supervisor, job_id, lambda job: job.done > 5 * 2560)
    supervisor.queue.cancel(job_id)
    started = time.monotonic()
    assert finished(job_id).state == State.CANCELLED
    assert time.monotonic() - started < 2
    supervisor.resume(job_id)
    assert finished(job_id).state == State.DONE
    points = 3 + 3 * 9
    assert points * BATCHES <= passes_made() <= (points + 1) * BATCHES


def test_a_killed_worker_loses_only_the_evaluation_it_was_in(
    supervisor: Supervisor,
    finished: Finished,
    paths: dict[str, Any],
    passes_made: Callable[[], int],
) -> None:
    job_id = supervisor.submit("paths", "Paths", paths)
    for evaluations in (3, 9, 15):
        wait_for(supervisor, job_id, lambda job, n=evaluations: job.done > n * 2560)  # type: ignore[misc]
        assert supervisor.worker_pid is not None
        os.kill(supervisor.worker_pid, signal.SIGKILL)
        failed = finished(job_id)
        assert failed.state == State.FAILED
        assert "resume" in str(failed.error)
        supervisor.resume(job_id)
    assert finished(job_id).state == State.DONE
    points = 3 + 3 * 9
    assert points * BATCHES <= passes_made() <= (points + 3) * BATCHES


def test_a_stopped_server_leaves_a_job_that_can_be_resumed(
    supervisor: Supervisor, finished: Finished, paths: dict[str, Any]
) -> None:
    job_id = supervisor.submit("paths", "Paths", paths)
    wait_for(supervisor, job_id, lambda job: job.done > 0)
    supervisor.stop()
    job = supervisor.queue.get(job_id)
    assert job is not None
    assert (job.state, supervisor.worker_pid) == (State.FAILED, None)
    supervisor.resume(job_id)
    assert finished(job_id).state == State.DONE


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("evaluate", {"names": ["nobody"], "splits": ["select"]}, "no ingredient 'nobody'"),
        ("evaluate", {"names": NAMES, "splits": ["nowhere"]}, "no split 'nowhere'"),
        ("evaluate", {"task": "/etc/other.py:task", "names": [], "splits": []}, "not among those"),
        ("open", {"sweep": "/nowhere"}, "/nowhere is not a folder"),
        ("soup", {"recipe": "magic", "names": NAMES, "parameters": {}}, "no recipe 'magic'"),
        ("soup", {"recipe": "ties", "names": NAMES, "parameters": {"x": 1}}, "no parameter 'x'"),
        ("weights", {"soup": "gone"}, "no soup 'gone'"),
    ],
)
def test_a_request_that_cannot_be_met_fails_in_words(
    supervisor: Supervisor,
    finished: Finished,
    request_: dict[str, Any],
    kind: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    job = finished(supervisor.submit(kind, "", request_ | changes))
    assert job.state == State.FAILED
    assert words in str(job.error)


def test_what_a_users_task_raises_ends_the_job_and_not_the_worker(
    supervisor: Supervisor, finished: Finished, request_: dict[str, Any], task_file: Path
) -> None:
    wanted = request_ | {"names": NAMES, "splits": ["select"]}
    failed = finished(supervisor.submit("evaluate", "", wanted | {"task": f"{task_file}:failing"}))
    assert "ZeroDivisionError" in str(failed.error)
    assert "worker.log" in str(failed.error)
    worker = supervisor.worker_pid
    assert finished(supervisor.submit("evaluate", "", wanted)).state == State.DONE
    assert supervisor.worker_pid == worker


def test_the_worker_ends_when_its_server_is_gone(
    supervisor: Supervisor, finished: Finished, folder: str
) -> None:
    finished(supervisor.submit("open", "Read", {"sweep": folder}))
    process = supervisor._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0


def test_numbers_of_a_job_are_those_of_the_library(
    supervisor: Supervisor,
    finished: Finished,
    request_: dict[str, Any],
    folder: str,
    store: soupcore.Store,
    tmp_path: Path,
) -> None:
    finished(supervisor.submit("evaluate", "", request_ | {"names": NAMES, "splits": ["select"]}))
    sweep = soupcore.Sweep.from_folder(folder)
    task = soupcore.load_task(request_["task"])
    own = soupcore.Evaluator(task, soupcore.Store(tmp_path / "own"), device="cpu")
    theirs = soupcore.Evaluator(task, store, device="cpu")
    for name in NAMES:
        point = sweep[name].mixture
        (stored,) = theirs.stored([point], "select")
        assert stored is not None
        torch.testing.assert_close(stored.losses, own.evaluate(point, "select").losses)
    own.store.close()
