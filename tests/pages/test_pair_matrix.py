from collections.abc import Mapping
from dataclasses import astuple, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import streamlit as st

from pages.components import display, pair_matrix, state
from pages.components.pair_matrix import basin_sentences
from pages.components.state import View
from soupcore import LinearPath, barriers, basins
from soupcore.connectivity import LineSummary, PairSummaries, evaluate_lines, summaries
from soupcore.connectivity.adaptive import lobatto
from soupcore.jobs.kinds import WarmState
from tests.pages.conftest import do_jobs_at_once, evaluator_of

PAIR = ("run1", "run2")


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch, view: View) -> pair_matrix.Choices:
    monkeypatch.setattr(summaries, "SCREEN", 10)  # of the 30 examples of a split
    monkeypatch.setattr(st, "session_state", {"pairs": []})
    monkeypatch.setattr(state, "opened", lambda: {view.folder})
    store = view.evaluations.store
    do_jobs_at_once(monkeypatch, WarmState(store, [view.task_spec], "cpu"))
    return pair_matrix.Choices(PAIR, "adaptive", "val", "loss", True)


def screened(found: pair_matrix.Summaries) -> bool:
    """Whether what is shown of the pair is of a part of the split."""
    (is_screened,) = found.best.screened.tolist()
    return bool(is_screened)


def test_a_screen_is_shown_until_the_whole_split_is_evaluated(
    view: View, choices: pair_matrix.Choices
) -> None:
    ends = [(view.sweep[a], view.sweep[b]) for a, b in [PAIR]]
    evaluator = evaluator_of(view)
    part = evaluator.task.part("val", summaries.SCREEN)
    evaluate_lines(ends, evaluator, lobatto(4))
    assert screened(pair_matrix.look_up(view, choices)) is False
    evaluate_lines(ends, evaluator, 3, split=part)  # as the whole's last look at its gaps does
    found = pair_matrix.look_up(view, choices)
    assert found.screen is not None
    assert not found.screen.settled.any()
    assert (screened(found), found.best.paths[PAIR].points) == (False, 5)
    assert found.best.preliminary == [PAIR]
    barriers(view.sweep, evaluator, PAIR, split=part)
    assert screened(pair_matrix.look_up(view, choices)) is True
    barriers(view.sweep, evaluator, PAIR)
    found = pair_matrix.look_up(view, choices)
    assert (screened(found), found.best.preliminary) == (False, [])


def test_tight_clusters_of_a_large_sweep_are_one_row_until_a_click_unfolds_them(
    monkeypatch: pytest.MonkeyPatch, view: View, choices: pair_matrix.Choices
) -> None:
    names = ["a", "b", "c", "d", "e"]
    choices = replace(choices, names=names)
    values = np.full((5, 5), 0.01)
    values[4, :4] = values[:4, 4] = [0.4, 0.2, 0.3, NAN]
    pairs = np.array([pair for pair in combinations(range(5), 2) if pair != (3, 4)])
    path = LinearPath(np.array([0, 1]), np.zeros(2), np.zeros(2), split="val", n=9)
    known = PairSummaries(
        tuple(names),
        pairs,
        np.tile(astuple(LineSummary.of(path)), (len(pairs), 1)),
        np.ones(len(pairs), dtype=bool),
        (pairs == 4).any(axis=1),
    )
    found = pair_matrix.Summaries(known, None, known)
    drawn: list[Any] = []
    monkeypatch.setattr(pair_matrix, "_FOLDED_FROM", 5)
    monkeypatch.setattr(
        display, "show_figure", lambda f, *_, on_pick, **__: drawn.append((f, on_pick))
    )
    monkeypatch.setattr(st, "pills", lambda *_, key, **__: st.session_state.get(key, []))

    def draw() -> Any:
        pair_matrix.draw(view, choices, found, values, 0.1, basins(names, values, 0.1))
        return drawn[-1]

    figure, on_pick = draw()
    label = "Cluster 1 (4)"
    assert {*figure.layout.yaxis2.ticktext} == {f"{label} · B1", "e"}
    between = next(text for a, b, text in figure.data[-1].customdata if a == label)
    assert between == "loss barrier 0.400 · highest of 4 pairs · lowest 0.2"
    faded = next(trace for trace in figure.data if trace.name == "preliminary")
    assert np.nanmax(faded.z) == 0.4
    on_pick([[label, "e", ""]])
    assert {*draw()[0].layout.yaxis2.ticktext} == {*(f"{name} · B1" for name in "abcd"), "e"}
    assert st.session_state["pairs"] == []


