from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pages import soups
from pages.components import jobs, snippets, state
from pages.components.display import plain
from pages.components.soup_links import ALL, BUILD
from pages.components.state import View
from soupcore.jobs import State
from soupcore.store.soups import annotations
from soupcore.stored_soups import StoredSoups
from tests.pages import test_every_page
from tests.pages.conftest import NAMES
from tests.pages.test_every_page import App, Start

start, mapped = test_every_page.start, test_every_page.mapped


@pytest.mark.parametrize(
    ("sliders", "others"), [(4, ""), (3, "the other one has"), (2, "the other 2 have")]
)
def test_models_without_a_slider_are_mentioned(
    monkeypatch: pytest.MonkeyPatch, view: View, sliders: int, others: str
) -> None:
    captions: list[str] = []
    monkeypatch.setattr(st, "caption", captions.append)
    monkeypatch.setattr(soups, "_SLIDERS", sliders)
    monkeypatch.setattr(soups, "_evaluate_manual", lambda *coefficients: None)
    monkeypatch.setattr(snippets, "show", lambda code: None)
    soups._manual(view, NAMES)  # three ingredients and the base
    text = (
        f"Showing sliders for the first {sliders} models; {others} weight 0. Select fewer "
        "ingredients to adjust them."
    )
    assert captions[:-1] == ([text] if others else [])


@pytest.fixture
def app(start: Start) -> App:
    """The app on a toy sweep with evaluated ingredients and two soups."""
    app = start(known=True)
    app.build("uniform")
    app.build("greedy")
    return app


def press(session: AppTest, label: str) -> None:
    (button,) = [each for each in session.main.button if each.label == label]
    button.click().run()
    assert not session.exception


def all_soups(app: App) -> AppTest:
    return app.session("soups.py", tab=ALL)


def listed(session: AppTest) -> list[str]:
    table = next(t.value for t in session.main.dataframe if "built" in t.value)
    return sorted(table["name"])


def labels(app: App) -> dict[str, str]:
    return StoredSoups(state.store(), app.sweep).labels(str(app.sweep.folder), "")


def test_a_soup_is_named_noted_tagged_and_starred(app: App) -> None:
    soup = app.build("uniform")
    session = app.session("soup.py", soup=soup)
    name = next(box for box in session.text_input if box.placeholder == "Uniform · 3 of 3")
    name.set_value("<b>ours</b>").run()
    session.text_area[0].set_value("first *try*").run()
    press(session, "Star")
    stored = annotations(state.store(), [soup])[soup]
    assert (stored.name, stored.note, stored.starred) == ("<b>ours</b>", "first *try*", True)
    assert session.header[0].value == f"{plain('<b>ours</b>')} :material/star:"
    assert plain("first *try*") in [each.value for each in session.markdown]
    press(session, "All soups")
    assert "<b>ours</b>" in listed(session)
    for page in ("compare.py", "ingredients.py"):
        session.switch_page(page).run()
        assert not session.exception
        assert any("<b>ours</b>" in t.value.to_string() for t in session.dataframe)
        # The line above every page has it too.
        assert any(b.label == plain("<b>ours</b>") for b in session.button)
    assert set(labels(app).values()) >= {"<b>ours</b>"}


def test_a_link_to_a_missing_soup_shows_a_warning(app: App) -> None:
    session = app.session("soup.py")
    message = f"no soup with the id {plain('*no* soup')}"
    assert not any("no soup" in each.value for each in session.warning)
    session.session_state["soup"] = "*no* soup"
    session.switch_page("soup.py").run()
    assert [message in each.value for each in session.warning].count(True) == 1
    assert session.header[0].value in listed(all_soups(app))


def test_a_soup_stays_usable_when_a_rejected_candidate_is_gone(start: Start) -> None:
    app = start(known=True)
    soup = app.build("greedy")
    trace = StoredSoups(state.store(), app.sweep)[soup].soup.trace
    rejected = [step.candidate for step in trace if not step.accepted]
    assert rejected
    (app.sweep.folder / f"{rejected[0]}.safetensors").unlink()
    session = app.session("soup.py", soup=soup)
    assert not session.exception
    assert not session.error
    assert any("steps cannot be shown" in each.value for each in session.caption)
    session.session_state["section"] = "evidence"
    session.switch_page("soup.py").run()
    assert not session.exception
    assert not session.error
    assert any("bias cannot be estimated" in each.value for each in session.caption)
    session.session_state["section"] = ""
    press(session.switch_page("soup.py").run(), "Build again with…")
    assert session.query_params["recipe"] == "greedy"


def test_deleting_a_soup_can_be_undone_at_once_and_later(app: App) -> None:
    before = listed(all_soups(app))
    session = app.session("soup.py")
    press(session, "Delete")
    assert session.header[0].value == "Soups"
    assert len(listed(session)) == len(before) - 1
    press(session.switch_page("soups.py").run(), "Undo")
    assert listed(session) == before
    press(session.switch_page("soup.py").run(), "Delete")
    other = all_soups(app)  # another session has no undo, but the list
    assert not [each for each in other.main.button if each.label == "Undo"]
    press(other, "Restore")
    assert listed(other) == before


