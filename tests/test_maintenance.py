import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from soupcore import Store
from soupcore.errors import StoreError
from soupcore.jobs import Job, Queue, State
from soupcore.maintenance import (
    backup,
    check,
    export_results,
    import_results,
    prune,
    repair,
    sizes,
    unused,
)
from soupcore.maintenance.__main__ import main
from soupcore.store import NewEvaluation
from soupcore.store.evaluations import file_of

POINTS = [f"point {number}" for number in range(40)]


def evaluation(point: str, value: float, **arrays: torch.Tensor) -> NewEvaluation:
    losses = torch.full((3,), value)
    interval = (float("-inf"), float("inf"))
    return NewEvaluation(
        point, "task", "split", value, 0.5, interval, 1.0, {"losses": losses} | arrays
    )


def fill(store: Store) -> None:
    """Some of everything: evaluations alone and together, with a value each."""
    for number, point in enumerate(POINTS[:20]):
        store.add_evaluations([evaluation(point, float(number))])
    store.add_evaluations(
        [evaluation(point, float(number)) for number, point in enumerate(POINTS) if number >= 20]
    )
    store.add_part("given up", "task", "split", {"rows": torch.arange(2)})
    store.add_inner_products("reference", {("a", "b"): np.array([1.5, -2.0])})
    for soup in ("soup 1", "soup 2"):
        store.add_soup(soup, "/there/sweep", {"recipe": "uniform"})
        folder = store.soup_folder(soup, "safetensors")
        folder.mkdir(parents=True)
        (folder / "soup.safetensors").write_bytes(soup.encode() * 100)
        sha256 = hashlib.sha256(soup.encode() * 100).hexdigest()
        store.add_soup_files(soup, "safetensors", {"soup.safetensors": sha256})
    queue = Queue(store)
    for number in range(25):
        queue.submit("soup", f"Soup {number}", {"number": number, "padding": "x" * 800})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("template"))
    fill(store)
    store.close()
    return store.folder


@pytest.fixture
def filled(template: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(template, tmp_path / "filled")
    store = Store(tmp_path / "filled")
    yield store
    store.close()


def values(store: Store) -> dict[str, float]:
    """The points that a store knows, each with the value in its arrays."""
    found = store.evaluations(POINTS, "task", "split")
    known = {}
    for point, row in found.items():
        losses = load_file(store.folder / file_of(row))["losses"]
        _, _, index = row.arrays.partition("#")
        known[point] = float((losses[int(index)] if index else losses)[0])
        assert known[point] == row.loss
    return known


ALL = {point: float(number) for number, point in enumerate(POINTS)}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def array_files(store: Store) -> list[Path]:
    return sorted((store.folder / "arrays").rglob("*.safetensors"))


# Checking and repairing


def test_new_results_pass_the_check(filled: Store) -> None:
    seen: list[tuple[int, int]] = []
    assert check(filled.folder, on_files=lambda *progress: seen.append(progress)) == []
    assert seen[-1] == (24, 24)  # 20 + 1 + 1 files of arrays, 2 of soups
    assert repair(filled.folder) == []
    assert values(filled) == ALL


def test_damaged_files_are_found_and_their_results_removed(filled: Store) -> None:
    flipped, deleted = array_files(filled)[:2]
    flip(flipped)
    deleted.unlink()
    soup = filled.soup_folder("soup 2", "safetensors") / "soup.safetensors"
    flip(soup)
    (filled.folder / "scans.sqlite").write_bytes(b"garbage" * 100)
    found = {problem.path for problem in check(filled.folder)}
    assert found == {flipped, deleted, soup, filled.folder / "scans.sqlite"}
    done = repair(filled.folder)
    assert len(done) == 4
    assert check(filled.folder) == []
    assert values(filled).items() <= ALL.items()
    assert filled.soup_files("soup 1", "safetensors")
    assert not filled.soup_files("soup 2", "safetensors")
    assert {row.id for row in filled.soups("/there/sweep")} == {"soup 1", "soup 2"}


def damage_database(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    if how == "overwritten":
        content[:] = b"garbage" * 1000
    if how == "header":
        content[:100] = bytes(100)
    if how == "one page":
        content[-3 * 4096 : -2 * 4096] = b"\xa5" * 4096
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "overwritten", "header", "one page"])
def test_evaluations_survive_a_damaged_database(filled: Store, how: str) -> None:
    filled.close()
    database = filled.folder / "stockpot.sqlite"
    damage_database(database, how)
    damaged = database.read_bytes()
    (problem,) = check(filled.folder)
    assert problem.path == database
    done = repair(filled.folder)
    assert "Moved the damaged database to stockpot.sqlite.damaged-" in done[0]
    (aside,) = filled.folder.glob("stockpot.sqlite.damaged-*")
    assert aside.read_bytes() == damaged
    assert check(filled.folder) == []
    store = Store(filled.folder)
    assert values(store) == ALL
    store.close()


