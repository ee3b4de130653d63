import math
from pathlib import Path

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from soupcore import (
    ClassificationTask,
    Evaluator,
    RecipeError,
    Split,
    Store,
    Sweep,
    Task,
    TaskError,
    ensemble,
    greedy_ensemble,
    interpolate,
    uniform,
)
from soupcore.analysis import ensemble_scores
from soupcore.calls import Context, EnsembleScores
from soupcore.intervals import score_interval
from soupcore.overview import Overview
from soupcore.plan import steps
from soupcore.tasks.language_models import PERPLEXITY, CausalTask
from tests.helpers import State, save_sweep
from tests.toy import CLASSES, logits

WORDS = 11
RUNS = [f"run{number}" for number in range(5)]


@pytest.mark.parametrize("names", [["run1"], ["run1", "run10"], ["run10", "run2", "run1"]])
@pytest.mark.parametrize("split", ["val", "shift/noise"])
def test_an_ensemble_is_the_mean_of_the_logits(
    sweep: Sweep,
    states: dict[str, State],
    task: ClassificationTask,
    evaluator: Evaluator,
    passes: list[int],
    names: list[str],
    split: str,
) -> None:
    members = [sweep[name].mixture for name in names]
    for member in members:
        evaluator.evaluate(member, split)
    passes.clear()
    found = ensemble(evaluator, members, split)
    assert found is not None
    assert passes == []
    data = task.split(split)
    mean = torch.stack([logits(states[name], data.inputs).double() for name in names]).mean(0)
    right = mean.argmax(1) == data.targets
    assert (found.members, found.n) == (len(names), len(data))
    assert found.score == pytest.approx(accuracy_score(data.targets, mean.argmax(1)))
    assert found.score_interval == pytest.approx(score_interval(right.float()))
    assert found.loss == pytest.approx(
        log_loss(data.targets, mean.softmax(1), labels=range(CLASSES)), rel=1e-5
    )


def test_an_ensemble_of_one_is_that_one(sweep: Sweep, evaluator: Evaluator) -> None:
    alone = evaluator.evaluate(sweep["run1"].mixture, "val")
    found = ensemble(evaluator, [sweep["run1"].mixture], "val")
    assert found is not None
    assert (found.loss, found.score) == pytest.approx((alone.loss, alone.score))
    assert found.score_interval == alone.score_interval


def test_a_member_named_twice_counts_twice(sweep: Sweep, evaluator: Evaluator) -> None:
    a, b = sweep["run1"].mixture, sweep["run2"].mixture
    for member in (a, b):
        evaluator.evaluate(member, "val")
    once, twice = ensemble(evaluator, [a, b], "val"), ensemble(evaluator, [a, b, a], "val")
    assert once is not None
    assert twice is not None
    assert twice.members == 3
    assert twice.loss != once.loss


