"""Ensembles of networks whose outputs are too large to store."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from soupcore import Evaluator, Split, Store, Sweep, TaskError, ensemble, greedy_ensemble, uniform
from soupcore.analysis import ensemble_scores
from soupcore.calls import Context, EnsembleScores
from soupcore.overview import Overview
from soupcore.plan import steps
from soupcore.tasks.language_models import PERPLEXITY, CausalTask
from tests.helpers import save_sweep

WORDS = 11
RUNS = [f"run{number}" for number in range(5)]


class Net(nn.Module):
    """Predicts the next word from the last two."""

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


def test_what_needs_kept_outputs_is_absent(language: CausalTask, runs: Sweep, store: Store) -> None:
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
