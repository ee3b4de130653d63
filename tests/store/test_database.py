import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Barrier

import pytest
import torch
from safetensors.torch import save_file
from sqlalchemy import Column, Connection, Float, Integer, create_engine, event, inspect, text

from soupcore import StockpotError, Store
from soupcore.errors import FullDiskError, ReadOnlyError, StoreError
from soupcore.jobs import Queue, Supervisor
from soupcore.store import database
from soupcore.store.database import add_column, exclusively, open_database, prepare
from soupcore.store.tables import Base
from tests.postgres import DATABASES

# The tables as they were before the database had a schema version.
VERSION_1 = """
CREATE TABLE evaluations (
    mixture_key VARCHAR NOT NULL, task_key VARCHAR NOT NULL, split_digest VARCHAR NOT NULL,
    n INTEGER NOT NULL, loss FLOAT, score FLOAT, score_low FLOAT, score_high FLOAT,
    seconds FLOAT NOT NULL, has_outputs BOOLEAN NOT NULL, arrays VARCHAR NOT NULL,
    created FLOAT NOT NULL, PRIMARY KEY (mixture_key, task_key, split_digest));
CREATE TABLE soups (
    id VARCHAR NOT NULL PRIMARY KEY, sweep VARCHAR NOT NULL, body JSON NOT NULL,
    created FLOAT NOT NULL);
CREATE TABLE soup_files (
    soup VARCHAR NOT NULL, form VARCHAR NOT NULL, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL,
    nbytes BIGINT NOT NULL, PRIMARY KEY (soup, form, name));
INSERT INTO evaluations VALUES ('m', 't', 's', 2, 0.5, 0.75, 0.6, 0.9, 1.5, 0, 'x', 1.0);
INSERT INTO soups VALUES ('a', 'sweep', '{}', 1.0);
INSERT INTO soup_files VALUES ('a', 'safetensors', 'soup.safetensors', 'abc', 4);
"""


@contextmanager
def connected(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "stockpot.sqlite")) as connection, connection:
        yield connection


def meta(folder: Path) -> dict[str, str]:
    with connected(folder) as connection:
        return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def test_a_new_database_has_the_newest_schema_and_the_id_of_its_folder(tmp_path: Path) -> None:
    Store(tmp_path).close()
    (workspace,) = json.loads((tmp_path / "workspace.json").read_bytes()).values()
    assert meta(tmp_path) == {
        "schema_version": str(database.SCHEMA_VERSION),
        "workspace": workspace,
    }