def test_an_ensemble_needs_the_stored_outputs_of_every_member(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    members = [
        sweep["run1"].mixture,
        interpolate(sweep["run1"].mixture, sweep["run2"].mixture, 0.5),
    ]
    assert ensemble(evaluator, [], "val") is None
    assert ensemble(evaluator, members, "val") is None
    evaluator.evaluate(members[0], "val")
    assert ensemble(evaluator, members, "val") is None
    evaluator.evaluate(members[1], "val", keep_outputs=False)
    assert ensemble(evaluator, members, "val") is None
    evaluator.evaluate(members[1], "val")
    assert ensemble(evaluator, members, "val") is not None
    assert ensemble(evaluator, members, "test") is None
    assert len(passes) == 3


def test_an_unknown_split_is_refused(sweep: Sweep, evaluator: Evaluator) -> None:
    with pytest.raises(TaskError, match="has no split 'dev'"):
        ensemble(evaluator, [sweep["run1"].mixture], "dev")


class Losses(Task):
    """A language model whose network puts out the loss of each example."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[:, 0]

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -outputs[:, 0]


class Probabilities(Losses):
    output_kind = "probabilities"


def test_outputs_are_averaged_only_if_the_task_allows_it(
    sweep: Sweep, task: ClassificationTask
) -> None:
    refused = Losses(task.build_model, task.splits, name="Text")
    assert refused.why_no_ensemble is not None
    evaluator = Evaluator(refused)
    points = {name: sweep[name].mixture for name in ("run1", "run2")}
    evaluator.evaluate_all(list(points.values()), "val")
    with pytest.raises(TaskError, match=r"not possible.*'Text'.*output_kind"):
        ensemble(evaluator, list(points.values()), "val")
    with pytest.raises(TaskError, match=r"not possible.*'Text'.*output_kind"):
        greedy_ensemble(evaluator, points)

    allowed = Probabilities(task.build_model, task.splits)
    assert allowed.why_no_ensemble is None
    evaluator = Evaluator(allowed)
    both = evaluator.evaluate_all(list(points.values()), "val")
    found = ensemble(evaluator, list(points.values()), "val")
    assert found is not None
    assert found.score == pytest.approx(sum(each.score for each in both) / 2)


# Networks whose outputs are too large to store


class Net(nn.Module):
    """A language model, which predicts the next word from the last two."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 6)
        self.head = nn.Linear(12, WORDS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen = self.embedding(input_ids)
        before = torch.cat([torch.zeros_like(seen[:, :1]), seen[:, :-1]], dim=1)
        found: Tensor = self.head(torch.cat([seen, before], dim=2))
        return found


@pytest.fixture
def texts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, WORDS, (n,), generator=generator) for n in (3, 9, 2, 7, 7, 4, 5, 8, 6)]


@pytest.fixture
def language(texts: list[Tensor]) -> CausalTask:
    def split(role: str, some: list[Tensor]) -> Split:
        return Split(role, {"input_ids": some}, torch.zeros(len(some)))  # type: ignore[arg-type]

    splits = {"val": split("select", texts), "test": split("report", texts[:4])}
    return CausalTask(Net, splits, name="words", metrics=[PERPLEXITY])


@pytest.fixture
def runs(tmp_path: Path) -> Sweep:
    generator = torch.Generator().manual_seed(1)
    states = {
        run: {
            name: torch.randn(t.shape, generator=generator)
            for name, t in Net().state_dict().items()
        }
        for run in RUNS
    }
    return Sweep.from_folder(save_sweep(tmp_path / "words", states))


def by_hand(sweep: Sweep, texts: list[Tensor]) -> tuple[float, float]:
    """Return the mean loss and the perplexity of the ensemble, text by text without padding."""
    nets = []
    for run in RUNS:
        nets.append(Net().eval())
        nets[-1].load_state_dict(sweep[run].mixture.state_dict())
    losses, nats, tokens = [], 0.0, 0
    for text in texts:
        with torch.no_grad():
            mean = torch.stack(
                [net(text[None], torch.ones(1, len(text))).double()[0] for net in nets]
            ).mean(0)
        own = float(cross_entropy(mean[:-1], text[1:], reduction="sum"))
        losses.append(own / (len(text) - 1))
        nats, tokens = nats + own, tokens + len(text) - 1
    return sum(losses) / len(losses), math.exp(nats / tokens)


@pytest.mark.parametrize("sums", [1 << 28, 1], ids=["all batches at once", "batch by batch"])
def test_the_ensemble_of_five_language_models_is_that_computed_by_hand(
    language: CausalTask,
    runs: Sweep,
    texts: list[Tensor],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    sums: int,
) -> None:
    monkeypatch.setattr("soupcore.evaluation.forward_pass._SUMS", sums)
    evaluator = Evaluator(language, store, device="cpu", batch_size=2)
    members = [runs[run].mixture for run in RUNS]
    done: list[tuple[int, int]] = []
    found = ensemble(evaluator, members, "val", on_progress=lambda *progress: done.append(progress))
    assert found is not None
    loss, perplexity = by_hand(runs, texts)
    assert (found.members, found.n) == (5, len(texts))
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert -found.score == pytest.approx(perplexity, rel=1e-6)
    assert done == sorted(done)
    assert done[-1] == (5 * len(texts), 5 * len(texts))
    alone = ensemble(evaluator, members[:1], "val")
    assert alone is not None
    single = evaluator.evaluate(members[0], "val")
    assert (alone.loss, alone.score) == pytest.approx((single.loss, single.score), rel=1e-6)
    assert -ensemble_scores(evaluator, members)["test"] == pytest.approx(
        by_hand(runs, texts[:4])[1], rel=1e-6
    )


