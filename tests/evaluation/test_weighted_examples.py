"""Evaluations of splits whose examples, or tokens, have weights, against plain torch."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from soupcore import (
    ClassificationTask,
    Evaluator,
    Split,
    Store,
    Sweep,
    ensemble,
    greedy,
    learned,
    mean,
    uniform,
)
from soupcore.analysis import (
    calibration,
    compare,
    cross_fit,
    cross_fit_evaluations,
    fit_temperature,
)
from soupcore.evaluation import UpperBound, by_class, by_group
from soupcore.evaluation.measuring import scores_on_rows
from soupcore.tasks.language_models import CausalTask
from tests.helpers import State, save_sweep
from tests.toy import build_model, logits, random_state

NAMES = ["run1", "run2", "run10"]


def weights_of(split: Split, seed: int = 0) -> Tensor:
    """Return whole weights from 0 to 3."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (len(split),), generator=generator).double()


@pytest.fixture
def weighted(splits: dict[str, Split]) -> ClassificationTask:
    def split(name: str) -> Split:
        plain = splits[name]
        groups = ["a", "b"] * (len(plain) // 2)
        options: dict[str, Any] = {"groups": groups, "weights": weights_of(plain)}
        return Split(plain.role, plain.inputs, plain.targets, **options)

    return ClassificationTask(
        build_model,
        {name: split(name) for name in ("val", "test")},
        name="weighted",
        metrics=["accuracy", "macro F1", "worst-group accuracy"],
    )


@pytest.fixture
def repeated(splits: dict[str, Split]) -> ClassificationTask:
    """The same with each example as often as its weight says."""

    def split(name: str) -> Split:
        plain = splits[name]
        rows = torch.arange(len(plain)).repeat_interleave(weights_of(plain).long())
        groups = np.array(["a", "b"] * (len(plain) // 2))[rows.numpy()].tolist()
        return Split(plain.role, plain.inputs[rows], plain.targets[rows], groups=groups)

    return ClassificationTask(
        build_model,
        {name: split(name) for name in ("val", "test")},
        name="repeated",
        metrics=["accuracy", "macro F1", "worst-group accuracy"],
    )


@pytest.fixture
def both(
    weighted: ClassificationTask, repeated: ClassificationTask, store: Store
) -> tuple[Evaluator, Evaluator]:
    return Evaluator(weighted, store, device="cpu"), Evaluator(repeated, store, device="cpu")


def test_scores_are_those_of_a_plain_loop(
    both: tuple[Evaluator, Evaluator], sweep: Sweep, states: dict[str, State]
) -> None:
    split = both[0].task.split("val")
    w, targets = split.weights, split.targets
    assert w is not None
    outputs = logits(states["run1"], split.inputs)
    found = both[0].evaluate(sweep["run1"].mixture, "val")
    losses = cross_entropy(outputs, targets, reduction="none").double()
    right = (outputs.argmax(1) == targets).double()
    assert found.loss == pytest.approx(float((losses * w).sum() / w.sum()), abs=1e-6)
    assert found.score == pytest.approx(float((right * w).sum() / w.sum()), abs=1e-12)
    stored = both[0].stored([sweep["run1"].mixture], "val")[0]
    assert stored is not None
    assert stored.weights is not None
    assert stored.weights.equal(w)
    assert stored.score_interval == found.score_interval
    low, high = found.score_interval
    assert 0 < low < found.score < high < 1


def test_all_scores_are_those_of_repeated_examples(
    both: tuple[Evaluator, Evaluator], sweep: Sweep
) -> None:
    for point in (sweep["run1"].mixture, mean(sweep[name].mixture for name in NAMES)):
        one, other = (evaluator.evaluate(point, "test") for evaluator in both)
        assert one.loss == pytest.approx(other.loss, abs=1e-6)
        assert one.all_scores == pytest.approx(other.all_scores, abs=1e-9)
        for table in (by_class, by_group):
            here, there = (
                table(evaluator.task, found)["score"]
                for evaluator, found in zip(both, (one, other), strict=True)
            )
            assert here.tolist() == pytest.approx(there.tolist(), abs=1e-9)
        difference = [
            compare(evaluator.task, evaluator.evaluate(point, "test"), alone)
            for evaluator in both
            for alone in [evaluator.evaluate(sweep["run10"].mixture, "test")]
        ]
        assert difference[0].difference == pytest.approx(difference[1].difference, abs=1e-9)
        assert (difference[0].p_value, difference[0].gained) == (None, None)


def test_other_primary_metrics_and_halves_are_weighted(
    both: tuple[Evaluator, Evaluator], sweep: Sweep
) -> None:
    metric = "worst-group accuracy"
    chosen, point = both[0].with_primary(metric), sweep["run2"].mixture
    one = chosen.evaluate(point, "val")
    assert one.score == pytest.approx(both[1].evaluate(point, "val").all_scores[metric], abs=1e-9)
    assert one.replicates is not None
    assert one.score_interval[0] < one.score < one.score_interval[1]
    everything = torch.arange(one.n)
    assert scores_on_rows(chosen.task, one)(everything) == pytest.approx(one.score, abs=1e-12)
    candidates = [one, chosen.evaluate(sweep["run1"].mixture, "val")]
    found = cross_fit_evaluations(chosen.task, candidates, repeats=3)
    assert math.isfinite(found.optimism)


def test_greedy_decides_by_weighted_scores(
    both: tuple[Evaluator, Evaluator], sweep: Sweep, states: dict[str, State]
) -> None:
    soup = greedy(sweep, both[0])
    same = greedy(sweep, both[1])
    assert soup.ingredients == same.ingredients
    assert soup.evaluations["val"].score == pytest.approx(same.evaluations["val"].score, abs=1e-9)
    assert [step.accepted for step in soup.trace] == [step.accepted for step in same.trace]


def test_a_rejected_candidate_has_a_bound_above_its_score(
    both: tuple[Evaluator, Evaluator], sweep: Sweep
) -> None:
    incumbent = both[0].evaluate(sweep["base"].mixture, "val")
    bounds = 0
    for name in NAMES:
        point = sweep[name].mixture
        found = both[0].evaluate_or_reject(point, incumbent)
        true = both[1].evaluate(point, "val").score
        if not isinstance(found, UpperBound):
            assert found.score == pytest.approx(true, abs=1e-9)
            continue
        bounds += 1
        assert true <= found.score + 1e-9 < incumbent.score
        again = both[0].evaluate_or_reject(point, incumbent)
        assert isinstance(again, UpperBound)
        assert again.score == found.score
    assert bounds


@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
def test_learning_minimises_the_weighted_loss(
    both: tuple[Evaluator, Evaluator], sweep: Sweep, optimizer: Any
) -> None:
    passes = []
    for evaluator in both:
        soup = learned(
            sweep, evaluator, NAMES, optimizer=optimizer, passes=3, held_back=0, restart=False
        )
        passes.append([each.loss for each in soup.passes])
        assert (
            soup.evaluations["val"].loss
            < evaluator.evaluate(uniform(sweep, NAMES).mixture, "val").loss + 1e-6
        )
    assert passes[0] == pytest.approx(passes[1], abs=1e-5)


def test_an_ensemble_is_scored_with_weights(
    both: tuple[Evaluator, Evaluator], sweep: Sweep
) -> None:
    members = [sweep[name].mixture for name in NAMES]
    scores = []
    for evaluator in both:
        evaluator.evaluate_all(members, "test")
        found = ensemble(evaluator, members, "test")
        assert found is not None
        scores += [found.score, found.loss]
    assert scores[:2] == pytest.approx(scores[2:], abs=1e-6)


def test_calibration_and_its_temperature_are_weighted(splits: dict[str, Split]) -> None:
    split = splits["val"]
    outputs = logits(random_state(5), split.inputs)
    w = weights_of(split)
    rows = torch.arange(len(split)).repeat_interleave(w.long())
    together = calibration(outputs, split.targets, w, bins=1)
    apart = calibration(outputs[rows], split.targets[rows], bins=1)
    assert together.ece == pytest.approx(apart.ece, abs=1e-12)
    assert together.bins[0].n == int((w > 0).sum())
    assert fit_temperature(outputs, split.targets, w) == pytest.approx(
        fit_temperature(outputs[rows], split.targets[rows]), rel=1e-5
    )


def test_cross_fitting_ignores_examples_without_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(40, generator=generator) for _ in range(4)]
    losses = [1 - each for each in scores]
    w = torch.tensor([1.0, 0.0] * 20)
    one = cross_fit(scores, losses, weights=w, repeats=5)
    other = cross_fit([each[::2] for each in scores], [each[::2] for each in losses], repeats=5)
    assert one.promised == pytest.approx(other.promised)
    assert one.delivered == pytest.approx(other.delivered)
    assert one.chosen == other.chosen


class Words(nn.Module):
    """Predicts the next word from the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 5)
        self.head = nn.Linear(5, 9)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found: Tensor = self.head(self.embedding(input_ids))
        return found


def test_perplexity_is_that_of_weighted_tokens(tmp_path: Path, store: Store) -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 9, (n,), generator=generator) for n in (3, 9, 2, 7, 5)]
    tokens = [torch.rand(len(text), generator=generator) for text in texts]
    split = Split("select", {"input_ids": texts}, torch.zeros(5), weights=tokens)
    task = CausalTask(Words, {"val": split}, metrics=["perplexity"])
    torch.manual_seed(1)
    states = {run: Words().state_dict() for run in ("a", "b")}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "words", states))
    evaluator = Evaluator(task, store, device="cpu", batch_size=2)
    net = Words().eval()
    net.load_state_dict(states["a"])
    nats, total, losses = 0.0, 0.0, []
    with torch.no_grad():
        for text, weights in zip(texts, tokens, strict=True):
            each = cross_entropy(net(text, text)[:-1], text[1:], reduction="none")
            nats += float((each * weights[1:]).sum())
            total += float(weights[1:].sum())
            losses.append(float((each * weights[1:]).sum() / weights[1:].sum()))
    found = evaluator.evaluate(sweep["a"].mixture, "val")
    assert -found.score == pytest.approx(math.exp(nats / total), rel=1e-6)
    assert found.loss == pytest.approx(sum(losses) / 5, rel=1e-6)
    soup = learned(sweep, evaluator, optimizer="lbfgs", passes=2, held_back=0, restart=False)
    assert (
        soup.evaluations["val"].loss
        <= evaluator.evaluate(uniform(sweep).mixture, "val").loss + 1e-6
    )
    both = ensemble(evaluator, [sweep[run].mixture for run in states], "val")
    assert both is not None
    assert math.isfinite(both.score)
    part = task.part("val", 2)
    assert evaluator.evaluate(sweep["a"].mixture, part).n == 2
