from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

import soupcore
from soupcore.calls import Context, ParameterCurve
from soupcore.connectivity.path import grid
from soupcore.evaluation import Evaluations
from soupcore.jobs import State, Supervisor
from soupcore.mixtures import interpolate
from soupcore.writers.forms import Form
from tests.helpers import State as Weights
from tests.helpers import average, same_weights
from tests.jobs.conftest import BATCHES, NAMES, POINTS, Finished, wait_for
from tests.jobs.forks import ForkingSupervisor, Forks


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
    expected = average([states[name] for name in NAMES])
    for form in (Form(), Form(shard_size=200), Form(dtype="float16")):
        asked = request_ | made | {"form": form.to_json()}
        written = finished(supervisor.submit("weights", "Write", asked))
        files = store.soup_files(made["soup"], form.key)
        names = [file.name for file in files]
        assert written.result == {"soup": made["soup"], "files": names}
        assert (written.done, written.total) == (written.total, written.total)
        where = store.soup_folder(made["soup"], form.key)
        for file in files:
            content = (where / file.name).read_bytes()
            assert (file.sha256, file.nbytes) == (sha256(content).hexdigest(), len(content))
        dtype = torch.float16 if form.dtype else torch.float32
        assert same_weights(
            soupcore.open_checkpoint(where).state_dict(),
            {n: t.to(dtype) if t.is_floating_point() else t for n, t in expected.items()},
        )


def test_a_greedy_soup_shows_its_trace(
    supervisor: Supervisor, finished: Finished, request_: dict[str, Any]
) -> None:
    recipe = request_ | {"recipe": "greedy", "names": NAMES, "parameters": {"accept": ">"}}
    job = finished(supervisor.submit("soup", "Greedy", recipe))
    assert job.state == State.DONE
    assert job.partial is not None
    assert {step["candidate"] for step in job.partial["trace"]} == set(NAMES)


