import itertools
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import event, text

from soupcore import Store
from soupcore.new_files import new_file
from soupcore.store import NewEvaluation
from soupcore.store.evaluations import file_of

# Processes forked from one that has imported torch, which takes most of the time of a process.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload([__name__])


def add(store: Store, point: str, **changes: Any) -> None:
    found: dict[str, Any] = {
        "loss": 0.5,
        "score": 0.75,
        "score_interval": (0.6, 0.9),
        "seconds": 1.5,
        "arrays": {"losses": torch.tensor([0.25, 0.75]), "scores": torch.tensor([1.0, 0.0])},
    }
    store.add_evaluations([NewEvaluation(point, "task", "split", **(found | changes))])


def losses_of(store: Store, point: str) -> list[float]:
    row = store.evaluations([point], "task", "split")[point]
    values: list[float] = load_file(store.folder / row.arrays)["losses"].tolist()
    return values


def test_evaluations_are_kept_after_reopening(tmp_path: Path) -> None:
    first = Store(tmp_path)
    add(first, "a")
    first.close()
    store = Store(tmp_path)
    row = store.evaluations(["a", "b"], "task", "split")["a"]
    assert (row.n, row.loss, row.score, row.score_low, row.score_high) == (2, 0.5, 0.75, 0.6, 0.9)
    assert (row.seconds, row.has_outputs) == (1.5, False)
    assert losses_of(store, "a") == [0.25, 0.75]
    assert store.evaluations(["b"], "task", "split") == {}


def test_a_store_is_in_the_workspace_by_default(workspace: Path) -> None:
    store = Store()
    add(store, "a")
    assert store.folder == workspace.resolve()
    assert (workspace / "stockpot.sqlite").is_file()


@pytest.mark.parametrize(
    ("task", "split"), [("task", "other"), ("other", "split"), ("split", "task")]
)
def test_an_evaluation_is_of_one_task_and_one_split(store: Store, task: str, split: str) -> None:
    add(store, "a")
    assert store.evaluations(["a"], task, split) == {}


def test_adding_an_evaluation_again_replaces_it(store: Store) -> None:
    new = {"losses": torch.tensor([2.0, 4.0])}
    full = new | {"outputs": torch.ones(2, 3)}
    add(store, "a")
    for arrays in (new, full, full):
        add(store, "a", loss=3.0, arrays=arrays)
        row = store.evaluations(["a"], "task", "split")["a"]
        assert (row.loss, row.has_outputs) == (3.0, "outputs" in arrays)
        assert losses_of(store, "a") == [2, 4]
    files = [*(store.folder / "arrays").rglob("*.*")]
    assert len(files) == 4  # those replaced are left to `soupcore.maintenance`


