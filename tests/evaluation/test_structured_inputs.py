"""Inputs that are more than a tensor are evaluated as one example after the other would be."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from soupcore import (
    ClassificationTask,
    Evaluator,
    Split,
    Store,
    Sweep,
    Task,
    TaskError,
    barriers,
    greedy,
    learned,
    uniform,
)
from soupcore.analysis import cross_fit_evaluations
from soupcore.analysis.ensemble import score_outputs
from soupcore.tasks import Metric

N, VOCABULARY, CLASSES = 60, 12, 3


class Reader(nn.Module):
    """A small transformer that is called as those of transformers are."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        found = self.layer(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)
        mask = attention_mask[..., None].to(found.dtype)
        return {"logits": self.head((found * mask).sum(1) / mask.sum(1)), "hidden": found}


def texts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (N,), generator=generator).tolist()
    return [torch.randint(0, VOCABULARY, (n,), generator=generator) for n in lengths]


def classes() -> Tensor:
    return torch.randint(0, CLASSES, (N,), generator=torch.Generator().manual_seed(1))


class Records(Dataset[Any]):
    """As the tokenized data sets of `datasets` give their examples."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "text": "not used",
            "input_ids": texts()[index].tolist(),
            "label": int(classes()[index]),
        }


def padded_by_hand(examples: list[Any]) -> dict[str, Tensor]:
    longest = max(len(example["input_ids"]) for example in examples) + 2
    ids, mask = torch.zeros(2, len(examples), longest, dtype=torch.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example["input_ids"])] = example["input_ids"]
        mask[row, : len(example["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask}


def split_of(kind: str, role: Any = "select") -> Split:
    if kind == "a data set":
        return Split.from_dataset(role, Records())
    collate = padded_by_hand if kind == "a collate" else None
    return Split(role, {"input_ids": texts()}, classes(), collate=collate)


@pytest.fixture
def readers(tmp_path: Path) -> Sweep:
    torch.manual_seed(0)
    base = Reader().state_dict()
    (tmp_path / "sweep").mkdir()
    for run in range(3):
        moved = {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in base.items()}
        save_file(moved, tmp_path / "sweep" / f"run-{run}.safetensors")
    save_file(base, tmp_path / "sweep" / "base.safetensors")
    return Sweep.from_folder(tmp_path / "sweep")


def one_by_one(state: dict[str, Tensor]) -> Tensor:
    model = Reader().eval()
    model.load_state_dict(state)
    with torch.no_grad():
        rows = [model(text[None], torch.ones(1, len(text)))["logits"] for text in texts()]
    return torch.cat(rows)


@pytest.mark.parametrize("kind", ["lists", "a data set", "a collate"])
@pytest.mark.parametrize("batch_size", [1, 7, 128])
def test_texts_of_different_lengths_are_evaluated_as_one_by_one(
    readers: Sweep, store: Store, kind: str, batch_size: int
) -> None:
    task = ClassificationTask(Reader, {"val": split_of(kind)}, name="texts")
    evaluator = Evaluator(task, store, device="cpu", batch_size=batch_size)
    point = readers["run-1"].mixture
    found = evaluator.evaluate(point, "val")
    expected = one_by_one(readers["run-1"].checkpoint.state_dict())
    torch.testing.assert_close(found.outputs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found.losses, cross_entropy(expected, classes(), reduction="none"), rtol=1e-4, atol=1e-5
    )
    assert found.scores.tolist() == (expected.argmax(1) == classes()).float().tolist()


def test_a_part_of_texts_has_the_numbers_of_the_whole(readers: Sweep, store: Store) -> None:
    for kind in ("lists", "a data set"):
        task = ClassificationTask(Reader, {"val": split_of(kind)}, name=kind)
        evaluator = Evaluator(task, store, device="cpu")
        part = task.part("val", 20)
        found = evaluator.evaluate(readers["run-0"].mixture, part, keep_outputs=False)
        whole = evaluator.evaluate(readers["run-0"].mixture, "val")
        torch.testing.assert_close(found.losses, whole.losses[task.rows_of(part)])


def test_recipes_and_barriers_work_on_texts(readers: Sweep, store: Store) -> None:
    task = ClassificationTask(Reader, {"val": split_of("lists")}, name="texts")
    evaluator = Evaluator(task, store, device="cpu")
    names = ["run-0", "run-1", "run-2"]
    alone = [evaluator.evaluate(readers[name].mixture, "val").score for name in names]
    assert greedy(readers, evaluator, names).evaluations["val"].score >= max(alone)
    middle = evaluator.evaluate(uniform(readers, names).mixture, "val")
    soup = learned(readers, evaluator, names, passes=2)
    assert soup.evaluations["val"].loss <= middle.loss + 1e-6
    assert barriers(readers, evaluator, names, 3, split="val").loss.shape == (3, 3)


# Records


class NextWord(Task):
    """A language model that is judged by summed losses and counts, not by its logits."""

    loss_name = "nats a token"

    def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        logits, words = outputs[:, :-1], targets[:, 1:]
        nats = cross_entropy(logits.transpose(1, 2), words, reduction="none")  # 0 where ignored
        return torch.stack([nats.sum(1), (words != -100).sum(1).to(nats.dtype)], dim=1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        assert targets.shape == (len(outputs), 0)
        return outputs[:, 0] / outputs[:, 1].clamp(min=1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -self.loss(outputs, targets)


class Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.cell = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.cell(self.embed(input_ids))[0])
        return logits


def test_a_task_stores_the_records_of_each_example(tmp_path: Path, store: Store) -> None:
    torch.manual_seed(0)
    model = Writer().eval()
    save_file(model.state_dict(), tmp_path / "run.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    task = NextWord(Writer, {"val": Split("select", {"input_ids": texts()}, texts())})
    found = Evaluator(task, store, device="cpu", batch_size=16).evaluate(
        sweep["run"].mixture, "val"
    )
    expected = []
    with torch.no_grad():
        for text in texts():
            logits = model(text[None], torch.ones(1, len(text)))[0]
            nats = cross_entropy(logits[:-1], text[1:], reduction="sum") if len(text) > 1 else 0.0
            expected.append([float(nats), len(text) - 1])
    torch.testing.assert_close(found.outputs, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def perplexity(records: Tensor, targets: Tensor) -> float:
    assert targets.shape == (len(records), 0)
    nats, words = records.sum(0).tolist()
    return math.exp(nats / words)


def test_targets_of_any_structure_have_intervals_and_cross_fits(
    tmp_path: Path, store: Store
) -> None:
    for run in range(2):
        torch.manual_seed(run)
        save_file(Writer().state_dict(), tmp_path / f"run-{run}.safetensors")
    points = [each.mixture for each in Sweep.from_folder(tmp_path).ingredients.values()]
    split = Split("select", {"input_ids": texts()}, texts())
    metric = Metric("perplexity", False, compute=perplexity, source="outputs")
    by_loss = Metric("nats", False)
    task = NextWord(Writer, {"val": split}, metrics=[by_loss, metric])
    evaluator = Evaluator(task, store, device="cpu").with_primary("perplexity")
    found = evaluator.evaluate_all(points, "val")
    for each in found:
        low, high = each.score_interval
        assert low < each.score < high
    estimate = cross_fit_evaluations(evaluator.task, found)
    assert math.isfinite(estimate.promised + estimate.delivered)
    ensemble = score_outputs(evaluator.task, "val", (found[0].outputs + found[1].outputs) / 2, 2)
    assert math.isfinite(ensemble.score)


def test_outputs_of_varying_shape_are_refused_with_the_way_out(
    tmp_path: Path, store: Store
) -> None:
    class Whole(NextWord):
        def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
            return Task.record(self, outputs, inputs, targets)

    torch.manual_seed(0)
    save_file(Writer().state_dict(), tmp_path / "run.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    task = Whole(Writer, {"val": Split("select", {"input_ids": texts()}, texts())})
    evaluator = Evaluator(task, store, device="cpu", batch_size=16)
    with pytest.raises(TaskError, match=r"for one example.*for another.*the task's `record`"):
        evaluator.evaluate(sweep["run"].mixture, "val")
