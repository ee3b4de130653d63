from pathlib import Path

import pytest

from soupcore import Evaluator, Sweep, greedy, manual, model_card, ties, uniform
from tests.helpers import State, save_sweep


def test_a_card_describes_the_soup_and_has_the_code_that_makes_it(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = greedy(sweep, evaluator).evaluate(evaluator)
    card = model_card(soup, score_name="accuracy", figure="scatter.png")
    front, _, body = card.removeprefix("---\n").partition("---\n")
    hint, *rest = front.splitlines()
    assert hint.startswith("# base_model: ")
    assert rest == ["tags:", "- merge", "- model-soup"]
    assert f"# Greedy soup {soup.id}" in body
    assert "arXiv:2203.05482" in body
    assert "`accept` = `'>='`" in body
    assert "| split | accuracy | loss | examples |" in body
    for split, found in soup.evaluations.items():
        chosen = " (for choosing)" if split == "val" else ""
        assert f"| {split}{chosen} | {found.score:.4f} | {found.loss:.4f} | {found.n} |" in body
    for name, coefficient in soup.coefficients.items():
        digest = soup.digests[name][:16]
        assert f"| {name} | {float(coefficient):.6g} | `{digest}` |" in body
    assert "Scores on val are optimistic" in body
    assert "![Scores of the soup and of the ingredients](scatter.png)" in body
    assert "soupcore.rebuild(manifest" in body


@pytest.mark.parametrize(
    ("models", "relation"), [(["me/run-1", "me/run-2"], "merge"), (["them/base"], "finetune")]
)
def test_the_front_matter_names_models_on_the_hub(
    sweep: Sweep, models: list[str], relation: str
) -> None:
    card = model_card(ties(sweep), title="My soup", base_models=models)
    front = card.split("---\n")[1].splitlines()
    named = [f'- "{model}"' for model in models]
    expected = ["base_model:", *named, f"base_model_relation: {relation}"]
    assert front == [*expected, "tags:", "- merge", "- model-soup"]
    assert "# My soup" in card
    assert "| base | base | `" in card
    assert "| run1 | ingredient | `" in card
    assert "## Scores" not in card


@pytest.mark.parametrize("score", [float("nan"), 0.5])
def test_numbers_that_are_none_are_dashes(sweep: Sweep, score: float) -> None:
    soup = manual(sweep, {"run1": 1})
    soup.recorded = {
        "scores": {"val": {"score": None if score != score else score, "loss": None, "n": 3}}
    }
    shown = "–" if score != score else "0.5000"
    assert f"| val | {shown} | – | 3 |" in model_card(soup)
    assert model_card(soup).count("# Manual soup") == 1


def test_the_select_split_is_marked_for_recipes_without_choices(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = ties(sweep).evaluate(evaluator)
    assert "for choosing" not in model_card(soup)
    card = model_card(soup, select=evaluator.task.select)
    assert f"| val (for choosing) | {soup.evaluations['val'].score:.4f} |" in card
    assert card.count("(for choosing)") == 1


def test_names_do_not_break_the_tables(tmp_path: Path, states: dict[str, State]) -> None:
    soup = uniform(Sweep.from_folder(save_sweep(tmp_path, {"lr=1|wd=0": states["run1"]})))
    assert f"| lr\\=1\\|wd\\=0 | 1 | `{soup.digests['lr=1|wd=0'][:16]}` |" in model_card(soup)


def test_the_value_is_written_for_metrics_whose_lower_values_are_better(sweep: Sweep) -> None:
    soup = manual(sweep, {"run1": 1})
    soup.recorded = {"scores": {"val": {"score": -24.31, "loss": 3.2, "n": 3}}}
    card = model_card(soup, score_name="perplexity", higher_is_better=False)
    assert "| split | perplexity (lower is better) | loss | examples |" in card
    assert "| val | 24.3100 | 3.2000 | 3 |" in card
