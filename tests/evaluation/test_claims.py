import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from soupcore import ClassificationTask, Evaluator, Mixture, Split, Store, Sweep, interpolate
from soupcore.evaluation import claims
from soupcore.store.leases import Holder
from tests.postgres import DATABASES
from tests.toy import build_model

POINTS = 24


@pytest.fixture
def points(sweep: Sweep) -> list[Mixture]:
    one, other = sweep["run1"].mixture, sweep["run2"].mixture
    return [interpolate(one, other, (index + 1) / 100) for index in range(POINTS)]


class Server:
    """An evaluator with a store of its own on the folder that all share, as of another process."""

    def __init__(self, folder: Path, splits: dict[str, Split], url: str | None = None) -> None:
        self.computed: list[float] = []
        self.pause = 0.0

        def build() -> nn.Module:
            model = build_model()
            model.register_forward_hook(self._count)
            return model

        self.store = Store(folder, url)
        task = ClassificationTask(build, splits, name="toy", version="claims")
        self.evaluator = Evaluator(task, self.store, device="cpu", batch_size=256)

    def _count(self, module: nn.Module, *_: object) -> None:
        self.computed.append(sum(float(p.double().sum()) for p in module.parameters()))
        time.sleep(self.pause)


@pytest.fixture(params=DATABASES)
def servers(
    request: pytest.FixtureRequest, tmp_path: Path, splits: dict[str, Split]
) -> Iterator[list[Server]]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = [Server(tmp_path / "shared", splits, url) for _ in range(2)]
    yield made
    for server in made:
        server.store.close()


@contextmanager
def at_once(*calls: object) -> Iterator[None]:
    threads = [threading.Thread(target=call) for call in calls]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(60)


def test_two_evaluators_of_the_same_points_share_them(
    servers: list[Server], points: list[Mixture]
) -> None:
    found: dict[int, list[torch.Tensor]] = {}

    def evaluate(index: int, points: list[Mixture]) -> None:
        evaluations = servers[index].evaluator.evaluate_all(points, "val", keep_outputs=False)
        found[index] = [evaluation.losses for evaluation in evaluations]

    for server in servers:
        server.pause = 0.02
    with at_once(lambda: evaluate(0, points), lambda: evaluate(1, points[::-1])):
        pass
    one, other = (server.computed for server in servers)
    assert len(one) + len(other) == len({*one, *other}) == POINTS
    assert min(len(one), len(other)) >= POINTS // 4
    for here, there in zip(found[0], found[1][::-1], strict=True):
        assert torch.equal(here, there)


def test_a_point_that_another_computes_is_waited_for(
    servers: list[Server], points: list[Mixture]
) -> None:
    first, second = servers
    first.pause = 0.5
    waits: list[tuple[int, int]] = []
    with at_once(lambda: first.evaluator.evaluate(points[0], "val")):
        while not first.computed:
            time.sleep(0.001)
        second.evaluator.evaluate(points[0], "val", on_progress=lambda *told: waits.append(told))
    assert (len(first.computed), len(second.computed)) == (1, 0)
    assert waits[-1] == (100, 100)
    assert (0, 100) in waits


def test_points_of_an_expired_lease_are_taken_over(
    servers: list[Server], points: list[Mixture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_LOOK_EVERY", 0.01)
    first, second = servers
    first.store.holder = Holder(first.store.engine, "dead", lease=0.3)
    place = first.evaluator.task.key, first.evaluator.task.split("val").digest
    held = first.evaluator._claims.batches([points[0].key], place, set(), lambda: None)
    next(held)
    first.store.holder._left.set()  # its process stops: nobody renews the lease
    second.evaluator.evaluate(points[0], "val")
    assert len(second.computed) == 1
    held.close()


def test_released_points_are_free_at_once(servers: list[Server], points: list[Mixture]) -> None:
    first, second = servers

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError) as kept:  # with its traceback, and all frames in it
        first.evaluator.evaluate_all(points, "val", on_progress=stop)
    second.evaluator.evaluate_all(points, "val")
    assert len(second.computed) in (POINTS, POINTS - 1)
    assert kept


def test_two_processes_that_pause_each_others_points_do_not_deadlock(
    servers: list[Server], points: list[Mixture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_NESTED_TIMEOUT", 0.3)
    monkeypatch.setattr(claims, "_LOOK_EVERY", 0.01)
    both_begun = threading.Barrier(2)

    def pause_for(server: Server, mine: Mixture, other: Mixture) -> None:
        def look_at_other(done: int, total: int) -> None:
            if not both_begun.broken and not started:
                started.append(True)
                both_begun.wait(300)
                server.evaluator.evaluate(other, "val")

        started: list[bool] = []
        server.evaluator.evaluate(mine, "val", on_progress=look_at_other)

    one, other = points[:2]
    with at_once(
        lambda: pause_for(servers[0], one, other), lambda: pause_for(servers[1], other, one)
    ):
        pass
    for server in servers:
        assert None not in server.evaluator.stored([one, other], "val")


def test_points_with_outputs_are_computed_while_another_computes_them_without(
    servers: list[Server], points: list[Mixture]
) -> None:
    first, second = servers
    first.pause = 0.3
    with at_once(lambda: first.evaluator.evaluate(points[0], "val", keep_outputs=False)):
        while not first.computed:
            time.sleep(0.001)
        assert second.evaluator.evaluate(points[0], "val").has_outputs
    assert len(second.computed) == 1
