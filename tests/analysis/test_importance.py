"""Marginal importance of hyperparameters, against SciPy."""

import math

import numpy as np
import pytest
import scipy

from soupcore.analysis.importance import marginal_importance

RNG = np.random.default_rng(0)
LR = (10 ** RNG.uniform(-4, -1, 30)).tolist()
AUG = RNG.choice(["none", "mixup", "rand"], 30).tolist()
SCORES = [90 + math.log10(lr) + 2 * (aug == "mixup") for lr, aug in zip(LR, AUG, strict=True)]


def test_a_number_is_judged_by_spearmans_correlation() -> None:
    found = marginal_importance({"lr": LR}, SCORES)["lr"]
    rho = scipy.stats.spearmanr(LR, SCORES).statistic
    assert found.rho == pytest.approx(rho)
    assert found.share == pytest.approx(1 - (1 - rho**2) * 29 / 28)
    assert found.n == 30


def test_text_is_judged_by_the_effect_size_of_the_kruskal_wallis_test() -> None:
    found = marginal_importance({"aug": AUG}, SCORES)["aug"]
    groups = [
        [s for s, aug in zip(SCORES, AUG, strict=True) if aug == each] for each in sorted(set(AUG))
    ]
    h = scipy.stats.kruskal(*groups).statistic
    assert found.rho is None
    assert found.share == pytest.approx((h - 3 + 1) / (30 - 3))  # ε² of Tomczak and Tomczak


def test_the_largest_is_first_and_noise_explains_nothing() -> None:
    noise = [
        marginal_importance({"seed": RNG.permutation(30).tolist()}, SCORES)["seed"].share
        for _ in range(200)
    ]
    assert abs(np.mean(noise)) < 0.02
    found = marginal_importance({"seed": [*range(30)][::-1], "score": SCORES}, SCORES)
    assert next(iter(found)) == "score"
    assert found["score"].share == pytest.approx(1)


@pytest.mark.parametrize(
    "values",
    [[1e-3] * 30, [None] * 30, [f"run {i}" for i in range(30)], [1.0, 2.0, 3.0] + [math.nan] * 27],
    ids=["constant", "missing", "a name for each run", "too few"],
)
def test_a_hyperparameter_that_tells_nothing_is_left_out(values: list[object]) -> None:
    assert marginal_importance({"x": values}, SCORES) == {}


def test_runs_without_a_score_are_left_out() -> None:
    found = marginal_importance({"lr": LR}, [None, math.nan, -math.inf, *SCORES[3:]])["lr"]
    assert found == marginal_importance({"lr": LR[3:]}, SCORES[3:])["lr"]
    assert found.n == 27
