from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore import Store, Sweep, uniform
from soupcore.errors import StoreError
from soupcore.maintenance import export_results, import_results
from soupcore.store.soups import (
    Annotation,
    annotate,
    annotations,
    delete_soup,
    restore_soup,
    unique_names,
)
from soupcore.stored_soups import StoredSoups


def keep(store: Store, sweep: Sweep, names: list[str]) -> str:
    soup = uniform(sweep, names)
    store.add_soup(soup.id, "sweep", soup.to_json() | {"task": None, "offered": {}})
    return soup.id


def labels(store: Store, sweep: Sweep) -> list[str]:
    return [soup.label for soup in StoredSoups(store, sweep).of_task("sweep", "", None)]


def test_what_users_say_is_stored_field_by_field(store: Store) -> None:
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


def test_a_read_only_workspace_takes_no_name(store: Store, tmp_path: Path) -> None:
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
