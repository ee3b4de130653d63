from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import nn

from soupcore import (
    ClassificationTask,
    Evaluator,
    Split,
    Store,
    Sweep,
    TaskError,
    interpolate,
    soup_vs_ensemble,
)
from soupcore.inner_products import Floats
from tests.connectivity.well import DoubleWell
from tests.helpers import State, save_sweep
from tests.toy import CLASSES, FEATURES, logits, random_state

HALF = Fraction(1, 2)


def loss(outputs: Floats, targets: Floats, beta: float) -> float:
    return float(-log_softmax(beta * outputs, axis=1)[np.arange(len(targets)), targets].mean())


def mixed(one: State, other: State, alpha: float) -> State:
    return {
        name: ((1 - alpha) * tensor.double() + alpha * other[name]).to(tensor.dtype)
        for name, tensor in one.items()
    }


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8])
def test_every_term_is_that_of_the_paper(
    sweep: Sweep, states: dict[str, State], task: ClassificationTask, evaluator: Evaluator,
    alpha: float,
) -> None:  # fmt: skip
    one, other = states["run1"], states["run2"]
    found = soup_vs_ensemble(evaluator, sweep["run1"].mixture, sweep["run2"].mixture, alpha)
    data = task.split("val")
    targets = data.targets.numpy()

    def outputs(at: float) -> Floats:
        return logits(mixed(one, other, at), data.inputs).double().numpy()

    beta = minimize_scalar(lambda b: loss(outputs(alpha), targets, b)).x
    assert found.beta == pytest.approx(beta, rel=1e-4)
    ensemble = (1 - alpha) * outputs(0) + alpha * outputs(1)
    assert found.soup_loss == pytest.approx(loss(outputs(alpha), targets, beta), rel=1e-5)
    assert found.ensemble_loss == pytest.approx(loss(ensemble, targets, beta), rel=1e-5)
    assert found.soup_score == pytest.approx((outputs(alpha).argmax(1) == targets).mean())
    assert found.ensemble_score == pytest.approx((ensemble.argmax(1) == targets).mean())
    chances, change = softmax(beta * outputs(alpha), axis=1), outputs(1) - outputs(0)
    mean = (chances * change).sum(axis=1)
    variance = ((chances * change**2).sum(axis=1) - mean**2).mean()
    assert found.variance == pytest.approx(variance, rel=1e-4)
    h = 1 / 8
    curvature = (
        sum(
            weight * loss(outputs(alpha + step), targets, beta)
            for step, weight in ((-h, 1), (0, -2), (h, 1))
        )
        / h**2
    )
    assert found.curvature == pytest.approx(curvature, rel=1e-3, abs=1e-4)
    assert found.gap == found.soup_loss - found.ensemble_loss
    assert found.predicted_gap == pytest.approx(
        alpha * (1 - alpha) / 2 * (beta**2 * found.variance - found.curvature), rel=1e-4, abs=1e-6
    )
    assert (found.alpha, found.split, found.n) == (alpha, "val", 100)


def test_between_near_smooth_networks_the_prediction_is_the_gap(
    tmp_path: Path, splits: dict[str, Split], store: Store
) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))

    torch.manual_seed(0)
    base = build().state_dict()
    states = {
        f"run{seed}": {
            name: tensor + 0.3 * torch.randn(tensor.shape, generator=torch.manual_seed(seed))
            for name, tensor in base.items()
        }
        for seed in range(1, 6)
    }
    near = Sweep.from_folder(save_sweep(tmp_path / "near", states))
    evaluator = Evaluator(ClassificationTask(build, splits), store, device="cpu")
    points = [ingredient.mixture for ingredient in near.ingredients.values()]
    pairs = [(a, b) for i, a in enumerate(points) for b in points[:i]]
    found = [soup_vs_ensemble(evaluator, a, b) for a, b in pairs]
    gaps = np.array([one.gap for one in found])
    predicted = np.array([one.predicted_gap for one in found])
    assert np.corrcoef(gaps, predicted)[0, 1] > 0.98
    assert np.abs(gaps - predicted).max() < 0.2 * np.abs(gaps).max()


def test_soup_and_ensemble_agree_for_networks_linear_in_their_weights(
    tmp_path: Path, store: Store
) -> None:
    states = {
        name: {"weight": random_state(seed)["0.weight"][:3]} for seed, name in enumerate("ab")
    }
    linear = Sweep.from_folder(save_sweep(tmp_path / "linear", states))
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    split = Split("select", inputs, torch.arange(60) % 3)
    task = ClassificationTask(lambda: nn.Linear(4, 3, bias=False), {"val": split})
    found = soup_vs_ensemble(
        Evaluator(task, store, device="cpu"), linear["a"].mixture, linear["b"].mixture, HALF
    )
    assert found.gap == pytest.approx(0, abs=1e-6)
    assert found.predicted_gap == pytest.approx(0, abs=1e-3)


def test_the_prediction_evaluates_five_points_once_each(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    ends = sweep["run1"].mixture, sweep["run2"].mixture
    evaluator.evaluate(interpolate(*ends, 0.5), "val", keep_outputs=False)
    computed = soup_vs_ensemble(evaluator, *ends)
    assert len(passes) == 1 + 5
    assert soup_vs_ensemble(evaluator, *ends) == computed
    assert len(passes) == 1 + 5


@pytest.mark.parametrize("alpha", [0, 1, -0.5])
def test_a_soup_of_one_is_refused(sweep: Sweep, evaluator: Evaluator, alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        soup_vs_ensemble(evaluator, sweep["run1"].mixture, sweep["run2"].mixture, alpha)


def test_a_task_that_is_no_classification_is_refused(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    regression = Evaluator(DoubleWell(nn.Identity, splits, name="well"), store, device="cpu")
    with pytest.raises(TaskError, match="'well' is not a ClassificationTask"):
        soup_vs_ensemble(regression, sweep["run1"].mixture, sweep["run2"].mixture)