def test_rows_that_another_process_inserts_in_the_meantime_are_replaced(
    store: Store,
) -> None:
    other = Store(store.folder)

    @event.listens_for(store.engine, "before_cursor_execute")
    def intrude(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("INSERT") and not other.evaluations(["a"], "task", "split"):
            add(other, "a", loss=1.0)

    add(store, "a", loss=2.0)
    assert other.evaluations(["a"], "task", "split")["a"].loss == 2.0
    other.close()


def test_more_points_than_one_query_takes_are_found(store: Store) -> None:
    wanted = [str(number) for number in range(1200)]
    for point in ("0", "499", "500", "501", "1199"):
        add(store, point)
    found = store.evaluations(wanted, "task", "split")
    assert sorted(found) == ["0", "1199", "499", "500", "501"]
    assert store.evaluations([], "task", "split") == {}


@pytest.mark.parametrize(
    ("value", "interval", "kept"),
    [
        (math.nan, (math.nan, math.nan), (None, None, None, None)),
        (math.inf, (math.nan, math.nan), (None, None, None, None)),
        (-math.inf, (math.nan, math.nan), (None, None, None, None)),
        (0.5, (-math.inf, math.inf), (0.5, 0.5, -math.inf, math.inf)),
    ],
)
def test_values_that_are_not_finite_are_kept_as_none_but_for_ends_of_intervals(
    store: Store, value: float, interval: tuple[float, float], kept: tuple[float | None, ...]
) -> None:
    add(store, "a", loss=value, score=value, score_interval=interval)
    row = store.evaluations(["a"], "task", "split")["a"]
    assert (row.loss, row.score, row.score_low, row.score_high) == kept


def test_two_stores_of_one_folder_see_each_other(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)
    add(one, "a")
    assert list(two.evaluations(["a"], "task", "split")) == ["a"]
    two.add_soup("s", "sweep", {})
    assert [row.id for row in one.soups("sweep")] == ["s"]
    assert one.engine is not two.engine
    one.close()
    two.close()


def test_the_database_may_be_outside_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "files", url=f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    add(store, "a")
    assert losses_of(store, "a") == [0.25, 0.75]
    assert (tmp_path / "elsewhere.sqlite").is_file()
    assert not (tmp_path / "files" / "stockpot.sqlite").exists()
    store.close()


def test_a_reader_does_not_wait_for_a_writer(store: Store) -> None:
    add(store, "a")
    with store.engine.connect() as writer:
        writer.execute(text("BEGIN IMMEDIATE"))
        writer.execute(text("DELETE FROM evaluations"))
        assert losses_of(store, "a") == [0.25, 0.75]
        writer.rollback()


# Several threads and processes


def test_many_processes_may_open_a_store_at_once(tmp_path: Path) -> None:
    def use(folder: Path, number: int) -> None:
        store = Store(folder)
        store.add_soup(str(number), "sweep", {})
        store.close()

    numbers = range(8)
    with ThreadPoolExecutor(len(numbers)) as threads:
        for folder in (tmp_path / "1", tmp_path / "2", tmp_path / "3"):
            list(threads.map(use, [folder] * len(numbers), numbers))
            store = Store(folder)
            assert {row.id for row in store.soups("sweep")} == {*map(str, numbers)}
            store.close()


def _add_many(folder: Path, worker: int, count: int, start: Barrier) -> None:
    start.wait(300)
    store = Store(folder)  # several create the tables at once
    for number in range(count):
        add(store, f"{worker}-{number}", loss=float(number))
        add(store, "shared", loss=float(worker))
    store.add_soup(f"soup {worker}", "sweep", {"worker": worker})
    store.close()


def _add_until_killed(folder: Path, finished: Connection) -> None:
    store = Store(folder)
    for number in range(10_000):
        arrays = {"losses": torch.full((10_000,), float(number))}
        add(store, str(number), loss=float(number), arrays=arrays)
        finished.send(number)


@contextmanager
def running(*processes: ForkServerProcess) -> Iterator[None]:
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    count = 20
    start = FORKSERVER.Barrier(2)
    workers = [
        FORKSERVER.Process(target=_add_many, args=(tmp_path, worker, count, start))
        for worker in (1, 2)
    ]
    with running(*workers):
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0]
    store = Store(tmp_path)
    points = [f"{worker}-{number}" for worker in (1, 2) for number in range(count)]
    found = store.evaluations([*points, "shared"], "task", "split")
    assert {point: found[point].loss for point in points} == {
        point: float(point[2:]) for point in points
    }
    assert found["shared"].loss in (1.0, 2.0)
    assert {row.id for row in store.soups("sweep")} == {"soup 1", "soup 2"}
    assert not [*tmp_path.rglob("*.part")]
    store.close()


def test_a_killed_process_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    receiver, sender = FORKSERVER.Pipe(duplex=False)
    worker = FORKSERVER.Process(target=_add_until_killed, args=(tmp_path, sender))
    done: list[int] = []
    with running(worker):
        while len(done) < 30:
            assert receiver.poll(60)
            done.append(receiver.recv())
        worker.kill()
        worker.join()
    while receiver.poll():
        done.append(receiver.recv())
    store = Store(tmp_path)
    found = store.evaluations([str(number) for number in range(10_000)], "task", "split")
    assert found.keys() >= {str(number) for number in done}
    for point, row in found.items():  # the one that was written last, too
        assert row.loss == float(point)
        assert losses_of(store, point) == [float(point)] * 10_000
    add(store, "after")
    assert losses_of(store, "after") == [0.25, 0.75]
    store.close()