def test_a_progress_callback_may_compute_other_points(
    language: CausalTask, runs: Sweep, store: Store
) -> None:
    evaluator = Evaluator(language, store, device="cpu", batch_size=4)
    members = [runs[run].mixture for run in RUNS]
    expected = ensemble(evaluator, members, "val")
    other = Evaluator(language, store, device="cpu", batch_size=4)

    def between(done: int, total: int) -> None:
        other.evaluate(uniform(runs, RUNS[:2]).mixture, "test")

    other._forward_pass = evaluator._forward_pass
    assert ensemble(evaluator, members, "val", on_progress=between) == expected


def test_greedy_ensembles_need_stored_outputs(
    language: CausalTask, runs: Sweep, store: Store
) -> None:
    evaluator = Evaluator(language, store, device="cpu")
    with pytest.raises(TaskError, match="too large to store"):
        greedy_ensemble(evaluator, {run: runs[run].mixture for run in RUNS})
    context = Context(runs, evaluator, str(runs.folder), "task.py:task")
    assert "ensemble" not in [step.name for step in steps(Overview.of(context))]
    call = EnsembleScores(tuple(RUNS))
    call.work(context, lambda done, total, partial=None: None)
    scores = call.result(context)
    assert scores is not None
    assert -scores["scores"]["val"] == pytest.approx(
        by_hand(runs, [*language.split("val").inputs["input_ids"]])[1], rel=1e-6
    )


# Greedy ensembles


def test_the_greedy_ensemble_follows_recipe_one_on_mean_outputs(
    sweep: Sweep,
    states: dict[str, State],
    task: ClassificationTask,
    evaluator: Evaluator,
    passes: list[int],
) -> None:
    points = {name: sweep[name].mixture for name in states}
    assert greedy_ensemble(evaluator, points) is None
    for point in points.values():
        evaluator.evaluate(point, "val")
    passes.clear()
    found = greedy_ensemble(evaluator, points)
    assert found is not None
    assert passes == []
    data = task.split("val")

    def accuracy(*names: str) -> float:
        mean = torch.stack([logits(states[name], data.inputs).double() for name in names]).mean(0)
        return float(accuracy_score(data.targets, mean.argmax(1)))

    members: tuple[str, ...] = ()
    for name in sorted(states, key=lambda name: -accuracy(name)):
        assert found.tried[name] == pytest.approx(accuracy(*members, name))
        if not members or accuracy(*members, name) >= accuracy(*members):
            members = (*members, name)
    assert (found.members, found.passes, found.split) == (members, len(members), "val")
    same = ensemble(evaluator, [points[name] for name in members], "val")
    assert found.chosen_on == same


def test_a_greedy_ensemble_of_one_is_that_ingredient_and_of_none_is_refused(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    alone = evaluator.evaluate(sweep["run1"].mixture, "val")
    found = greedy_ensemble(evaluator, {"run1": sweep["run1"].mixture})
    assert found is not None
    assert found.members == ("run1",)
    assert found.chosen_on.score == pytest.approx(alone.score)
    with pytest.raises(RecipeError, match="at least one member"):
        greedy_ensemble(evaluator, {})


def test_without_stored_outputs_there_is_no_greedy_ensemble(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    middle = (sweep["run1"].mixture + sweep["run2"].mixture) * 0.5
    evaluator.evaluate(middle, "val", keep_outputs=False)
    assert greedy_ensemble(evaluator, {"middle": middle}) is None