def test_other_rows_are_kept_but_for_those_on_the_damaged_page(filled: Store) -> None:
    filled.close()
    path = filled.folder / "stockpot.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT pageno FROM dbstat WHERE name = 'jobs' AND pagetype = 'leaf'"
        pages = [page for (page,) in connection.execute(query)]
    assert len(pages) > 3
    content = bytearray(path.read_bytes())
    content[(pages[1] - 1) * 4096 : pages[1] * 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    done = repair(filled.folder)
    assert "Kept 2 rows of the table soups." in done
    store = Store(filled.folder)
    kept = [job.request["number"] for job in Queue(store).unfinished()]
    assert kept[0] == 0
    assert kept[-1] == 24
    assert 12 < len(kept) < 25
    assert [row.id for row in store.soups("/there/sweep")] == ["soup 1", "soup 2"]
    store.close()


def test_evaluations_are_found_again_if_the_database_is_gone(filled: Store) -> None:
    filled.close()
    (filled.folder / "stockpot.sqlite").unlink()
    assert repair(filled.folder) == ["Restored 40 evaluations from their array files."]
    store = Store(filled.folder)
    assert values(store) == ALL
    row = store.evaluations(POINTS, "task", "split")[POINTS[0]]
    assert (row.score_low, row.score_high) == (float("-inf"), float("inf"))
    store.close()


# Sizes and pruning


def test_sizes_are_those_of_the_files_by_kind(filled: Store, workspace: Path) -> None:
    (filled.folder / "decoded" / "a").mkdir(parents=True)
    (filled.folder / "decoded" / "a" / "inputs.npy").write_bytes(bytes(5_000_000))
    (filled.folder / "worker.log").write_bytes(bytes(1000))
    found = sizes(filled.folder)
    assert next(iter(found)) == "decoded data"
    assert (found["decoded data"].files, found["decoded data"].nbytes) == (1, 5_000_000)
    assert found["results of evaluations"].files == 22
    assert found["weights of soups"].nbytes == 2 * 100 * len("soup 1")
    everything = [path for path in filled.folder.rglob("*") if path.is_file()]
    assert sum(size.files for size in found.values()) == len(everything)
    total = sum(size.nbytes for size in found.values())
    assert total == sum(path.stat().st_size for path in everything)
    assert sizes(workspace) == {}


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * 86400
    for inner in [*path.rglob("*"), path]:
        os.utime(inner, (then, then))
    return path


def test_only_leftovers_are_removed(filled: Store) -> None:
    for path in array_files(filled):
        aged(path, 100)
    filled.add_evaluations([evaluation(POINTS[0], 0.0)])  # replaces: its first file is an orphan
    (orphan,) = (
        {*array_files(filled)}
        - {
            filled.folder / file_of(row)
            for row in filled.evaluations(POINTS, "task", "split").values()
        }
        - {filled.folder / file for file in _files_of_parts(filled)}
    )
    new = filled.folder / "arrays" / "00" / f"{'0' * 64}-9.safetensors"
    new.parent.mkdir(exist_ok=True)
    new.write_bytes(b"its row is about to be written"[:9])
    expected = {orphan}
    for kind in ("decoded", "uploads"):
        for name, days in (("old", 31), ("recent", 29)):
            folder = filled.folder / kind / name
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(bytes(100))
            aged(folder, days)
        expected.add(filled.folder / kind / "old")
    for name, days in (("0", 31), ("1", 29)):
        for end in ("", ".json"):
            file = filled.folder / "remote" / ".files" / f"{name * 40}{end}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(100))
            aged(file, days)
            expected |= {file} if days > 30 else set()
    (filled.folder / "soups" / "removed").mkdir()
    expected.add(aged(filled.folder / "soups" / "removed", 1))
    found = unused(filled)
    assert {leftover.path for leftover in found} == expected
    assert all(path.exists() for path in expected)  # that was a dry run
    assert sum(leftover.nbytes for leftover in found if leftover.kind == "uploads") == 100
    assert {leftover.kind for leftover in unused(filled, ["uploads"])} == {"uploads"}
    assert prune(filled) == found
    assert not any(path.exists() for path in expected)
    assert new.exists()
    assert (filled.folder / "decoded" / "recent" / "file").exists()
    assert values(filled) == ALL
    assert check(filled.folder) == []
    assert prune(filled) == []


def test_entries_of_jobs_that_ended_long_ago_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "workspace")
    assert prune(store, ["jobs"]) == []  # no server has used it
    queue = Queue(store)
    numbers = [queue.submit("evaluate", f"Job {i}", {"names": [str(i)]}) for i in range(4)]
    states = [State.DONE, State.FAILED, State.DONE, State.QUEUED]
    with store.session() as session, session.begin():
        for number, state, days in zip(numbers, states, (31, 40, 29, 31), strict=True):
            job = session.get(Job, number)
            assert job is not None
            job.state = state
            job.created = time.time() - days * 86400
    reading = Store(store.folder, read_only=True)
    found = unused(reading, ["jobs"])
    assert [str(leftover) for leftover in found] == ["job 1: Job 0", "job 2: Job 1"]
    assert len(queue.recent()) == 4  # that was a dry run
    assert prune(reading, ["jobs"]) == found
    assert [job.id for job in queue.recent()] == [4, 3]
    assert prune(reading, ["jobs"]) == []