def test_files_of_dead_writers_are_removed(store: Store, workspace: Path) -> None:
    add(store, "point")
    (arrays,) = (store.folder / "arrays").iterdir()
    soup = store.soup_folder("a", "safetensors")
    soup.mkdir(parents=True)
    (soup / "weights").write_bytes(b"1234")
    decoded, uploads = workspace / "decoded", workspace / "uploads" / "sweep-012345"
    for folder in (decoded, uploads):
        folder.mkdir(parents=True)
    for folder in (store.folder, arrays, soup, workspace, uploads):
        (folder / ".file.0123456789abcdef.part").write_bytes(b"half")
    (decoded / ".0123456789abcdef.part").mkdir()
    (decoded / ".0123456789abcdef.part" / "inputs.npy").write_bytes(b"half")
    with new_file(arrays / "living") as file:
        store.remove_leftovers()
        file.write(b"whole")
    assert not [*store.folder.rglob("*.part"), *workspace.rglob("*.part")]
    assert (arrays / "living").read_bytes() == b"whole"
    assert losses_of(store, "point") == [0.25, 0.75]
    assert [path.name for path in soup.iterdir()] == ["weights"]


# Damage


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_evaluations_with_missing_or_truncated_arrays_are_removed(
    store: Store, content: bytes | None
) -> None:
    arrays = {"losses": torch.tensor([0.25, 0.75])}
    news = [
        NewEvaluation(point, "task", "split", 0.5, 0.5, (0.0, 1.0), 1.0, arrays) for point in "abc"
    ]
    store.add_evaluations(news)  # in one file
    add(store, "d")
    store.add_part("p", "task", "split", arrays)
    row = store.evaluations(["a"], "task", "split")["a"]
    file = store.folder / file_of(row)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert store.evaluations(["b", "d"], "task", "split").keys() == {"d"}
    assert store.evaluations(["a", "c", "d"], "task", "split").keys() == {"d"}
    (note,) = store.notes
    assert file_of(row) in note
    part = store.part("p", "task", "split")
    assert part is not None
    (again, *_) = store.add_evaluations(news)  # computed again
    assert store.evaluations(["a", "b"], "task", "split").keys() == {"a", "b"}
    assert load_file(store.folder / file_of(again))["losses"].shape == (3, 2)


@pytest.mark.parametrize("damage", ["deleted", "flipped"])
def test_a_partial_evaluation_is_removed_if_its_file_is_damaged(store: Store, damage: str) -> None:
    store.add_part("a", "task", "split", {"rows": torch.arange(9)})
    (file,) = (store.folder / "arrays").rglob("*.safetensors")
    if damage == "deleted":
        file.unlink()
    else:
        flip(file, -3)
    assert store.part("a", "task", "split") is None
    store.add_part("a", "task", "split", {"rows": torch.arange(9)})
    assert store.part("a", "task", "split") is not None


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


def test_lines_written_by_another_process_are_seen(tmp_path: Path) -> None:
    here, there = Store(tmp_path), Store(tmp_path)
    there.add_lines("measured", {("a", "b"): (False, b"1")})
    assert list(here.lines("measured")) == [("a", "b", False, b"1")]
    assert here.lines("measured") is here.lines("measured")
    there.add_lines("measured", {("a", "b"): (True, b"2"), ("a", "c"): (True, b"3")})
    assert sorted(here.lines("measured")) == [("a", "b", True, b"2"), ("a", "c", True, b"3")]
    here.close()
    there.close()


def test_inner_products_written_by_another_process_are_seen(tmp_path: Path) -> None:
    here, there = Store(tmp_path), Store(tmp_path)
    for reference, digests in (("base", ["a"]), ("other", ["a"]), ("base", ["a", "b"])):
        pairs = itertools.combinations_with_replacement(digests, 2)
        there.add_inner_products(reference, {pair: np.array([2.0]) for pair in pairs})
        found = here.inner_products(reference, digests)
        assert found.keys() == set(itertools.combinations_with_replacement(digests, 2))
        assert here.inner_products(reference, digests) is found
    here.close()
    there.close()