def test_a_database_without_a_version_is_upgraded_and_keeps_its_rows(tmp_path: Path) -> None:
    with connected(tmp_path) as connection:
        connection.executescript(VERSION_1)
    save_file({"losses": torch.ones(2)}, tmp_path / "x")
    store = Store(tmp_path)
    assert store.evaluations(["m"], "t", "s")["m"].score == 0.75
    assert [row.id for row in store.soups("sweep")] == ["a"]
    with store.session() as session:
        rows = session.execute(text("SELECT name, sha256, stamp FROM soup_files")).all()
    assert rows == [("soup.safetensors", "abc", None)]
    assert meta(tmp_path)["schema_version"] == str(database.SCHEMA_VERSION)
    tables = set(inspect(store.engine).get_table_names())
    assert {"parts", "inner_products", "meta"} <= tables
    store.close()


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with connected(tmp_path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    known = database.SCHEMA_VERSION
    with pytest.raises(StoreError, match=rf"stockpot\.sqlite has schema version 99.* to {known}\."):
        Store(tmp_path)
    assert meta(tmp_path)["schema_version"] == "99"


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).close()

    def change(connection: Connection) -> None:
        add_column(connection, "soups", Column("rating", Float))

    def fail(connection: Connection) -> None:
        raise RuntimeError("power cut")

    before = meta(tmp_path)
    monkeypatch.setattr(database, "_MIGRATIONS", [*database._MIGRATIONS, change, fail])
    monkeypatch.setattr(database, "SCHEMA_VERSION", database.SCHEMA_VERSION + 2)
    with pytest.raises(RuntimeError, match="power cut"):
        Store(tmp_path)
    assert meta(tmp_path) == before
    with connected(tmp_path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(soups)")]
    assert "rating" not in columns
    monkeypatch.setattr(database, "_MIGRATIONS", [*database._MIGRATIONS[:-1], change])
    Store(tmp_path).close()
    with connected(tmp_path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(soups)")]
    assert "rating" in columns
    assert int(meta(tmp_path)["schema_version"]) == int(before["schema_version"]) + 2


def test_a_column_is_added_once_with_its_default_and_not_to_a_table_that_is_absent(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    store.add_soup("a", "sweep", {})
    for _ in range(2):
        with exclusively(store.engine) as connection:
            column = Column("rating", Integer, nullable=False, server_default="3")
            add_column(connection, "soups", column)
            add_column(connection, "no such table", Column("rating", Integer))
    with store.session() as session:
        assert session.scalars(text("SELECT rating FROM soups")).all() == [3]
    store.close()


def test_tables_of_modules_that_are_imported_later_are_created_when_they_are_needed(
    tmp_path: Path,
) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'stockpot.sqlite'}")
    prepare(engine, tmp_path)
    Base.metadata.tables["jobs"].drop(engine)
    store = Store(tmp_path)
    queue = Queue(store)
    assert queue.get(queue.submit("soup", "A soup", {})) is not None
    store.close()
    engine.dispose()


# Many at once


def open_at_once(folder: Path, url: str) -> None:
    """Open a store eight times at once; each writes a soup."""
    start = Barrier(8)

    def use(number: int) -> None:
        start.wait(300)
        store = Store(folder, url)
        store.add_soup(str(number), "sweep", {})
        store.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))


@pytest.fixture(params=DATABASES)
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


def test_many_may_create_the_tables_at_once(tmp_path: Path, any_url: str) -> None:
    open_at_once(tmp_path / "workspace", any_url)
    store = Store(tmp_path / "workspace", any_url)
    assert {row.id for row in store.soups("sweep")} == {*map(str, range(8))}
    store.close()


def test_many_may_upgrade_a_database_at_once(tmp_path: Path, any_url: str) -> None:
    engine = create_engine(any_url)
    with engine.begin() as connection:
        for statement in VERSION_1.replace(", 0, 'x'", ", false, 'x'").split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    engine.dispose()
    open_at_once(tmp_path / "workspace", any_url)
    store = Store(tmp_path / "workspace", any_url)
    assert {row.id for row in store.soups("sweep")} == {"a", *map(str, range(8))}
    with store.session() as session:
        assert session.execute(text("SELECT stamp FROM soup_files")).all() == [(None,)]
    store.close()


# The folder that a database belongs to


def test_a_workspace_may_be_moved(tmp_path: Path) -> None:
    Store(tmp_path / "before").close()
    (tmp_path / "before").rename(tmp_path / "after")
    store = Store(tmp_path / "after")
    assert store.soups("sweep") == []
    store.close()


@pytest.mark.parametrize("has_id", [True, False])
def test_a_database_elsewhere_is_refused_to_another_folder(tmp_path: Path, has_id: bool) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    Store(tmp_path / "one", url).close()
    if has_id:
        Store(tmp_path / "two").close()
    with pytest.raises(StockpotError, match=r"shared\.sqlite does not belong to the .*two"):
        Store(tmp_path / "two", url)
    # The way out that the error names.
    (tmp_path / "two" / "workspace.json").write_bytes(
        (tmp_path / "one" / "workspace.json").read_bytes()
    )
    Store(tmp_path / "two", url).close()


def test_a_folder_whose_id_was_lost_gets_it_back_from_its_database(tmp_path: Path) -> None:
    Store(tmp_path).close()
    before = (tmp_path / "workspace.json").read_bytes()
    (tmp_path / "workspace.json").unlink()
    Store(tmp_path).close()
    assert (tmp_path / "workspace.json").read_bytes() == before


