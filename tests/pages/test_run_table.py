"""The run table: base and soups as rows, differences, filters, order and columns in the URL."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from pandas.io.formats.style import Styler
from streamlit.testing.v1 import AppTest

from pages import ingredients
from pages.components import display, run_table, state
from pages.components.run_table import RunTable
from pages.components.state import View
from soupcore.overview import Overview, ranked
from tests.pages import test_every_page
from tests.pages.test_every_page import LOWER, NAMES, App, Start

start, mapped = test_every_page.start, test_every_page.mapped


def open_table(app: App, **query: Any) -> AppTest:
    session = app.session("ingredients.py", **query)
    assert not session.exception, session.exception[0].message
    return session


def table_of(session: AppTest) -> pd.DataFrame:
    (table,) = (each.value for each in session.dataframe)
    assert isinstance(table, pd.DataFrame)
    return table


def known(app: App) -> Overview:
    return Overview.of(app.warm.context(app.request))


@pytest.mark.parametrize(
    ("task", "score", "sign", "scale"),
    [
        pytest.param("", "accuracy, %", 1, 100, id="share"),
        pytest.param(LOWER, "MAE, K", -1, 1, id="lower is better"),
    ],
)
def test_base_and_soups_are_rows_and_differ_from_the_best_ingredient(
    start: Start, task: str, score: str, sign: int, scale: int
) -> None:
    app = start(task=task)
    app.evaluate()
    app.map_weights()
    app.build("uniform")
    label = "Uniform · 3 of 3"
    found = known(app)
    assert found.best is not None
    assert found.headline is not None
    session = open_table(app)
    table = table_of(session).set_index("name")
    assert dict(table["kind"]) == dict.fromkeys(NAMES, "ingredient") | {
        "base": "base",
        label: "soup",
    }
    by_name = {**found.runs, label: found.of_soups[found.headline.soup.id]}
    unit = "pp" if scale == 100 else "K"
    for split, title in {"val": "validation", "test": "test"}.items():
        scores = {name: by_split[split].score for name, by_split in by_name.items()}  # type: ignore[union-attr]
        for name in table.index:
            assert table.loc[name, f"{title} {score}"] == pytest.approx(sign * scale * scores[name])
            gain = sign * scale * (scores[name] - scores[found.best])
            assert table.loc[name, f"Δ {title}, {unit}"] == pytest.approx(gain, abs=1e-9)
    assert table.index[0] == found.best
    rest = [sign * value for value in table[f"validation {score}"]][1:]
    assert rest == sorted(rest, reverse=True)
    _, overview, *_ = session.get("plotly_chart")
    drawn = json.loads(overview.proto.spec)["data"][0]["y"]
    assert drawn[::-1] == ranked(found.runs, app.select, NAMES)  # the best on top


def test_cells_show_intervals_and_stay_numbers(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = start(known=True)
    shown: list[Styler] = []
    make = run_table.styled

    def keep(table: RunTable, frame: pd.DataFrame, rows: list[int]) -> Styler:
        shown.append(make(table, frame, rows))
        return shown[-1]

    monkeypatch.setattr(run_table, "styled", keep)
    session = open_table(app)
    best = known(app).runs[str(known(app).best)]["val"]
    assert best is not None
    low, high = best.score_interval
    column = "validation accuracy, %"
    assert table_of(session)[column].dtype == np.float64
    html = shown[-1].to_html()
    assert f"{100 * best.score:.2f} ± {50 * (high - low):.2f}<" in html
    assert "baseline<" in html


def test_basins_distances_and_coefficients_are_those_stored(start: Start) -> None:
    app = start()
    app.evaluate()
    bare = table_of(open_table(app))
    assert {"basin", "distance to base", "in soup"}.isdisjoint(bare.columns)
    app.map_weights()
    app.build("uniform")
    table = table_of(open_table(app)).set_index("name")
    assert [table.loc[name, "in soup"] for name in NAMES] == pytest.approx([1 / 3] * 3)
    assert table["in soup"].isna()["base"]
    basins = known(app).basins
    for number, basin in enumerate(basins, start=1):
        assert [table.loc[name, "basin"] for name in basin.names] == [number] * len(basin.names)
    base = app.sweep["base"].checkpoint
    for name in NAMES:
        other = app.sweep[name].checkpoint
        squares = [
            float(((other.read(key).double() - base.read(key).double()) ** 2).sum())
            for key, info in base.tensors.items()
            if info.dtype.is_floating_point and "running" not in key
        ]
        assert table.loc[name, "distance to base"] == pytest.approx(math.sqrt(sum(squares)))
    assert table.loc["base", "distance to base"] == 0


def test_a_pinned_baseline_comes_first_and_is_in_the_url(start: Start) -> None:
    app = start(known=True)
    session = open_table(app)
    box = next(box for box in session.selectbox if box.label == "Baseline")
    box.set_value("base").run()
    assert session.query_params["baseline"] == "base"
    again = table_of(open_table(app, baseline="base"))
    for table in (table_of(session), again):
        assert table["name"][0] == "base"
        assert table["Δ test, pp"][0] == 0
        scores = table["test accuracy, %"]
        assert [*table["Δ test, pp"]] == pytest.approx([*(scores - scores[0])])
    unknown = table_of(open_table(app, baseline="nobody"))
    assert unknown["name"][0] == known(app).best


def test_the_url_keeps_the_filter_the_order_and_the_columns(start: Start) -> None:
    app = start(known=True)
    app.build("uniform")
    session = open_table(app)
    session.text_input(f"filter-{app.sweep.folder}").set_value("lr < 0.5 or kind = soup").run()
    next(box for box in session.selectbox if box.label == "Sort by").set_value("lr").run()
    next(box for box in session.segmented_control if box.label == "Order").set_value(
        "descending"
    ).run()
    columns, _ = session.multiselect
    assert "shift/a accuracy, %" in columns.options
    assert "shift/a accuracy, %" not in columns.value
    assert "hash" not in columns.value
    assert "status" not in columns.value  # since everything is evaluated
    shown = [c for c in columns.value if c != "kind"]
    columns.set_value([*shown, "shift/a accuracy, %"]).run()
    session.multiselect[1].set_value(["seed", "loss"]).run()
    kept = ("filter", "sort", "order", "hide", "show", "first")
    url = {name: session.query_params[name] for name in kept}
    assert url == {
        "filter": "lr < 0.5 or kind = soup",
        "sort": "lr",
        "order": "descending",
        "hide": "kind",
        "show": "shift/a accuracy, %",
        "first": ["seed", "loss"],
    }
    best = str(known(app).best)
    expected = [name for name in ("run2", "run10") if name != best]
    expected = [*([best] if best != "run1" else []), *expected]
    for each in (session, open_table(app, **url)):
        assert not each.exception
        assert [*table_of(each)["name"]][:-1] == expected
        assert table_of(each)["kind"].iloc[-1] == "soup"
        order = each.dataframe[0].proto.column_order
        assert "kind" not in order
        assert "shift/a accuracy, %" in order
        assert order[:4] == ["", "name", "seed", "loss"]


def test_an_invalid_filter_shows_a_warning_and_hides_nothing(start: Start) -> None:
    session = open_table(start(), filter="lx < 1")
    assert [*table_of(session)["name"]] == [*NAMES, "base"]
    assert any("no column “lx”" in warning.value for warning in session.warning)
    session.text_input[0].set_value("name = nobody").run()
    assert not session.dataframe
    assert any("No row matches the filter" in info.value for info in session.info)


def test_only_ingredients_are_selected_and_hidden_rows_keep_their_state(
    monkeypatch: pytest.MonkeyPatch, view: View
) -> None:
    session = {"view": view, "selection": ["run1"], "table": {"selection": {"rows": [0, 2]}}}
    monkeypatch.setattr(st, "session_state", session)
    toasts: list[str] = []
    monkeypatch.setattr(st, "toast", toasts.append)
    ingredients._take_rows("table", ["run10", "run2", "base"])
    assert session["selection"] == ["run1", "run10"]
    assert toasts == ["Only ingredients can be selected here, not soups or the base."]
    session["table"] = {"selection": {"rows": []}}
    ingredients._take_rows("table", ["run10", "run2", "base"])
    assert session["selection"] == ["run1"]
    assert len(toasts) == 1


def test_ticks_belong_to_one_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    session: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", session)
    keys = [display.tick_rows("table", rows, ["a"]) for rows in (["a", "b"], ["b", "a"])]
    assert [session[key]["selection"]["rows"] for key in keys] == [[0], [1]]
    assert keys[0] != keys[1]  # what a browser sends for one order is not taken for the other
    assert display.tick_rows("table", ["a", "b"], ["a"]) == keys[0]


def test_the_details_of_a_row_have_paired_intervals(start: Start) -> None:
    app = start(known=True)
    app.build("uniform")
    label = "Uniform · 3 of 3"
    session = open_table(app)
    session.session_state["row-detail"] = True
    session.run()
    assert not session.exception
    box = next(box for box in session.selectbox if box.label == "Row")
    assert box.value == label
    found = known(app)
    assert found.headline is not None
    gain = found.gain(found.headline.soup.id, "test")
    assert gain is not None
    assert gain.interval is not None
    details = session.dataframe[1].value.set_index("split")
    low, high = gain.interval
    assert details.loc["test", "95% CI"] == f"{100 * low:+.2f} to {100 * high:+.2f}"
    assert details.loc["test", "n"] == gain.n


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00012345, "0.000123"),
        (1e-4, "0.0001"),
        (0.5, "0.5"),
        (256, "256"),
        (2.0, "2"),
        (1234.5, "1234"),
        (1.5e7 + 0.5, "1.5e+07"),
        (123456789, "123456789"),
        (1e30, "1e+30"),
        (math.nan, "–"),
        (pd.NA, "–"),
        (math.inf, "inf"),
    ],
)
def test_numbers_have_three_significant_digits_unless_whole(value: Any, text: str) -> None:
    assert run_table.number_text(value) == text


def test_choosing_another_sweep_forgets_the_view_of_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = {"filter": "lr < 1", "sort": "lr", "order": "descending", "baseline": "x",
               "hide": "hash", "show": ["y"]}  # fmt: skip
    monkeypatch.setattr(st, "session_state", session)
    monkeypatch.setattr(state, "opened", set)
    state.choose_sweep("folder", "")
    assert {session[name] for name in ("filter", "sort", "order", "baseline")} == {""}
    assert session["hide"] == session["show"] == []


def test_brushes_are_part_of_the_filter_and_select(start: Start) -> None:
    app = start(known=True)
    session = open_table(app, filter="run and lr > 1e-9")
    assert any("Parallel coordinates" in each.value for each in session.subheader)
    axis = next(box for box in session.selectbox if box.label == "Axis")
    assert axis.options[-1] == "validation accuracy, %"
    axis.set_value("lr").run()
    (slider,) = session.select_slider
    rates = {name: 10.0**-place for place, name in enumerate(NAMES)}
    low, high = sorted(rates.values())[:2]
    assert slider.value == (low, 1)
    slider.set_value((low, high)).run()
    assert not session.exception
    assert session.query_params["filter"] == f"run and lr <= {high:g}"
    names = [name for name in NAMES if rates[name] <= high]
    assert session.query_params["selection"] == names
    assert sorted(table_of(session)["name"]) == sorted(names)
    again = open_table(app, filter=session.query_params["filter"])
    clear = next(button for button in again.button if button.label == "Clear brushes")
    assert not clear.disabled
    clear.click().run()
    assert again.query_params["filter"] == "run"
    assert "selection" not in again.query_params


def test_a_group_has_the_scores_of_its_ingredients_and_its_tick_selects_them(start: Start) -> None:
    app = start(known=True)
    rows = [
        {"checkpoint": name, "optimizer": optimizer, "lr": 0.1}
        for name, optimizer in zip(NAMES, ("sgd", "adamw", "sgd"), strict=True)
    ]
    (app.sweep.folder / "sweep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    session = open_table(app, group="optimizer")
    groups = session.dataframe[0].value
    runs = known(app).runs
    found_of = {name: runs[name][app.select] for name in NAMES}
    accuracy = {name: 100 * each.score for name, each in found_of.items() if each is not None}
    sgd = [accuracy["run1"], accuracy["run10"]]
    expected = {"sgd": (2, max(sgd), np.mean(sgd), min(sgd)), "adamw": (1, *3 * [accuracy["run2"]])}
    found = {
        row["optimizer"]: (row["ingredients"], row["best"], row["mean"], row["worst"])
        for _, row in groups.iterrows()
    }
    assert found == {group: pytest.approx(each) for group, each in expected.items()}
    assert list(groups["best"]) == sorted(groups["best"], reverse=True)
    assert any("Tick a group" in caption.value for caption in session.caption)