def test_a_soup_is_built_again_with_what_it_was_built_with(app: App) -> None:
    request = {"names": NAMES[:2], "parameters": {"density": 0.3}}
    rule = {"take": "!3.", "rest": ["base"]}
    soup = app.do("soup", recipe="ties", **request, tensors=rule)["soup"]
    session = app.session("soup.py", soup=soup)
    press(session, "Build again with…")
    assert session.session_state["tab"] == BUILD
    assert session.query_params["recipe"] == "ties"
    assert session.query_params["candidate"] == NAMES[:2]
    assert session.query_params["parameter"] == "ties.density=0.3"
    density = next(box for box in session.number_input if box.label == "Density k")
    assert density.value == 0.3
    assert any(b.label == "Build TIES soup from 2 ingredients" for b in session.button)
    assert session.query_params["take"] == "!3."
    assert session.query_params["rest"] == "base"
    assert any(each.label == "Tensors that take part (changed)" for each in session.expander)


def test_a_manual_soup_is_built_again_from_its_weights(app: App) -> None:
    request = {"coefficients": {"run1": "4/5", "run2": "1/5"}, "splits": app.splits, "keep": True}
    session = app.session("soup.py", soup=app.do("mixture", **request)["soup"])
    press(session, "Build again with…")
    assert {each.label: each.value for each in session.slider} == {
        "base": 0,
        "run1": 1,
        "run2": 0.25,
    }
    assert session.query_params["share"] == "run2=0.25"
    session.switch_page("overview.py").run().switch_page("soups.py").run()
    assert {each.label: each.value for each in session.slider} == {
        "base": 0,
        "run1": 1,
        "run2": 0.25,
    }


def test_the_form_opens_as_the_url_says(start: Start) -> None:
    app = start(known=True)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "Build greedy soup from 3 ingredients"),
        ({"selection": ["run1", "run2"]}, "Build greedy soup from 2 ingredients"),
        ({"recipe": "nonsense", "candidates": "x"}, "Build greedy soup from 3 ingredients"),
        (
            {"recipe": "swa", "candidates": "custom", "candidate": ["run2", "gone", "run1"]},
            "Build SWA soup from 2 ingredients",
        ),
        (
            {"recipe": "ties", "parameter": ["ties.density=9", "ties.gone=1", "dare.drop=0.2", ""]},
            "Build TIES soup from 3 ingredients",
        ),
    ]
    for query, label in cases:
        session = app.session("soups.py", **query)
        assert not session.exception
        assert label in [button.label for button in session.button]


def test_a_random_order_has_a_seed(start: Start) -> None:
    app = start(known=True)
    session = app.session("soups.py")
    assert "Seed" not in [box.label for box in session.number_input]
    order = next(c for c in session.segmented_control if c.label == "Order")
    order.set_value("random").run()
    assert "Seed" in [box.label for box in session.number_input]
    assert session.query_params["parameter"] == "greedy.order=random"
    session.switch_page("overview.py").run().switch_page("soups.py").run()
    order = next(c for c in session.segmented_control if c.label == "Order")
    assert order.value == "random"


def test_several_recipes_are_built_in_one_job_with_one_price(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = start(known=True)
    added: dict[str, Any] = {}

    def submit(kind: str, title: str, request: dict[str, Any]) -> int:
        result = app.do(kind, **{name: request[name] for name in ("recipes", "names")})
        added["job"] = SimpleNamespace(
            id=7, kind=kind, title=title, request=request, result=result, partial=None, error=None,
            state=State.DONE, is_unfinished=False,
        )  # fmt: skip
        return 7

    monkeypatch.setattr(jobs, "submit", submit)
    monkeypatch.setattr(jobs, "get", lambda job_id: added.get("job"))
    session = app.session("soups.py")
    one = next(each.value for each in session.caption if each.value.startswith("Cost:"))
    also = next(each for each in session.multiselect if each.label == "Also build")
    also.set_value(["uniform", "weighted"]).run()
    assert session.query_params["also"] == ["uniform", "weighted"]
    three = next(each.value for each in session.caption if each.value.startswith("Cost:"))
    assert "final soup on 4 splits" in one
    assert "3 final soups on 4 splits" in three
    cost = [int(text.split("up to ")[1].split(" ")[0]) for text in (one, three)]
    assert cost[1] == cost[0] + 2 * 4
    press(session, "Build 3 soups from 3 ingredients")
    assert added["job"].title == "3 soups from 3 candidates (Greedy, Uniform, Weighted)"
    shown = [each.value for each in session.markdown]
    for title in ("Greedy", "Uniform", "Weighted"):
        assert f":material/check_circle: {title} soup is ready." in shown
        assert any(each.startswith("##### ") and title in each for each in shown)
    session.switch_page("overview.py").run().switch_page("soups.py").run()
    also = next(each for each in session.multiselect if each.label == "Also build")
    assert also.value == ["uniform", "weighted"]