NAN = np.nan


def sentences(k: int, barriers: Mapping[str, float]) -> list[str]:
    """The sentences about k ingredients of which some pairs were evaluated."""
    names = "abcdefghijklmnopqrstuvwxyz"[:k]
    matrix = np.full((k, k), NAN)
    np.fill_diagonal(matrix, 0.0)
    known = np.eye(k, dtype=bool)
    for pair, barrier in barriers.items():
        i, j = map(names.index, pair)
        matrix[i, j] = matrix[j, i] = barrier
        known[i, j] = known[j, i] = True
    return basin_sentences(basins(names, matrix, 0.1, known=known), evaluated=len(barriers))


ALL_APART = dict.fromkeys(map("".join, combinations("abcd", 2)), 0.5)


@pytest.mark.parametrize(
    ("k", "barriers", "expected"),
    [
        pytest.param(
            15,
            {"ab": 0.05},
            [
                "From 1 of 105 pairs; basins may still grow.",
                "**2 of 15 ingredients share a basin (B1):** a, b",
                "**13 ingredients are not linked yet:** c, d, e, f, g, h, i, j, k, l, m, n, o",
            ],
            id="one pair of many",
        ),
        pytest.param(
            15,
            {"ab": 0.5},
            [
                "From 1 of 105 pairs; basins may still grow.",
                "No evaluated pair shares a basin.",
            ],
            id="one pair of many, and that one apart",
        ),
        pytest.param(4, ALL_APART, ["No two ingredients share a basin."], id="all apart"),
        pytest.param(
            4,
            ALL_APART | {"ab": 0.0, "bc": 0.1},
            [
                "**3 of 4 ingredients share a basin (B1):** a, b, c (1 pair exceeds the threshold "
                "and is connected only through other ingredients: a – c)",
                "**1 ingredient shares no basin with another:** d",
            ],
            id="a chain, with all pairs evaluated",
        ),
        pytest.param(
            3,
            {"ab": 0.0, "bc": 0.1},
            [
                "From 2 of 3 pairs.",
                "**All 3 ingredients share a basin (B1):** a, b, c (1 pair not evaluated yet)",
            ],
            id="a chain, with its ends unknown",
        ),
        pytest.param(
            4,
            {"ab": 0.0, "ad": 0.5, "bd": 0.5, "cd": 0.5},
            [
                "From 4 of 6 pairs; basins may still grow.",
                "**2 of 4 ingredients share a basin (B1):** a, b",
                "**1 ingredient shares no basin with another:** d",
                "**1 ingredient is not linked yet:** c",
            ],
            id="one is known to be apart, one is not",
        ),
        pytest.param(
            4,
            ALL_APART | {"ab": 0.0, "cd": 0.0, "ac": NAN},
            [
                "**2 of 4 ingredients share a basin (B1):** a, b",
                "**2 of 4 ingredients share a basin (B2):** c, d",
            ],
            id="a barrier that is undefined is known, and connects nothing",
        ),
        pytest.param(
            25,
            {f"a{other}": 0.0 for other in "bcdefghijklmnopqrstuvwxy"},
            [
                "From 24 of 300 pairs.",
                "**All 25 ingredients share a basin (B1):** a, b, c, d, e … and 20 more "
                "(276 pairs not evaluated yet)",
            ],
            id="many names",
        ),
        pytest.param(1, {}, ["No two ingredients share a basin."], id="one ingredient"),
    ],
)
def test_basin_sentences_follow_from_the_evaluated_pairs(
    k: int, barriers: Mapping[str, float], expected: list[str]
) -> None:
    assert sentences(k, barriers) == expected


def test_basin_sentences_count_preliminary_pairs() -> None:
    names, matrix = "abc", np.array([[0, 0, 0.5], [0, 0, 0.5], [0.5, 0.5, 0]])
    assert basin_sentences(basins(names, matrix, 0.1), evaluated=3, preliminary=2) == [
        "From 3 of 3 pairs, 2 of them preliminary; basins may still change.",
        "**2 of 3 ingredients share a basin (B1):** a, b",
        "**1 ingredient shares no basin with another:** c",
    ]
