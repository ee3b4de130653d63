"""What results print, and their tables and figures."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from html import unescape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import soupcore
from soupcore import Evaluator, Sweep
from soupcore.display import capitalised, counted, html_table, in_words, number
from soupcore.tasks import PLAIN, Labels, Unit
from tests.pages.hostile import MARKUP

NAMES = ["run1", "run2"]


class Shown(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def results(sweep: Sweep, evaluator: Evaluator) -> dict[str, Any]:
    a, b = (sweep[name] for name in NAMES)
    return {
        "evaluation": evaluator.evaluate(a.mixture, "val"),
        "task": evaluator.task,
        "path": soupcore.linear_path(a, b, evaluator, 3),
        "barriers": soupcore.barriers(sweep, evaluator, NAMES, 3),
        "plane": soupcore.plane(sweep, evaluator, ["base", "run1", b.mixture], 7),
        "geometry": soupcore.geometry(sweep, evaluator.store),
        "soup": soupcore.uniform(sweep, NAMES).evaluate(evaluator, ["val", "test"]),
        "curve": soupcore.curve("wise_ft", "alpha", sweep, evaluator, values=[0.5, 0]),
    }


SCORE = r"accuracy \d+\.\d\d % \[\d+\.\d, \d+\.\d\]"
REPRS = {
    "evaluation": rf"Evaluation\(val: {SCORE}, n = 100\)",
    "task": r"ClassificationTask\('toy', \{train: train, val: select, test: report, "
    r"shift/noise: shift\}\)",
    "path": r"LinearPath\(run1 → run2 on val: 3 α values, loss barrier [\d.]+ to [\d.]+\)",
    "barriers": r"Barriers\(1 of 1 pairs of 2 ingredients, loss barrier ([\d.]+) to \1\)",
    "plane": r"Plane\(base, run1, C on val: 7×7 points, loss [\d.]+ to [\d.]+\)",
    "geometry": r"Geometry\(3 ingredients, \d+ layers, distance from base [\d.]+ to [\d.]+\)",
    "soup": rf"Soup\(uniform, \{{run1: 1/2, run2: 1/2\}}; val: {SCORE}; test: {SCORE}\)",
    "curve": rf"Curve\(wise_ft, 2 values of alpha, best 0(\.5)?: val {SCORE}\)",
}
FRAMES = {  # rows and columns
    "evaluation": (100, ["loss", "score", "prediction"]),
    "path": (3, ["first", "second", "split", "n", "alpha", "loss", "chord", "score"]),
    "plane": (7 * 7 + 3, ["x", "y", "loss", "score", "split", "name", "distance"]),
    "geometry": (3 * 6, ["ingredient", "layer", "distance", "relative distance"]),
    "soup": (2, ["score", "low", "high", "loss", "n"]),
    "curve": (2, ["alpha", "split", "score", "low", "high", "loss", "n"]),
}


def test_results_have_a_readable_repr(results: dict[str, Any]) -> None:
    shown = {name: repr(results[name]) for name in REPRS}
    assert {name: bool(re.fullmatch(REPRS[name], text)) for name, text in shown.items()} == (
        dict.fromkeys(REPRS, True)
    ), shown


def test_an_evaluator_has_a_readable_repr(evaluator: Evaluator) -> None:
    assert repr(evaluator) == f"Evaluator('toy' on cpu, stored in {evaluator.store.folder})"


def test_coefficients_are_shown_as_short_fractions_or_decimals(sweep: Sweep) -> None:
    coefficients = {"run1": Fraction(1, 3), "run2": Fraction(1, 1000)}
    coefficients["run10"] = Fraction(2, 3) - Fraction(1, 1000)
    soup = soupcore.manual(sweep, coefficients)
    assert soup.coefficient_texts == {"run1": "1/3", "run2": "0.001", "run10": "0.6657"}
    assert repr(soupcore.ties(sweep, NAMES)) == "Soup(ties, {run1, run2, base})"


def test_results_are_tables_and_figures(results: dict[str, Any]) -> None:
    frames = {name: results[name].to_frame() for name in FRAMES}
    assert {n: (len(frame), [*frame.columns]) for n, frame in frames.items()} == FRAMES
    evaluation, soup = results["evaluation"], results["soup"]
    means = frames["evaluation"][["loss", "score"]].mean()
    assert means.tolist() == pytest.approx([evaluation.loss, evaluation.score])
    assert frames["soup"].loc["test", "score"] == soup.evaluations["test"].score
    assert results["barriers"].to_frame()["loss barrier"].tolist() == [
        results["barriers"].loss[0, 1]
    ]
    distances = frames["geometry"].groupby("ingredient")["distance"].agg(np.linalg.norm)
    assert distances[[*results["geometry"].names]].tolist() == pytest.approx(
        results["geometry"].norms.tolist()
    )
    curve = frames["curve"].set_index("alpha")["score"]
    assert curve.tolist() == results["curve"].scores()


def test_figures_are_one_call_away(results: dict[str, Any]) -> None:
    drawn = {
        name: results[name].figure() for name in ("path", "barriers", "plane", "geometry", "curve")
    }
    assert all(len(figure.data) for figure in drawn.values())
    assert drawn["path"].layout.yaxis2.title.text == "accuracy, %"
    assert np.allclose(drawn["barriers"].data[0].z, results["barriers"].loss, equal_nan=True)
    assert len(results["geometry"].figure(by_layer=True).data[0].x) == 3


def test_every_html_table_has_the_results(results: dict[str, Any]) -> None:
    wanted = {
        "evaluation": ["val", "accuracy", "100"],
        "task": ["Task toy", "shift/noise", "80"],
        "barriers": ["Loss barriers on val", "run1", number(results["barriers"].loss[0, 1])],
        "soup": ["Soup by uniform", "1/2", "test", "90"],
    }
    for name, texts in wanted.items():
        assert {*texts} <= {*Shown(results[name]._repr_html_()).texts}, name


@pytest.mark.parametrize("name", ["evaluation", "barriers", "soup"])
def test_names_are_escaped(results: dict[str, Any], name: str) -> None:
    hostile = f"{MARKUP}<script>alert(1)</script>"
    labels = Labels(hostile, hostile, PLAIN)
    changed: dict[str, Callable[[], Any]] = {
        "evaluation": lambda: replace(results[name], split=hostile, labels=labels),
        "barriers": lambda: replace(results[name], names=(hostile, "run2"), paths={}),
        "soup": lambda: replace(
            results[name], recipe=hostile, sources={hostile: None}, notes=(hostile,)
        ),
    }
    shown = Shown(changed[name]()._repr_html_())
    assert shown.tags <= {"p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert any(hostile in text for text in shown.texts)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1200, "1,200 runs")]
)
def test_a_count_has_its_noun(count: int, text: str) -> None:
    assert counted(count, "run") == text


def test_a_table_escapes_shortens_and_rounds() -> None:
    rows: list[list[object]] = [["<i>", 1.23456789, 7, None, True]] + [
        ["x", math.nan, 0, "", ""]
    ] * 80
    shown = Shown(html_table("<u>", ["a", "b", "c", "d", "e"], rows, note='"&'))
    assert shown.tags <= {"p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert shown.texts[:10] == ["<u>", "a", "b", "c", "d", "e", "<i>", "1.235", "7", "True"]
    assert shown.texts[-2:] == ["… and 21 more", '"&']


@pytest.mark.parametrize(
    ("score", "interval", "labels", "text"),
    [
        (0.8914, (0.866, 0.912), Labels("loss", "accuracy", soupcore.tasks.SHARE),
         "accuracy 89.14 % [86.6, 91.2]"),
        (-12.345678, (-13.5, -11), Labels("loss", "MSE", Unit(False, -1, "K²")),
         "MSE 12.35 K² [11, 13.5]"),
        (-0.25, (-0.3, -0.2), Labels("loss", "WER", Unit(True, -1)), "WER 25.00 % [20.0, 30.0]"),
        (0.5, (math.nan, math.nan), Labels(), "score 0.5000"),
        (math.nan, (math.nan, math.nan), Labels(), "score –"),
    ],
)  # fmt: skip
def test_a_score_is_written_in_the_tasks_unit(
    results: dict[str, Any], score: float, interval: Any, labels: Labels, text: str
) -> None:
    changed = replace(results["evaluation"], score=score, score_interval=interval, labels=labels)
    assert repr(changed) == f"Evaluation(val: {text}, n = 100)"


def test_predictions_of_several_numbers_have_no_column(
    results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(results["evaluation"]), "predictions", property(lambda self: torch.zeros(100, 2))
    )
    assert [*results["evaluation"].to_frame().columns] == ["loss", "score"]


def test_the_text_of_a_table_is_unescaped_by_a_browser_to_the_same() -> None:
    assert unescape(html_table(MARKUP, [], [])).count(MARKUP) == 1


def test_a_frame_is_a_data_frame(results: dict[str, Any]) -> None:
    assert all(isinstance(results[name].to_frame(), pd.DataFrame) for name in FRAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy", "Accuracy"),
        ("mAP50-95", "mAP50-95"),
        ("macro F1", "Macro F1"),
        ("nats per token", "Nats per token"),
        ("R²", "R²"),
        ("", ""),
    ],
)
def test_texts_begin_with_a_capital_unless_their_first_word_has_one_inside(
    text: str, expected: str
) -> None:
    assert capitalised(text) == expected


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1_500_000, "1.5 MB"),
        (2_345_678_901, "2.35 GB"),
        (5e12, "5 TB"),
    ],
)
def test_sizes_are_written_with_three_digits(nbytes: float, words: str) -> None:
    assert in_words(nbytes) == words