def _files_of_parts(store: Store) -> list[str]:
    with closing(sqlite3.connect(store.folder / "stockpot.sqlite")) as connection:
        return [file for (file,) in connection.execute("SELECT arrays FROM parts")]


# Backups


def test_a_backup_is_a_workspace_with_the_results(filled: Store, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    copied = backup(filled, target)
    assert copied.files == 22
    filled.add_evaluations([evaluation("later", 9.0)])
    store = Store(target)
    assert values(store) == ALL
    assert store.evaluations(["later"], "task", "split") == {}
    assert [row.id for row in store.soups("/there/sweep")] == ["soup 1", "soup 2"]
    assert store.soup_files("soup 1", "safetensors") == []
    store.close()
    assert check(target) == []
    again = backup(filled, target)  # only what is new is copied
    assert again.files == 23
    assert again.nbytes < copied.nbytes / 10
    shutil.rmtree(filled.folder)
    target.rename(filled.folder)  # restored
    store = Store(filled.folder)
    assert values(store) == ALL
    assert store.evaluations(["later"], "task", "split")["later"].loss == 9.0
    store.close()


def test_a_backup_does_not_overwrite_another_workspace(filled: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.add_soup("other", "sweep", {})
    other.close()
    for target in (tmp_path / "other", filled.folder):
        with pytest.raises(StoreError, match="is another workspace"):
            backup(filled, target)
    other = Store(tmp_path / "other")
    assert [row.id for row in other.soups("sweep")] == ["other"]
    other.close()


@pytest.mark.integration
def test_a_database_on_a_server_is_backed_up_by_its_own_tools(
    tmp_path: Path, postgres_url: str
) -> None:
    store = Store(tmp_path / "workspace", postgres_url)
    with pytest.raises(StoreError, match="pg_dump"):
        backup(store, tmp_path / "backup")
    store.close()


# Moving results


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "laptop")
    yield store
    store.close()


def test_results_are_moved_without_weights(filled: Store, laptop: Store, tmp_path: Path) -> None:
    archive = tmp_path / "results.zip"
    written = export_results(filled, archive)
    with ZipFile(archive) as file:
        assert not [name for name in file.namelist() if "soup" in name]
    laptop.add_evaluations([evaluation("known here", 7.0)])
    added = import_results(laptop, archive, {"/there/sweep": "/here/sweep"})
    assert (added.rows, added.files) == (written.rows, written.files) == (44, 22)
    assert values(laptop) == ALL
    assert laptop.evaluations(["known here"], "task", "split")["known here"].loss == 7.0
    assert {row.id for row in laptop.soups("/here/sweep")} == {"soup 1", "soup 2"}
    products = laptop.inner_products("reference", ["a", "b"])
    assert products["a", "b"].tolist() == [1.5, -2.0]
    part = laptop.part("given up", "task", "split")
    assert part is not None
    assert part["rows"].tolist() == [0, 1]
    assert check(laptop.folder) == []
    assert import_results(laptop, archive).rows == 0  # again adds nothing


@pytest.mark.parametrize(("here", "kept"), [(True, 1.0), (False, 2.0)])
def test_stored_results_stay_unless_only_the_archive_has_outputs(
    store: Store, laptop: Store, tmp_path: Path, here: bool, kept: float
) -> None:
    outputs = torch.ones(3, 2)
    laptop.add_evaluations([evaluation("a", 1.0, **({"outputs": outputs} if here else {}))])
    store.add_evaluations([evaluation("a", 2.0, outputs=outputs)])
    export_results(store, tmp_path / "results.zip")
    import_results(laptop, tmp_path / "results.zip")
    assert laptop.evaluations(["a"], "task", "split")["a"].loss == kept


@pytest.mark.integration
def test_results_are_moved_between_sqlite_and_postgresql(
    filled: Store, tmp_path: Path, postgres_url: str
) -> None:
    export_results(filled, tmp_path / "results.zip")
    server = Store(tmp_path / "server", postgres_url)
    import_results(server, tmp_path / "results.zip")
    assert values(server) == ALL
    server.close()


def changed_archive(path: Path, changes: dict[str, bytes | None]) -> Path:
    with ZipFile(path) as archive:
        contents: dict[str, bytes | None] = {n: archive.read(n) for n in archive.namelist()}
    with ZipFile(path, "w") as archive:
        for name, content in (contents | changes).items():
            if content is not None:
                archive.writestr(name, content)
    return path


def rows_with(**change: object) -> bytes:
    row = {
        "mixture_key": "a", "task_key": "task", "split_digest": "split", "n": 1, "loss": 0.5,
        "score": 0.5, "score_low": None, "score_high": 1, "seconds": 1.0, "has_outputs": False,
        "arrays": "arrays/00/" + 64 * "0" + "-3.safetensors", "created": 1.0,
    }  # fmt: skip
    tables = {"evaluations": [row | change], "parts": [], "soups": [], "inner_products": []}
    return json.dumps({"format": 1, "tables": tables}).encode()


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (b"{", "not an archive of results"),
        (b"[]", "not an archive of results"),
        (b'{"format": 2}', "format 2; this one reads format 1"),
        (b'{"format": 1, "tables": {}}', "not an archive of results"),
        (rows_with(arrays="../../secret"), "not an array file"),
        (rows_with(arrays="arrays/00/x.safetensors"), "not an array file"),
        (rows_with(n="1"), "n is '1'"),
        (rows_with(loss=[]), r"loss is \[\]"),
        (rows_with(task_key=None), "task_key is None"),
        (rows_with(scores={"F1": "high"}), "scores is"),
        (rows_with(scores=[1.0]), "scores is"),
        (rows_with(), "damaged"),  # without its file
        (None, "damaged"),
    ],
)
def test_an_archive_that_is_not_ours_adds_nothing(
    filled: Store, laptop: Store, tmp_path: Path, rows: bytes | None, problem: str
) -> None:
    export_results(filled, tmp_path / "results.zip")
    archive = changed_archive(tmp_path / "results.zip", {"rows.json": rows})
    with pytest.raises(StoreError, match=problem):
        import_results(laptop, archive)
    assert values(laptop) == {}
    assert laptop.soups("/there/sweep") == []


