import pytest
import streamlit as st

from pages import soups
from pages.components import snippets
from pages.components.state import View
from tests.pages.conftest import NAMES


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
