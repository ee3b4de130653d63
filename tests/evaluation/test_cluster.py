"""Evaluation on Ray clusters: one of two nodes on this machine, and one of a single CPU."""

import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import soupcore
from soupcore.connectivity import evaluate_lines
from soupcore.errors import StockpotError, TaskError
from soupcore.evaluation import cluster
from soupcore.jobs import State, Supervisor
from soupcore.mixtures import Mixture, mean
from tests.helpers import State as Weights
from tests.helpers import save_sweep
from tests.jobs.conftest import wait_for, wait_until
from tests.toy import FEATURES, toy_split, write_task

pytestmark = pytest.mark.integration

TASK = """
import os
import time

def build():
    model = build_model()
    def note(module, arguments, output):
        with (HERE / "passes").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        while (HERE / "hold").exists():
            time.sleep(0.01)
        if (HERE / "fail").exists():
            raise ValueError("a layer is missing")
    model.register_forward_hook(note)
    return model

task = ClassificationTask(build, splits)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")  # on a busy machine
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    cluster.connect(made.address)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    return write_task(tmp_path, {"val": toy_split("select", 100)}, TASK)


@pytest.fixture
def distributed(nodes: Any, task_file: Path, tmp_path: Path) -> Iterator[soupcore.Evaluator]:
    task, store = soupcore.load_task(f"{task_file}:task"), soupcore.Store(tmp_path / "there")
    made = soupcore.Evaluator(task, store, device="cpu", ray=nodes.address)
    yield made
    assert isinstance(made._forward_pass, cluster.ClusterPass)
    made._forward_pass.close()
    store.close()


@pytest.fixture
def local(task_file: Path, tmp_path: Path) -> Iterator[soupcore.Evaluator]:
    store = soupcore.Store(tmp_path / "here")
    yield soupcore.Evaluator(soupcore.load_task(f"{task_file}:task"), store, device="cpu")
    store.close()


@pytest.fixture
def points(sweep: soupcore.Sweep) -> list[Mixture]:
    alone = [ingredient.mixture for ingredient in sweep.ingredients.values()]
    return [*alone, mean(alone[:2]), mean(alone[1:]), mean(alone)]


def processes(task_file: Path) -> list[int]:
    log = task_file.with_name("passes")
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_cluster_gives_the_results_of_this_machine_to_the_bit(
    distributed: soupcore.Evaluator,
    local: soupcore.Evaluator,
    sweep: soupcore.Sweep,
    points: list[Mixture],
    task_file: Path,
) -> None:
    hold = task_file.with_name("hold")
    hold.touch()
    seen: list[tuple[int, int]] = []

    def look(done: int, total: int) -> None:
        seen.append((done, total))
        if len(set(processes(task_file))) == 2:
            hold.unlink(missing_ok=True)

    there = distributed.evaluate_all(points, "val", on_progress=look)
    assert os.getpid() not in processes(task_file)
    assert len(set(processes(task_file))) == 2
    assert seen[-1] == (600, 600)
    for found, expected in zip(there, local.evaluate_all(points, "val"), strict=True):
        assert (found.loss, found.score) == (expected.loss, expected.score)
        assert found.losses.equal(expected.losses)
        assert found.outputs.equal(expected.outputs)
    lines = [(points[0], points[1]), (points[1], points[2])]
    paths = [evaluate_lines(lines, each) for each in (distributed, local)]
    assert [path.losses.tolist() for path in paths[0]] == [p.losses.tolist() for p in paths[1]]
    greedy = [soupcore.greedy(sweep, each) for each in (distributed, local)]
    assert greedy[0].id == greedy[1].id
    assert [step.score for step in greedy[0].trace] == [step.score for step in greedy[1].trace]


def test_the_progress_of_an_ensemble_reaches_its_end(
    distributed: soupcore.Evaluator, points: list[Mixture]
) -> None:
    seen: list[tuple[int, int]] = []
    distributed.average_outputs(
        points[:2], "val", on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (200, 200)


def test_stored_results_are_not_computed_again(
    distributed: soupcore.Evaluator, points: list[Mixture], task_file: Path
) -> None:
    first = distributed.evaluate_all(points[:2], "val")
    passes = len(processes(task_file))
    assert [each.loss for each in distributed.evaluate_all(points[:2], "val")] == [
        each.loss for each in first
    ]
    assert len(processes(task_file)) == passes


def test_only_the_chunk_of_a_lost_actor_is_computed_again(
    distributed: soupcore.Evaluator,
    local: soupcore.Evaluator,
    points: list[Mixture],
    task_file: Path,
) -> None:
    hold = task_file.with_name("hold")
    hold.touch()
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if not killed and len(set(processes(task_file))) == 2:
            killed.append(processes(task_file)[0])
            os.kill(killed[0], signal.SIGKILL)
            hold.unlink()

    found = distributed.evaluate_all(points, "val", on_progress=kill_one)
    assert killed
    assert [each.loss for each in found] == [
        each.loss for each in local.evaluate_all(points, "val")
    ]


def test_one_point_is_computed_by_another_actor_if_its_actor_is_lost(
    distributed: soupcore.Evaluator,
    local: soupcore.Evaluator,
    points: list[Mixture],
    task_file: Path,
) -> None:
    distributed.evaluate(points[0], "val")
    expected = local.preview(points[3], "val")
    before = len(processes(task_file))
    hold = task_file.with_name("hold")
    hold.touch()

    def kill(done: int, total: int) -> None:
        if hold.exists() and len(processes(task_file)) > before:
            os.kill(processes(task_file)[-1], signal.SIGKILL)
            hold.unlink()

    found = distributed.preview(points[3], "val", on_progress=kill)
    assert not hold.exists()
    assert (found.loss, found.score) == (expected.loss, expected.score)


def test_only_the_chunk_of_a_lost_node_is_computed_again(
    nodes: Any,
    distributed: soupcore.Evaluator,
    local: soupcore.Evaluator,
    points: list[Mixture],
    task_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold = task_file.with_name("hold")
    hold.touch()
    lost: list[Any] = []
    sizes: list[int] = []
    chunk = cluster.ClusterPass._chunk

    def counted(self: cluster.ClusterPass, left: int) -> int:
        sizes.append(chunk(self, left))
        return sizes[-1]

    monkeypatch.setattr(cluster.ClusterPass, "_chunk", counted)

    def lose_one(done: int, total: int) -> None:
        computing = set(processes(task_file))
        if not lost and len(computing) == 2:
            lost.append(nodes.list_all_nodes()[-1])
            nodes.remove_node(lost[0], allow_graceful=False)
            # An actor outlives its node for a moment, in which it could answer.
            wait_until(lambda: not all(map(runs, computing)))
            hold.unlink()

    try:
        found = distributed.evaluate_all(points, "val", on_progress=lose_one)
    finally:
        nodes.add_node(num_cpus=1)
    assert lost
    assert len(points) < sum(sizes) <= len(points) + 2  # the points that were sent to the node
    assert [each.loss for each in found] == [
        each.loss for each in local.evaluate_all(points, "val")
    ]


def test_cancelling_ends_the_actors_that_compute(
    distributed: soupcore.Evaluator, points: list[Mixture], task_file: Path
) -> None:
    hold = task_file.with_name("hold")
    hold.touch()

    def cancel(done: int, total: int) -> None:
        if len(set(processes(task_file))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distributed.evaluate_all(points, "val", on_progress=cancel)
    hold.unlink()
    before = set(processes(task_file))
    assert len(distributed.evaluate_all(points, "val")) == len(points)
    assert set(processes(task_file)) > before


def test_an_error_of_the_task_is_that_of_a_local_evaluation(
    distributed: soupcore.Evaluator, points: list[Mixture], task_file: Path
) -> None:
    task_file.with_name("fail").touch()
    with pytest.raises(TaskError, match=r"a layer is missing.*It failed at .*task\.py:\d+"):
        distributed.evaluate_all(points, "val")


def test_a_task_made_in_python_is_sent_to_the_nodes(
    nodes: Any, points: list[Mixture], splits: dict[str, soupcore.Split], tmp_path: Path
) -> None:
    def build() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
        )

    task = soupcore.ClassificationTask(build, splits, name="made here")
    evaluator = soupcore.Evaluator(
        task, soupcore.Store(tmp_path / "there"), device="cpu", ray=nodes.address
    )
    with pytest.raises(soupcore.CheckpointError, match="does not fit"):
        evaluator.evaluate_all(points, "val")


def test_a_server_evaluates_on_the_cluster(
    nodes: Any, task_file: Path, sweep: soupcore.Sweep, tmp_path: Path
) -> None:
    store = soupcore.Store(tmp_path / "served")
    supervisor = Supervisor(store, [f"{task_file}:task"], ["cpu"], ray=nodes.address)
    try:
        request = {"sweep": str(tmp_path / "sweep"), "task": f"{task_file}:task"}
        wanted = request | {"names": ["run1", "run2"], "splits": ["val"]}
        job_id = supervisor.submit("evaluate", "Evaluate", wanted)
        job = wait_for(supervisor, job_id, lambda job: not job.is_unfinished)
        workers = supervisor.worker_pids
    finally:
        supervisor.stop()
        store.close()
    assert (job.state, job.result) == (State.DONE, {"evaluations": 2})
    assert processes(task_file)
    assert not set(processes(task_file)) & set(workers)


def test_another_file_under_the_same_name_is_noticed(
    distributed: soupcore.Evaluator, tmp_path: Path, base_state: Weights
) -> None:
    folder = save_sweep(tmp_path / "one", {"a": base_state})
    point = soupcore.Sweep.from_folder(folder)["a"].mixture
    sent = pickle.dumps(point)
    (file,) = folder.glob("a.*")
    os.utime(file, ns=(0, 0))
    with pytest.raises(soupcore.CheckpointError, match="differs from the file of this name"):
        pickle.loads(sent)  # noqa: S301 - just pickled


def test_nodes_need_the_same_versions(
    distributed: soupcore.Evaluator, points: list[Mixture], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cluster.versions() | {"torch": "1.0"}
    monkeypatch.setattr(cluster, "versions", lambda: expected)
    with pytest.raises(StockpotError, match=r"has torch .*, and this machine has 1\.0"):
        distributed.evaluate_all(points, "val")


def test_a_cluster_that_does_not_exist_is_an_error_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, task: soupcore.ClassificationTask
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def fail(**options: Any) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(StockpotError, match=r"'10\.0\.0\.1:6379' cannot be reached.*nobody"):
        cluster.connect("10.0.0.1:6379")
