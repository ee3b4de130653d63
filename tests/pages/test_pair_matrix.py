import pytest
import streamlit as st

from pages.components import pair_matrix
from pages.components.state import View
from soupcore import barriers
from soupcore.connectivity import evaluate_lines
from soupcore.connectivity.adaptive import lobatto

PAIR = ("run1", "run2")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> pair_matrix.Asked:
    monkeypatch.setattr(pair_matrix, "SCREEN", 10)  # of the 30 examples of a split
    monkeypatch.setattr(st, "session_state", {})
    return pair_matrix.Asked(PAIR, "adaptive", "val", "loss", True)


def test_a_screen_is_shown_until_more_is_known_of_the_whole(
    view: View, asked: pair_matrix.Asked
) -> None:
    ends = [(view.sweep[a], view.sweep[b]) for a, b in [PAIR]]
    part = view.task.part("val", pair_matrix.SCREEN)
    evaluate_lines(ends, view.evaluator, lobatto(4))
    assert pair_matrix.find(view, asked).best.paths[PAIR].split == "val"
    evaluate_lines(ends, view.evaluator, 3, split=part)  # as the whole's last look at its gaps does
    found = pair_matrix.find(view, asked)
    assert found.screen is not None
    assert PAIR in found.screen.open
    assert (found.best.paths[PAIR].split, len(found.best.paths[PAIR].alphas)) == ("val", 5)
    assert PAIR in found.best.open
    barriers(view.sweep, view.evaluator, PAIR, split=part)
    assert pair_matrix.find(view, asked).best.paths[PAIR].split == part
    barriers(view.sweep, view.evaluator, PAIR)
    found = pair_matrix.find(view, asked)
    assert (found.best.paths[PAIR].split, found.best.open) == ("val", frozenset())