def test_a_learned_soup_shows_its_passes_and_keeps_the_best_when_cancelled(
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
    assert (job.partial or {}).get("soup") == row.id


def test_a_curve_lists_its_points_and_building_one_needs_no_pass(
    supervisor: Supervisor,
    finished: Finished,
    request_: dict[str, Any],
    passes_made: Callable[[], int],
    store: soupcore.Store,
) -> None:
    recipe = request_ | {"recipe": "wise_ft", "names": ["run1"], "parameters": {}}
    wanted = {"parameter": "alpha", "values": [0, 0.5, 1], "splits": ["select"]}
    assert finished(supervisor.submit("curve", "Curve", recipe | wanted)).state == State.DONE
    evaluations = Evaluations(soupcore.load_task(request_["task"]).describe(), store)
    context = Context(soupcore.Sweep.from_folder(request_["sweep"]), evaluations)
    drawn = ParameterCurve.from_request(recipe | wanted).result(context)
    assert drawn is not None
    assert store.soups(request_["sweep"]) == []
    assert [point["value"] for point in drawn["points"]] == [0, 0.5, 1]
    scores = {p["value"]: p["scores"]["select"]["score"] for p in drawn["points"]}
    assert scores[drawn["best"]] == max(scores.values())
    promised, delivered = (drawn["cross_fit"][name] for name in ("promised", "delivered"))
    assert promised >= delivered
    assert abs(delivered - max(scores.values())) < 0.05
    made_before = passes_made()
    finished(supervisor.submit("soup", "Pick", recipe | {"parameters": {"alpha": drawn["best"]}}))
    assert passes_made() == made_before
    (row,) = store.soups(request_["sweep"])
    assert row.body["scores"]["select"]["score"] == max(scores.values())


def test_a_cancelled_job_keeps_its_results_and_resumes(
    supervisor: Supervisor,
    finished: Finished,
    paths: dict[str, Any],
    passes_made: Callable[[], int],
) -> None:
    job_id = supervisor.submit("paths", "Paths", paths)
    wait_for(supervisor, job_id, lambda job: job.done > 5 * 2560)
    workers = supervisor.worker_pids
    supervisor.queue.cancel(job_id)
    assert finished(job_id).state == State.CANCELLED
    assert supervisor.worker_pids == workers  # it was not killed
    supervisor.resume(job_id)
    assert finished(job_id).state == State.DONE
    assert POINTS * BATCHES <= passes_made() <= (POINTS + 1) * BATCHES


# One after the other, so that the worker has to outlive each.
REQUESTS: list[tuple[str, dict[str, Any], str]] = [
    ("evaluate", {"names": ["nobody"], "splits": ["select"]}, "no usable ingredient 'nobody'"),
    ("evaluate", {"names": NAMES, "splits": ["nowhere"]}, "no split 'nowhere'"),
    ("geometry", {"sweep": "/nowhere"}, "/nowhere is not a folder"),
    ("soup", {"recipe": "magic", "names": NAMES, "parameters": {}}, "no recipe 'magic'"),
    ("soup", {"recipe": "ties", "names": NAMES, "parameters": {"x": 1}}, "no parameter 'x'"),
    ("weights", {"soup": "gone", "form": {}}, "no soup 'gone'"),
    ("weights", {"soup": "of another version"}, "(weights) lacks form. Another version of"),
]


def test_impossible_requests_fail_with_a_sentence(
    supervisor: Supervisor, finished: Finished, request_: dict[str, Any]
) -> None:
    jobs = [
        finished(supervisor.submit(kind, "", request_ | changes)) for kind, changes, _ in REQUESTS
    ]
    for job, (_, _, words) in zip(jobs, REQUESTS, strict=True):
        assert job.state == State.FAILED
        assert words in str(job.error)
    assert len({job.worker for job in jobs}) == 1


def test_interactive_jobs_overtake_a_long_job_and_do_not_change_its_results(
    supervisor: Supervisor,
    finished: Finished,
    request_: dict[str, Any],
    paths: dict[str, Any],
    folder: str,
    store: soupcore.Store,
    tmp_path: Path,
) -> None:
    long = supervisor.submit("paths", "Paths", paths)
    wait_for(supervisor, long, lambda job: job.done > 2560)
    slider = request_ | {"coefficients": {"run1": "1/3", "run2": "2/3"}, "splits": ["select"]}
    assert finished(supervisor.submit("mixture", "", slider | {"keep": False})).state == State.DONE
    line = request_ | {"pairs": [["run1", "run2"]], "alphas": 5, "splits": ["select"]}
    assert finished(supervisor.submit("line", "", line)).state == State.DONE
    assert long in [job.id for job in supervisor.queue.unfinished("paths")]
    assert finished(long).state == State.DONE

    sweep = soupcore.Sweep.from_folder(folder)
    task = soupcore.load_task(request_["task"])
    own = soupcore.Evaluator(task, soupcore.Store(tmp_path / "own"), device="cpu")
    theirs = soupcore.Evaluator(task, store, device="cpu")
    for a, b in paths["pairs"]:
        points = [interpolate(sweep[a].mixture, sweep[b].mixture, alpha) for alpha in grid(11)]
        for known in theirs.stored(points, "select"):
            assert known is not None
        computed = own.evaluate_all(points, "select", keep_outputs=False)
        for one, other in zip(theirs.stored(points, "select"), computed, strict=True):
            torch.testing.assert_close(one.losses, other.losses)  # type: ignore[union-attr]
    own.store.close()


def test_an_exception_of_a_task_ends_the_job_and_not_the_worker(
    supervisor: Supervisor, finished: Finished, request_: dict[str, Any], task_file: Path
) -> None:
    wanted = request_ | {"names": NAMES, "splits": ["select"]}
    failed = finished(supervisor.submit("evaluate", "", wanted | {"task": f"{task_file}:failing"}))
    assert "ZeroDivisionError" in str(failed.error)
    workers = supervisor.worker_pids
    again = wanted | {"task": f"{task_file}:failing", "names": NAMES[:1]}
    assert finished(supervisor.submit("evaluate", "", again)).state == State.FAILED
    assert supervisor.worker_pids == workers


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


@pytest.mark.parametrize("kind", ["evaluate", "paths", "analyze"])
def test_the_points_of_one_job_are_shared_between_the_workers_of_its_task(
    store: soupcore.Store,
    task_file: Path,
    worker_forks: Forks,
    paths: dict[str, Any],
    passes_made: Callable[[], int],
    kind: str,
) -> None:
    ForkingSupervisor.forks = worker_forks
    task = f"{task_file}:{'few_together' if kind == 'analyze' else 'together'}"
    supervisor = ForkingSupervisor(store, [task], devices=["cpu", "cpu:0"])
    try:
        supervisor.start()
        request = paths | {"task": task}
        if kind == "evaluate":
            request["names"] = NAMES
        job_id = supervisor.submit(kind, "Shared", request)
        job = wait_for(supervisor, job_id, lambda job: not job.is_unfinished)
    finally:
        supervisor.stop()
    assert job.state == State.DONE, job.error
    lines = task_file.with_name("passes").read_text().splitlines()
    assert len({line.split()[1] for line in lines}) == 2
    if kind != "analyze":
        assert passes_made() == BATCHES * {"evaluate": 3, "paths": POINTS}[kind]