def test_a_folder_whose_database_was_lost_keeps_its_id(tmp_path: Path) -> None:
    Store(tmp_path).close()
    before = meta(tmp_path)
    (tmp_path / "stockpot.sqlite").unlink()
    Store(tmp_path).close()
    assert meta(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_an_id_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    Store(tmp_path).close()
    (tmp_path / "workspace.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"workspace\.json does not hold the id"):
        Store(tmp_path)


# Damage


def damaged(folder: Path, how: str) -> None:
    store = Store(folder)
    for number in range(500):
        store.add_soup(f"{number:03d}", "sweep", {"padding": "x" * 500})
    store.close()
    path = folder / "stockpot.sqlite"
    content = path.read_bytes()
    if how == "truncated":
        content = content[: len(content) // 2]
    if how == "overwritten":
        content = b"garbage" * 1000
    if how == "header":
        content = bytes(100) + content[100:]
    if how == "pages":
        content = content[:4096] + b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "overwritten", "header", "pages"])
def test_a_damaged_database_is_named_with_the_way_out(tmp_path: Path, how: str) -> None:
    damaged(tmp_path, how)

    def use() -> None:
        store = Store(tmp_path)
        store.soups("sweep")

    with pytest.raises(StockpotError, match=r"stockpot\.sqlite is damaged .*maintenance repair"):
        use()


def test_a_full_disk_is_reported_when_a_row_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.engine.connect() as connection:
        (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()

    @event.listens_for(store.engine, "begin")
    def fill_up(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(FullDiskError, match=r"disk is full: .*stockpot\.sqlite"):
        store.add_soup("a", "sweep", {"padding": "x" * 100_000})
    assert store.soups("sweep") == []


# A workspace that can only be read


def make_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the permission to write from all files; root has it whatever their modes."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_read_only_workspace_shows_stored_results_and_stays_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    queue = Queue(store)
    queue.submit("soup", "A soup", {})
    store.add_soup("a", "sweep", {})
    store.close()
    before = files_in(tmp_path)
    make_read_only(monkeypatch)
    store = Store(tmp_path)
    queue = Queue(store)
    assert store.is_read_only
    assert [row.id for row in store.soups("sweep")] == ["a"]
    assert [job.title for job in queue.unfinished()] == ["A soup"]
    supervisor = Supervisor(store, [])
    supervisor.start()
    supervisor.look_after()
    attempts: list[Callable[[], object]] = [
        lambda: store.add_soup("b", "sweep", {}),
        lambda: store.add_part("a", "task", "split", {"rows": torch.ones(1)}),
        lambda: queue.submit("soup", "Another soup", {"names": []}),
        lambda: supervisor.submit("soup", "Another soup", {}),
    ]
    for attempt in attempts:
        with pytest.raises(ReadOnlyError, match="is read-only"):
            attempt()
    supervisor.stop()
    store.close()
    assert files_in(tmp_path) == before


def test_a_read_only_workspace_with_a_log_that_was_not_merged_shows_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Store(tmp_path)
    Queue(writer)
    writer.add_soup("a", "sweep", {})  # still in the log: the writer lives
    make_read_only(monkeypatch)
    store = Store(tmp_path)
    assert store.is_read_only
    assert [row.id for row in store.soups("sweep")] == ["a"]
    store.close()
    writer.close()


def test_a_read_only_workspace_of_an_earlier_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(tmp_path) as connection:
        connection.executescript(VERSION_1)
    make_read_only(monkeypatch)
    with pytest.raises(StoreError, match="has to be upgraded"):
        Store(tmp_path)


def test_a_read_only_folder_without_a_database_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_read_only(monkeypatch)
    with pytest.raises(StoreError, match=r"stockpot\.sqlite cannot be opened"):
        Store(tmp_path)


def test_a_database_that_another_process_keeps_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.1)
    store = Store(tmp_path)
    with closing(sqlite3.connect(tmp_path / "stockpot.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"stockpot.sqlite is locked .* within 0\.1 s"):
            store.add_result("key", "kind", {})
    store.add_result("key", "kind", {})
    assert store.result("key") is not None
    store.close()