def test_arrays_in_an_archive_are_compared_with_their_sha256(
    filled: Store, laptop: Store, tmp_path: Path
) -> None:
    export_results(filled, tmp_path / "results.zip")
    first = array_files(filled)[0]
    name = str(first.relative_to(filled.folder))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    for wrong, problem in ((bytes(content), "another SHA-256"), (b"short", "another size")):
        changed_archive(tmp_path / "results.zip", {name: wrong})
        with pytest.raises(StoreError, match=problem):
            import_results(laptop, tmp_path / "results.zip")
    assert values(laptop) == {}


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip" * 100])
def test_a_file_that_is_no_archive_is_refused(
    laptop: Store, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "results.zip").write_bytes(content)
    with pytest.raises(StoreError, match=r"results\.zip is not an archive of results"):
        import_results(laptop, tmp_path / "results.zip")


@settings(max_examples=10)
@given(st.lists(st.sets(st.integers(0, 5)), min_size=2, max_size=3), st.randoms())
def test_importing_in_any_order_gives_the_union(
    tmp_path_factory: pytest.TempPathFactory, known: list[set[int]], random: Any
) -> None:
    tmp_path = tmp_path_factory.mktemp("union")
    archives = []
    for place, points in enumerate(known):
        store = Store(tmp_path / str(place))
        for i in points:
            store.add_evaluations([evaluation(f"point {i}", float(i))])
        export_results(store, tmp_path / f"{place}.zip")
        store.close()
        archives.append(tmp_path / f"{place}.zip")
    random.shuffle(archives)
    store = Store(tmp_path / "all")
    for archive in [*archives, archives[0]]:
        import_results(store, archive)
    assert values(store) == {f"point {i}": float(i) for i in set.union(*known)}
    store.close()
    shutil.rmtree(tmp_path)


