import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from soupcore import Store, Sweep, uniform
from soupcore.errors import StoreError
from soupcore.maintenance import export_results, import_results
from soupcore.store import NewEvaluation
from soupcore.store.soups import (
    Annotation,
    annotate,
    annotations,
    delete_soup,
    restore_soup,
    unique_names,
)
from soupcore.stored_soups import StoredSoups


def test_soups_are_listed_by_sweep_oldest_first(store: Store) -> None:
    for name in ("b", "a", "c"):
        store.add_soup(name, "sweep", {"name": name, "coefficients": {"x": "1/3"}})
    store.add_soup("d", "other", {})
    assert [row.id for row in store.soups("sweep")] == ["b", "a", "c"]
    assert [row.id for row in store.soups("nothing")] == []
    row = store.soup("a")
    assert row is not None
    assert row.body == {"name": "a", "coefficients": {"x": "1/3"}}
    assert store.soup_files("a", "safetensors") == []
    assert store.soup("z") is None


def write_files(store: Store, soup: str, form: str, **contents: bytes) -> Path:
    folder = store.soup_folder(soup, form)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    store.add_soup_files(soup, form, {name: f"sha of {name}" for name in contents})
    return folder


def files_of(store: Store, soup: str, form: str) -> list[tuple[str, int, str]]:
    return [(row.name, row.nbytes, row.sha256) for row in store.soup_files(soup, form)]


def test_a_soup_added_again_has_the_new_body_and_keeps_its_files(store: Store) -> None:
    store.add_soup("a", "sweep", {"scores": {}})
    write_files(store, "a", "safetensors", weights=b"1234")
    store.add_soup("a", "sweep", {"scores": {"val": 0.5}})
    (row,) = store.soups("sweep")
    assert row.body == {"scores": {"val": 0.5}}
    assert files_of(store, "a", "safetensors") == [("weights", 4, "sha of weights")]


def test_files_of_several_forms_of_a_soup_are_kept_apart(store: Store) -> None:
    store.add_soup("a", "sweep", {})
    write_files(store, "a", "safetensors", weights=b"1234")
    write_files(store, "a", "shards-3", two=b"34", one=b"12", index=b"")
    write_files(store, "b", "safetensors", weights=b"9")
    assert files_of(store, "a", "safetensors") == [("weights", 4, "sha of weights")]
    assert [name for name, *_ in files_of(store, "a", "shards-3")] == ["index", "one", "two"]
    write_files(store, "a", "shards-3", all=b"1234")
    assert files_of(store, "a", "shards-3") == [("all", 4, "sha of all")]
    assert files_of(store, "b", "safetensors") == [("weights", 1, "sha of weights")]


def test_files_that_are_gone_or_changed_are_not_given_out(store: Store) -> None:
    folder = write_files(store, "a", "shards-3", one=b"12", two=b"34")
    (folder / "two").write_bytes(b"345")
    assert store.soup_files("a", "shards-3") == []
    write_files(store, "a", "shards-3", one=b"12", two=b"34")
    (folder / "one").unlink()
    assert store.soup_files("a", "shards-3") == []


def test_soup_files_that_another_process_registers_at_the_same_moment_are_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Store(store.folder)
    folder = write_files(store, "a", "safetensors", weights=b"1234")
    store.add_soup_files("a", "safetensors", {})
    calls = []

    def replace_after_other(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise IntegrityError("INSERT", {}, Exception())
        Store._replace_soup_files(other, *arguments)

    monkeypatch.setattr(store, "_replace_soup_files", replace_after_other)
    store.add_soup_files("a", "safetensors", {"weights": "new"})
    assert files_of(other, "a", "safetensors") == [("weights", 4, "new")]
    assert folder.is_dir()
    other.close()


def test_a_store_made_before_soups_had_several_files_is_opened(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "stockpot.sqlite")) as connection, connection:
        connection.execute(
            "CREATE TABLE soups (id VARCHAR NOT NULL PRIMARY KEY, sweep VARCHAR NOT NULL, "
            "body JSON NOT NULL, created FLOAT NOT NULL, file VARCHAR, sha256 VARCHAR)"
        )
        connection.execute("INSERT INTO soups VALUES ('a', 'sweep', '{}', 1, 'a.safetensors', '')")
    store = Store(tmp_path)
    store.add_soup("b", "sweep", {})
    assert [row.id for row in store.soups("sweep")] == ["a", "b"]
    assert store.soup_files("a", "safetensors") == []
    store.close()


def test_removing_a_soup_removes_its_files(store: Store) -> None:
    for name in "ab":
        store.add_soup(name, "sweep", {})
        write_files(store, name, "safetensors", weights=b"1234")
    losses = {"losses": torch.zeros(2)}
    point = NewEvaluation("point", "task", "split", 0.5, 0.75, (0.6, 0.9), 1.5, losses)
    store.add_evaluations([point])
    store.remove_soup("a")
    assert [row.id for row in store.soups("sweep")] == ["b"]
    assert files_of(store, "a", "safetensors") == []
    assert [path.name for path in (store.folder / "soups").iterdir()] == ["b"]
    assert store.evaluations(["point"], "task", "split")
    store.remove_soup("a")  # again is no error
    store.remove_soup("..")  # nor is what never was a soup
    assert files_of(store, "b", "safetensors") == [("weights", 4, "sha of weights")]


