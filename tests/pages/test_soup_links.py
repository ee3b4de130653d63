"""The ways to the page of a soup; `tests/browser/test_soups.py` clicks them."""

from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st

from pages.components import soup_links

RUNS = {"run-01": None, "run-02": None}
SOUPS: list[Any] = [SimpleNamespace(label="run-01 soup", soup=SimpleNamespace(id="abc"))]


@pytest.mark.parametrize("name", ["[a, b]", ":material/delete: x", " [a]"])
def test_a_name_is_no_list_and_no_icon(name: str) -> None:
    text = soup_links.cell_text(name)
    assert text[1:] == name
    assert not text.isascii()


@pytest.mark.parametrize("name", ["Greedy · 3 of 15", "a [b]", "", "<b>x</b>"])
def test_other_names_are_unchanged(name: str) -> None:
    assert soup_links.cell_text(name) == name


@pytest.mark.parametrize(
    ("picked", "opened", "selected"),
    [
        (["run-01 soup"], "abc", ["run-01"]),
        ([["run-01 soup", 0.5]], "abc", ["run-01"]),
        (["run-01"], "", []),
        (["run-02", "run-01 soup"], "", ["run-01", "run-02"]),  # by a box
        (["base"], "", ["run-01"]),
    ],
)
def test_a_click_opens_a_soup_and_selects_ingredients(
    monkeypatch: pytest.MonkeyPatch, picked: list[Any], opened: str, selected: list[str]
) -> None:
    session = {"selection": ["run-01"], "soup": "", "section": "download"}
    monkeypatch.setattr(st, "session_state", session)
    view: Any = SimpleNamespace(sweep=SimpleNamespace(ingredients=RUNS))
    soup_links.pick(view, SOUPS)(picked)
    assert (session["soup"], session["selection"]) == (opened, selected)
    assert (session["section"] == "") == bool(opened)