# The command line


def test_commands_give_the_results_of_the_functions(
    filled: Store, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str, status: int = 0) -> str:
        assert main(arguments) == status
        return capsys.readouterr().out

    here = f"--workspace={filled.folder}"
    assert "No problems found" in said("check", here)
    flip(array_files(filled)[0])
    assert "1 problem." in said("check", here, status=1)
    assert "will be recomputed" in said("repair", here)
    assert "weights of soups" in said("size", here)
    aged(filled.folder / "arrays", 1)
    assert "Would remove" in said("prune", here, "arrays", "--dry-run")
    assert "Removed" in said("prune", here, "arrays")
    assert "Removed 0 bytes" in said("prune", here)
    assert "rows" in said("backup", here, str(tmp_path / "backup"))
    assert "Wrote" in said("export", here, str(tmp_path / "results.zip"))
    moved = "--moved=/there/sweep=/here/sweep"
    assert "Added" in said("import", str(tmp_path / "results.zip"), moved)  # to $STOCKPOT_WORKSPACE
    store = Store(workspace)
    assert {row.id for row in store.soups("/here/sweep")} == {"soup 1", "soup 2"}
    store.close()


def test_an_error_is_printed_as_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(tmp_path / "missing")]) == 1
    assert "is not an archive of results" in capsys.readouterr().err
