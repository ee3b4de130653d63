"""Learning without gradients."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from soupcore import (
    Cancelled,
    ClassificationTask,
    Evaluator,
    RecipeError,
    Split,
    Store,
    Sweep,
    Task,
    learned,
    uniform,
)
from soupcore.intervals import halves
from soupcore.recipes import cross_fit_learned
from soupcore.recipes.descent import Space, coefficients_of
from tests.toy import build_model

NUMBERS = st.lists(st.floats(-30, 30), min_size=2, max_size=6)


@given(NUMBERS)
def test_coefficients_sum_to_one(numbers: list[float]) -> None:
    given_ = np.array([numbers, numbers[::-1]])
    soft = coefficients_of(given_, "softmax")
    np.testing.assert_allclose(soft, scipy.special.softmax(given_, axis=1), atol=1e-12)
    plane = coefficients_of(given_, "hyperplane")
    np.testing.assert_allclose(plane.sum(1), 1)
    np.testing.assert_allclose(plane - plane[:, :1], given_ - given_[:, :1], atol=1e-9)
    equal = np.full((1, 4), 0.25)
    spaces: tuple[Space, ...] = ("softmax", "hyperplane")
    for space in spaces:
        np.testing.assert_array_equal(coefficients_of(np.zeros((1, 4)), space), equal)


def test_search_without_cma_says_what_to_install(
    sweep: Sweep, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(RecipeError, match="needs the package cma: pip install cma"):
        learned(sweep, evaluator, optimizer="cma")


def test_a_task_without_gradients_says_which_optimiser_needs_none(
    sweep: Sweep, evaluator: Evaluator, task: Task
) -> None:
    task.has_gradients = False
    assert not task.describe().has_gradients
    with pytest.raises(RecipeError, match=r"has no gradients\. Choose the optimiser `cma`"):
        learned(sweep, evaluator)


@pytest.mark.integration
@pytest.mark.parametrize(
    "told",
    [{}, {"space": "hyperplane"}, {"per": "tensor"}],
    ids=["softmax", "hyperplane", "tensor"],
)
def test_search_finds_a_better_score_than_equal_coefficients(
    sweep: Sweep, evaluator: Evaluator, passes: list[int], told: Mapping[str, Any]
) -> None:
    pytest.importorskip("cma")
    soup = learned(sweep, evaluator, optimizer="cma", evaluations=60, **told)
    select = evaluator.task.select
    start = evaluator.evaluate(uniform(sweep).mixture, select)
    scores = [each.held_back_score for each in soup.passes]
    assert soup.passes[0].held_back_score == start.score
    assert soup.evaluations[select].score == max(scores) >= start.score
    assert soup.parameters["optimizer"] == "cma"
    # All points are stored: the same search again needs no forward pass.
    before = len(passes)
    again = learned(sweep, evaluator, optimizer="cma", evaluations=60, **told)
    assert len(passes) == before
    assert evaluator.key(again.mixture) == evaluator.key(soup.mixture)
    other = learned(sweep, evaluator, optimizer="cma", evaluations=60, seed=5, **told)
    assert len(passes) > before
    assert other.passes != soup.passes


def test_only_searches_are_cross_fitted(sweep: Sweep, evaluator: Evaluator) -> None:
    with pytest.raises(RecipeError, match="Only learned soups with the optimiser `cma`"):
        cross_fit_learned(sweep, evaluator, optimizer="lbfgs")


@pytest.mark.integration
def test_the_selection_bias_is_that_of_searches_on_halves(
    sweep: Sweep, evaluator: Evaluator, splits: dict[str, Split], tmp_path: Path
) -> None:
    """Each half is the select split of a task of its own, on which `learned` searches."""
    pytest.importorskip("cma")
    found = cross_fit_learned(sweep, evaluator, evaluations=25)
    whole = splits["val"]
    promised, delivered, gains = [], [], []
    for number, (here, there) in enumerate(halves(len(whole), 1, 0)):
        apart = {
            "here": Split("select", whole.inputs[here], whole.targets[here]),
            "there": Split("report", whole.inputs[there], whole.targets[there]),
        }
        task = ClassificationTask(build_model, apart)
        own = Evaluator(task, Store(tmp_path / str(number)), device="cpu", batch_size=256)
        soup = learned(sweep, own, optimizer="cma", evaluations=25).evaluate(own)
        points = [sweep[name].mixture for name in sweep.names()]
        best = max(
            points,
            key=lambda p: (own.evaluate(p, "here").score, -own.evaluate(p, "here").loss),
        )
        promised.append(soup.evaluations["here"].score)
        delivered.append(soup.evaluations["there"].score)
        gains.append(delivered[-1] - own.evaluate(best, "there").score)
    assert found.promised == pytest.approx(sum(promised) / 2)
    assert found.delivered == pytest.approx(sum(delivered) / 2)
    assert found.gain_delivered == pytest.approx(sum(gains) / 2)
    assert found.optimism == pytest.approx(found.promised - found.delivered)


@pytest.mark.integration
def test_a_stopped_search_resumes(
    sweep: Sweep, evaluator: Evaluator, task: Task, tmp_path: Path, passes: list[int]
) -> None:
    pytest.importorskip("cma")
    whole = learned(sweep, evaluator, optimizer="cma", evaluations=40)
    needed = len(passes)
    store = Store(tmp_path / "other")
    fresh = Evaluator(task, store, device="cpu", batch_size=256)

    def on_step(trace: Any) -> None:
        if len(trace) == 3:
            raise Cancelled

    passes.clear()
    stopped = learned(sweep, fresh, optimizer="cma", evaluations=40, on_step=on_step)
    assert len(stopped.passes) == 3
    assert 0 < len(passes) < needed
    resumed = learned(sweep, fresh, optimizer="cma", evaluations=40)
    assert evaluator.key(resumed.mixture) == evaluator.key(whole.mixture)
    assert len(passes) <= needed + 1
    store.close()
    before: Any = np.random.get_state()
    learned(sweep, evaluator, optimizer="cma", evaluations=40)
    after: Any = np.random.get_state()
    np.testing.assert_array_equal(before[1], after[1])
    assert sum(whole.coefficients.values()) == 1
