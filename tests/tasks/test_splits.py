"""Splits: their data, what they show, and their weights, which metrics take."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from soupcore import ClassificationTask, Evaluator, Metric, Split, Store, Sweep, TaskError
from soupcore.calls import Context, ShownExamples
from soupcore.evaluation.measuring import changed_examples
from soupcore.progress import no_progress
from soupcore.tasks import METRICS, Shown, TaskDescription
from soupcore.tasks.language_models import BITS_PER_BYTE, TAGGING_METRICS, CausalTask
from soupcore.tasks.metrics import perplexity
from soupcore.tasks.parts import hold_out
from tests.toy import build_model


def split(role: Any = "select", n: int = 2) -> Split:
    return Split(role, torch.arange(2.0 * n).reshape(n, 2), torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize("role", ["train", "select", "report", "shift"])
def test_a_split_has_one_of_four_roles(role: str) -> None:
    assert split(role).role == role
    assert len(split(role, 3)) == 3


@pytest.mark.parametrize("role", ["test", "val", "", None])
def test_another_role_is_refused(role: Any) -> None:
    with pytest.raises(TaskError, match="must be one of train, select, report, shift, not"):
        split(role)


@pytest.mark.parametrize(("inputs", "targets"), [(0, 0), (3, 2), (2, 3), (0, 1)])
def test_a_split_needs_as_many_targets_as_inputs(inputs: int, targets: int) -> None:
    with pytest.raises(TaskError, match=f"got {inputs} inputs and {targets} targets"):
        Split("select", torch.zeros(inputs, 2), torch.zeros(targets))


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        pytest.param(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]), id="an input"),
        pytest.param(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]), id="a target"),
        pytest.param(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), id="shape"),
        pytest.param(
            torch.tensor([[1.0], [2.0]]).view(torch.int32), torch.tensor([0, 1]), id="dtype"
        ),
        pytest.param(torch.tensor([[2.0], [1.0]]), torch.tensor([1, 0]), id="order"),
    ],
)
def test_the_digest_of_a_split_is_that_of_its_data(inputs: Tensor, targets: Tensor) -> None:
    data = torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    digest = Split("select", *data).digest
    assert digest == Split("report", *data).digest
    assert digest == Split("select", data[0].T.clone().T, data[1]).digest  # another layout
    assert digest != Split("select", inputs, targets).digest


class Showing(ClassificationTask):
    def show(self, split: str, index: int) -> Shown:
        data = self.split(split)
        image = torch.full((2, 3), int(data.targets[index]), dtype=torch.uint8)
        return Shown(f"<b>{split} {index}", image if index else None)


@pytest.mark.parametrize("shape", [(), (4, 3), (4, 3, 3)])
def test_shown_examples_round_trip_through_json(shape: tuple[int, ...]) -> None:
    image = torch.arange(36, dtype=torch.uint8)[: int(torch.tensor(shape).prod())].reshape(shape)
    shown = Shown("text", image if shape else None)
    again = Shown.from_json(shown.to_json())
    assert again.text == "text"
    assert (again.image is None) == (not shape)
    if again.image is not None:
        assert torch.equal(again.image, image)
    assert len(Shown("x" * 5000).to_json()["text"]) == 2001


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (torch.zeros(4, 3), "float32"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"shape \[3, 4, 4\]"),
        (torch.zeros(1025, 1025, dtype=torch.uint8), "more than 1 MiB"),
    ],
)
def test_other_images_are_refused(image: torch.Tensor, problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        Shown("", image)


def test_examples_are_shown_and_stored(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    task = Showing(build_model, splits)
    context = Context(sweep, Evaluator(task, store, device="cpu"))
    call = ShownExamples("test", (0, 2))
    assert call.shown(context) is None
    call.run_and_keep(context, no_progress)
    first, second = call.shown(context) or []
    assert (first.text, first.image) == ("<b>test 0", None)
    assert second.image is not None
    assert int(second.image[0, 0]) == int(splits["test"].targets[2])
    described = task.describe()
    assert described.shows_examples
    assert TaskDescription.from_json(described.to_json()).shows_examples


def test_a_task_without_show_says_so(sweep: Sweep, splits: dict[str, Split], store: Store) -> None:
    task = ClassificationTask(build_model, splits)
    assert not task.describe().shows_examples
    context = Context(sweep, Evaluator(task, store, device="cpu"))
    with pytest.raises(TaskError, match="no `show"):
        ShownExamples("test", (0,)).run_and_keep(context, no_progress)


def test_changed_examples_are_those_that_one_of_two_scores_higher(
    evaluator: Evaluator, sweep: Sweep
) -> None:
    one, other = (evaluator.evaluate(sweep[name].mixture, "val") for name in ("run1", "run2"))
    gained, lost = changed_examples(one, other)
    change = one.scores - other.scores
    assert gained == (change > 0).nonzero().flatten().tolist()  # all by 1, so in order
    assert lost == (change < 0).nonzero().flatten().tolist()
    assert changed_examples(other, one) == (lost, gained)


N = 60
GENERATOR = torch.Generator().manual_seed(3)
LOGITS = torch.randn(N, 6, generator=GENERATOR)
CLASSES = torch.where(
    torch.rand(N, generator=GENERATOR) < 0.5,
    LOGITS.argmax(1),
    torch.randint(6, (N,), generator=GENERATOR),
)
NUMBERS = torch.randn(N, generator=GENERATOR)
NEAR = NUMBERS + 0.3 * torch.randn(N, generator=GENERATOR)
WEIGHTS = torch.randint(0, 4, (N,), generator=GENERATOR).double()


def split_of(weights: Any = None, **told: Any) -> Split:
    return Split("select", torch.zeros(3, 2), torch.tensor([0, 1, 1]), weights=weights, **told)


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ([1, 2], "one weight for each example: 3, not 2"),
        ([1, -1, 1], "has the weight -1"),
        ([1, math.nan, 1], "has the weight nan"),
        ([1, math.inf, 1], "has the weight inf"),
        ([0, 0, 0], "All weights of the split are zero"),
        (2.0, "weights"),
        (torch.tensor(2.0), "not one number"),
        (["a", "b", "c"], "weights of a split must be numbers"),
        (torch.ones(3, 2, 2), r"shape \[3, 2, 2\]"),
        (torch.ones(3, 3), "one weight for each token of its inputs"),
        (torch.tensor([[1.0, 1], [0, 0], [1, 0]]), "All tokens of example 1 have the weight zero"),
    ],
)
def test_invalid_weights_are_refused(weights: Any, problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        split_of(weights)


def test_weights_of_tokens_have_the_lengths_of_the_texts() -> None:
    texts = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]
    inputs, answers = {"input_ids": texts}, torch.zeros(2)
    split = Split("select", inputs, answers, weights=[[0, 1, 1], [1, 0.5]])
    assert split.weights is None
    assert not split.is_weighted
    with pytest.raises(TaskError, match="one weight for each token"):
        Split("select", inputs, answers, weights=[[1, 1], [1, 1]])
    with pytest.raises(TaskError, match="this split has a `collate`"):
        Split("select", inputs, answers, weights=[[1, 1, 1], [1, 1]], collate=list)
    with pytest.raises(TaskError, match="weights of tokens, but `record` of ClassificationTask"):
        ClassificationTask(lambda: nn.Linear(1, 2), {"val": split})


def test_training_splits_refuse_weights() -> None:
    with pytest.raises(TaskError, match="role 'train' takes no weights"):
        Split("train", torch.zeros(3, 2), torch.zeros(3), weights=[1, 2, 3])


def test_weights_are_part_of_the_identity_and_none_leave_it_as_it_was() -> None:
    # The digest of this split before there were weights.
    before = "2f3ce085c25727f2b80f045000352f32b94bef6244f21d97e0bad785e9d68194"
    assert split_of().digest == before
    digests = [
        split_of([1, 2, 3]).digest,
        split_of([1, 2, 4]).digest,
        split_of(torch.ones(3, 2)).digest,
        split_of([1, 2, 3], groups=["a", "b", "b"]).digest,
    ]
    assert len({before, *digests}) == 5
    data = TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    decoded = [Split.from_dataset("select", data, weights=w) for w in (None, [1, 2, 3])]
    assert decoded[0].digest != decoded[1].digest
    assert decoded[1].is_weighted


def test_a_part_has_the_weights_of_its_examples() -> None:
    weights = torch.arange(1.0, 41)
    whole = Split("select", torch.arange(40.0)[:, None], torch.zeros(40).long(), weights=weights)
    task = ClassificationTask(lambda: nn.Linear(1, 2), {"val": whole})
    part = task.split(task.part("val", 10))
    assert part.is_weighted
    assert part.weights is not None
    assert part.weights.tolist() == (part.inputs[:, 0] + 1).tolist()
    halves = hold_out({"val": whole}, 0.5)
    found = [each.weights for each in halves.values()]
    assert sorted(w for each in found if each is not None for w in each.tolist()) == [*range(1, 41)]
    light = Split("select", torch.zeros(40, 1), torch.zeros(40).long(), weights=[0.0] * 39 + [1.0])
    few = ClassificationTask(lambda: nn.Linear(1, 2), {"val": light})
    with pytest.raises(TaskError, match="All 2 examples drawn from 40"):
        assert few.split(few.part("val", 2)).weights is None


def test_the_majority_and_the_description_respect_weights() -> None:
    task = ClassificationTask(lambda: nn.Linear(2, 2), {"val": split_of([8, 1, 1])})
    assert task.split("val").majority == 0.8
    described = TaskDescription.from_json(task.describe().to_json())
    assert described.split("val").is_weighted
    assert described.split(described.part("val", 2)).is_weighted
    old = task.describe().to_json()
    del old["splits"]["val"]["is_weighted"]
    assert not TaskDescription.from_json(old).split("val").is_weighted


ORACLES: dict[str, Callable[..., float]] = {
    "balanced accuracy": lambda y, p, o, w: sklearn_metrics.balanced_accuracy_score(
        y, p, sample_weight=w
    ),
    "worst-class accuracy": lambda y, p, o, w: sklearn_metrics.recall_score(
        y, p, average=None, sample_weight=w
    ).min(),
    "F1": lambda y, p, o, w: sklearn_metrics.f1_score(y, p, sample_weight=w),
    "macro F1": lambda y, p, o, w: sklearn_metrics.f1_score(y, p, average="macro", sample_weight=w),
    "micro F1": lambda y, p, o, w: sklearn_metrics.accuracy_score(y, p, sample_weight=w),
    "mean IoU": lambda y, p, o, w: sklearn_metrics.jaccard_score(
        y, p, average="macro", sample_weight=w
    ),
    "Matthews correlation": lambda y, p, o, w: sklearn_metrics.matthews_corrcoef(
        y, p, sample_weight=w
    ),
    "AUC": lambda y, p, o, w: sklearn_metrics.roc_auc_score(y, o[:, 1] - o[:, 0], sample_weight=w),
    "top-5 accuracy": lambda y, p, o, w: np.average(
        np.any(np.argsort(o)[:, -5:] == y[:, None], axis=1), weights=w
    ),
    "MAE": lambda y, p, o, w: np.average(np.abs(y - p), weights=w),
    "RMSE": lambda y, p, o, w: np.average(np.square(y - p), weights=w) ** 0.5,
    "R²": lambda y, p, o, w: sklearn_metrics.r2_score(y, p, sample_weight=w),
    "Pearson correlation": lambda y, p, o, w: np.corrcoef(
        np.repeat(y, w.astype(int)), np.repeat(p, w.astype(int))
    )[0, 1],
    "perplexity": lambda y, p, o, w: math.exp((w @ o[:, 0]) / (w @ o[:, 1])),
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_weighted_metric_is_that_of_scikit_learn(name: str) -> None:
    outputs, predictions, targets = LOGITS, LOGITS.argmax(1), CLASSES
    if name in ("F1", "AUC"):
        outputs, predictions = LOGITS[:, :2], LOGITS[:, :2].argmax(1)
        targets = (CLASSES < 3).long()
    if name in ("MAE", "RMSE", "R²", "Pearson correlation"):
        outputs, predictions, targets = NEAR, NEAR, NUMBERS
    if name == "perplexity":
        outputs = torch.stack([NEAR.abs(), torch.arange(1.0, N + 1)], dim=1)
    metric = METRICS[name]
    assert metric.takes_weights
    found = metric.score({"outputs": outputs, "predictions": predictions}, targets, WEIGHTS)
    arrays = (each.double().numpy() for each in (targets, predictions, outputs, WEIGHTS))
    assert metric.sign * found == pytest.approx(ORACLES[name](*arrays), abs=1e-6)


def test_all_built_in_metrics_but_spearman_take_weights() -> None:
    unable = {name for name, metric in METRICS.items() if not metric.takes_weights}
    assert unable == METRICS.keys() - ORACLES.keys() == {"Spearman correlation"}


def test_sums_of_language_models_and_taggers_are_weighted() -> None:
    records = torch.rand(N, 6, generator=GENERATOR) * 9
    n_bytes = torch.arange(1, N + 1)
    w, r = WEIGHTS.numpy(), records.double().numpy()
    assert perplexity(records[:, :2], n_bytes, WEIGHTS) == pytest.approx(
        math.exp((w @ r[:, 0]) / (w @ r[:, 1]))
    )
    compute = BITS_PER_BYTE.compute
    assert compute is not None
    assert compute(records, n_bytes, WEIGHTS) == pytest.approx(
        (w @ r[:, 0]) / (w @ n_bytes.numpy()) / math.log(2)
    )
    f1, accuracy = (
        metric.score({"outputs": records}, n_bytes, WEIGHTS) for metric in TAGGING_METRICS
    )
    assert f1 == pytest.approx(2 * (w @ r[:, 3]) / (w @ r[:, 4] + w @ r[:, 5]))
    assert accuracy == pytest.approx((w @ r[:, 2]) / (w @ r[:, 1]))


def test_a_metric_without_weights_is_refused_before_any_work() -> None:
    for metric in ("Spearman correlation", Metric("mine", compute=lambda given, targets: 0.0)):
        with pytest.raises(TaskError, match=r"has weights, but the metric .* takes none"):
            ClassificationTask(
                lambda: nn.Linear(2, 2), {"val": split_of([1, 2, 3])}, metrics=[metric]
            )
    told: dict[str, Tensor] = {}

    def compute(given: Tensor, targets: Tensor, weights: Tensor) -> float:
        told["weights"] = weights
        return float(len(given))

    own = Metric("mine", compute=compute, takes_weights=True)
    assert own.score({"predictions": NEAR[:3]}, NUMBERS[:3], torch.tensor([1.0, 0, 2])) == 2.0
    assert told["weights"].tolist() == [1.0, 2.0]


def test_a_failure_counts_only_where_there_is_weight() -> None:
    broken = torch.tensor([1.0, math.inf])
    metric = METRICS["MAE"]
    assert metric.score({"predictions": broken}, torch.ones(2), torch.tensor([1.0, 0])) == 0.0
    assert metric.score({"predictions": broken}, torch.ones(2), torch.tensor([1.0, 1])) == -math.inf


def test_a_token_of_weight_zero_is_not_counted() -> None:
    split = Split("select", {"input_ids": torch.ones(2, 4).long()}, torch.zeros(2))
    task = CausalTask(lambda: nn.Linear(1, 1), {"val": split}, metrics=["perplexity"])
    ids = torch.tensor([[1, 2, 0, 3], [2, 2, 1, 0]])
    inputs = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}
    logits = torch.randn(2, 4, 5, generator=GENERATOR)
    weights = torch.tensor([[9.0, 0, 1, 0.5], [9, 2, 0, 0]])
    records = task.record(logits, inputs, torch.zeros(2), weights)
    nats = -logits.log_softmax(2)
    expected = nats[0, 1, 0] + 0.5 * nats[0, 2, 3], 2 * nats[1, 0, 2]
    assert records[:, 0].tolist() == pytest.approx([float(each) for each in expected], rel=1e-6)
    assert records[:, 1].tolist() == [1.5, 2.0]
    assert task.loss(records, torch.zeros(2)).tolist() == pytest.approx(
        [float(expected[0]) / 1.5, float(expected[1]) / 2]
    )