@pytest.mark.parametrize("form", ["safetensors", "shards-3"])
def test_a_soup_file_with_other_bytes_is_not_given_out_until_it_is_written_again(
    store: Store, form: str
) -> None:
    contents = {"one": b"12" * 100, "two": b"34" * 100}
    folder = store.soup_folder("a", form)
    folder.mkdir(parents=True)
    sha256s = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}

    def write() -> None:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        store.add_soup_files("a", form, sha256s)

    write()
    os.utime(folder / "one", ns=(0, 0))  # changed, but only its times
    assert [row.sha256 for row in store.soup_files("a", form)] == list(sha256s.values())
    (folder / "two").write_bytes(b"35" * 100)
    assert store.soup_files("a", form) == []
    assert str(folder / "two") in store.notes[0]
    write()
    assert [row.sha256 for row in store.soup_files("a", form)] == list(sha256s.values())


def test_a_soup_file_is_hashed_once_unless_it_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.soup_folder("a", "safetensors")
    folder.mkdir(parents=True)
    (folder / "one").write_bytes(b"12")
    store.add_soup_files("a", "safetensors", {"one": hashlib.sha256(b"12").hexdigest()})
    hashed = []
    digest = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        hashed.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    assert store.soup_files("a", "safetensors")
    assert not hashed
    os.utime(folder / "one", ns=(0, 0))
    for _ in range(3):
        assert store.soup_files("a", "safetensors")
    assert len(hashed) == 1


def keep(store: Store, sweep: Sweep, names: list[str]) -> str:
    soup = uniform(sweep, names)
    store.add_soup(soup.id, "sweep", soup.to_json() | {"task": None, "offered": {}})
    return soup.id


def labels(store: Store, sweep: Sweep) -> list[str]:
    return [soup.label for soup in StoredSoups(store, sweep).of_task("sweep", "", None)]


def test_annotations_are_stored_field_by_field(store: Store) -> None:
    assert annotations(store, ["a"]) == {}
    annotate(store, "a", name="  the\nbest ", tags=["x", " y ", "x", ""])
    annotate(store, "a", note="line 1\nline 2\n", starred=True)
    said = Annotation("the best", "line 1\nline 2", ("x", "y"), starred=True)
    assert annotations(store, ["a", "b"]) == {"a": said}
    annotate(store, "a", name="", starred=False, tags=[])
    assert annotations(store, ["a"]) == {"a": Annotation(note="line 1\nline 2")}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"name": "n" * 81}, "The name has 81 characters"),
        ({"tags": ["t" * 81]}, "The tag has 81 characters"),
        ({"tags": map(str, range(21))}, "21 tags"),
        ({"note": "n" * 10_001}, "10,001 characters"),
    ],
)
def test_long_texts_are_refused(store: Store, said: dict[str, str], problem: str) -> None:
    with pytest.raises(StoreError, match=problem):
        annotate(store, "a", **said)  # type: ignore[arg-type]
    assert annotations(store, ["a"]) == {}


def test_annotating_in_a_read_only_workspace_is_refused(store: Store, tmp_path: Path) -> None:
    reading = Store(store.folder, read_only=True)
    with pytest.raises(StoreError, match="read-only"):
        annotate(reading, "a", name="new")
    assert annotations(reading, ["a"]) == {}


def test_soups_are_named_by_recipe_and_size_until_a_user_names_them(
    store: Store, sweep: Sweep
) -> None:
    two = keep(store, sweep, ["run1", "run2"])
    assert labels(store, sweep) == ["Uniform · 2 of 3"]
    other = keep(store, sweep, ["run1", "run10"])
    assert labels(store, sweep) == [f"Uniform · 2 of 3 ({i[:4]})" for i in (two, other)]
    annotate(store, two, name="<b>mine</b>")
    assert labels(store, sweep) == ["<b>mine</b>", "Uniform · 2 of 3"]
    annotate(store, other, name="run1")  # the name of an ingredient
    assert labels(store, sweep) == ["<b>mine</b>", f"run1 ({other[:4]})"]
    assert StoredSoups(store, sweep)[other].label == f"run1 ({other[:4]})"


def test_a_deleted_soup_is_listed_no_more_until_it_is_restored_or_built_again(
    store: Store, sweep: Sweep
) -> None:
    first, second = keep(store, sweep, ["run1", "run2"]), keep(store, sweep, ["run1", "run10"])
    annotate(store, first, name="kept")
    delete_soup(store, second)
    delete_soup(store, first)
    known = StoredSoups(store, sweep)
    assert labels(store, sweep) == []
    assert known.deleted("sweep") == {first: "kept", second: "Uniform · 2 of 3"}
    assert known[first].soup.id == first  # soups that were made of it need it
    restore_soup(store, first)
    assert labels(store, sweep) == ["kept"]
    keep(store, sweep, ["run1", "run10"])
    assert labels(store, sweep) == ["kept", "Uniform · 2 of 3"]


def test_names_travel_with_an_archive_of_results(
    store: Store, sweep: Sweep, tmp_path: Path
) -> None:
    soup = keep(store, sweep, ["run1", "run2"])
    annotate(store, soup, name="ours", tags=["a", "b"])
    export_results(store, tmp_path / "results.zip")
    other = Store(tmp_path / "other")
    import_results(other, tmp_path / "results.zip")
    assert annotations(other, [soup]) == {soup: Annotation("ours", tags=("a", "b"))}
    other.remove_soup(soup)
    assert annotations(other, [soup]) == {}


@given(
    st.dictionaries(st.text("ab", min_size=4, max_size=6), st.text("x (ab)", max_size=9)),
    st.sets(st.text("x (ab)", max_size=9)),
)
def test_names_are_unique(wanted: dict[str, str], taken: set[str]) -> None:
    found = unique_names(wanted, taken)
    assert found.keys() == wanted.keys()
    assert len({*found.values()} | taken) == len(found) + len(taken)
    assert all(name.startswith(wanted[key]) for key, name in found.items())
