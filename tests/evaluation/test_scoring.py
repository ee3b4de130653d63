"""Scoring of outputs by a task's functions, and the errors of invalid ones."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from soupcore import ClassificationTask, Evaluator, Split, Store, Sweep, Task, TaskError
from soupcore.evaluation.data import Data
from soupcore.evaluation.scoring import Scorer
from tests.toy import CLASSES, FEATURES, build_model

N = 60


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Own(Task):
    """A task whose loss and score are given."""

    def __init__(
        self,
        score: Callable[[Tensor, Tensor], Any],
        loss: Callable[[Tensor, Tensor], Any] = lambda outputs, targets: outputs[:, 0],
        predict: Callable[[Tensor], Any] = lambda outputs: outputs,
    ) -> None:
        data = Split("select", numbers(N, 2), numbers(N, 2, seed=1))
        super().__init__(nn.Identity, {"val": data}, name="own")
        self._score, self._loss, self._predict = score, loss, predict

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = self._loss(outputs, targets)
        return found

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = self._score(outputs, targets)
        return found

    def predict(self, outputs: Tensor) -> Tensor:
        found: Tensor = self._predict(outputs)
        return found


def scorer(task: Task) -> Scorer:
    return Scorer(task, "val", task.split("val").targets)


def ask(task: Task, outputs: Any | None = None) -> Any:
    data = task.split("val")
    return scorer(task).score(data.inputs if outputs is None else outputs, data.targets)


def by_row(outputs: Tensor, targets: Tensor) -> Tensor:
    return -(outputs - targets).square().mean(1)


# Numbers that depend on the examples beside them


def f1(outputs: Tensor, targets: Tensor) -> Tensor:
    said, true = outputs[:, 0] > 0, targets[:, 0] > 0
    return torch.full((len(outputs),), float(f1_score(true, said, zero_division=0)))


def by_batch_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[:, 0] - targets[:, 0]).abs() / targets[:, 0].abs().mean()


def rank(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs[:, 0].argsort().argsort() / len(outputs)


@pytest.mark.parametrize("number", [f1, by_batch_mean, rank])
@pytest.mark.parametrize("what", ["score", "loss"])
def test_a_score_that_depends_on_the_batch_is_refused(
    number: Callable[[Tensor, Tensor], Tensor], what: str
) -> None:
    task = Own(number) if what == "score" else Own(by_row, number)
    with pytest.raises(TaskError, match=f"The {what} of an example .*'val'.*'own'.*F1"):
        ask(task)


def test_a_batch_without_a_mistake_does_not_clear_a_batch_statistic() -> None:
    task = Own(f1)
    data, asked = task.split("val"), scorer(task)
    perfect = asked.score(data.targets, data.targets)
    assert perfect.scores.tolist() == [1.0] * N
    with pytest.raises(TaskError, match="depends on the examples it is scored with"):
        asked.score(data.inputs, data.targets)


def test_numbers_of_each_example_alone_are_compared_once() -> None:
    calls: list[int] = []

    def counted(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(outputs))
        return by_row(outputs, targets)

    task = Own(counted)
    data, asked = task.split("val"), scorer(task)
    for _ in range(2):
        found = asked.score(data.inputs, data.targets)
        assert torch.equal(found.scores, by_row(data.inputs, data.targets))
    assert calls == [N, N // 2, N // 2, N]


def test_rounding_that_depends_on_the_batch_is_accepted() -> None:
    weight = numbers(2, 500, seed=3)

    def through_a_layer(outputs: Tensor, targets: Tensor) -> Tensor:
        scale = 1 + 1e-6 * (len(outputs) % 7)
        return (outputs @ weight).square().mean(1) * scale

    assert len(ask(Own(through_a_layer)).scores) == N


def test_undefined_examples_stay_undefined_in_pieces() -> None:
    def some(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.where(targets[:, 0] > 0, by_row(outputs, targets), math.nan)

    task = Own(some)
    undefined = task.split("val").targets[:, 0] <= 0
    assert torch.equal(ask(task).scores.isnan(), undefined)


@pytest.mark.parametrize("score_range", [None, (-100.0, 100.0)])
@pytest.mark.parametrize("part", [False, True])
def test_scores_of_whole_batches_are_refused_before_anything_is_stored(
    sweep: Sweep, splits: dict[str, Split], store: Store, part: bool, score_range: Any
) -> None:
    class F1(ClassificationTask):
        def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
            found = f1_score(targets, outputs.argmax(1), average="macro")
            return torch.full((len(outputs),), float(found))

    task = F1(build_model, splits)
    task.score_range = score_range
    evaluator = Evaluator(task, store, device="cpu", batch_size=16)
    split = task.part("val", 40) if part else "val"
    for _ in range(2):
        with pytest.raises(TaskError, match="depends on the examples it is scored with"):
            evaluator.evaluate(sweep["run1"].mixture, split)
    assert evaluator.stored([sweep["run1"].mixture], split) == [None]


# Answers of the wrong kind


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda o, t: by_row(o, t).mean(), r"has shape \[\]"),
        (lambda o, t: by_row(o, t)[:, None], rf"has shape \[{N}, 1\]"),
        (lambda o, t: -(o - t).square(), rf"has shape \[{N}, 2\]"),
        (lambda o, t: float(by_row(o, t).mean()), "is a float"),
        (lambda o, t: by_row(o, t).numpy(), "is a ndarray"),
        (lambda o, t: None, "is a NoneType"),
    ],
)
@pytest.mark.parametrize("what", ["score", "loss"])
def test_losses_and_scores_of_another_shape_are_refused(
    answer: Callable[[Tensor, Tensor], Any], words: str, what: str
) -> None:
    task = Own(answer) if what == "score" else Own(by_row, answer)
    with pytest.raises(TaskError, match=f"The {what} of the task 'own' {words}.*'val'.*one number"):
        ask(task)


def test_failing_code_of_a_task_is_named_with_its_inputs() -> None:
    def fails(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.nll_loss(outputs, targets, reduction="none")

    given = rf"outputs float32 \[{N}, 2\] and targets float32 \[{N}, 2\]"
    with pytest.raises(TaskError, match=f"`loss` of the task 'own'.*'val'.*{given}") as caught:
        ask(Own(by_row, fails))
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(TaskError, match=f"`predict` of the task 'own' returns float32 \\[{N - 1}"):
        ask(Own(by_row, predict=lambda outputs: outputs[1:, 0]))


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (numbers(N // 2, 2), rf"float32 \[{N // 2}, 2\] for {N} examples of the split 'val'"),
        (numbers(N)[0], rf"float32 \[\] for {N} examples"),
        ({"a": numbers(N, 2), "b": numbers(N, 2)}, "'own' cannot score .*'val'.*with 'a', 'b'"),
    ],
)
def test_outputs_without_a_row_for_each_example_are_refused(outputs: Any, words: str) -> None:
    task = Own(by_row)
    data = Data.of(task.split("val"), torch.device("cpu"))
    with pytest.raises(TaskError, match=words):
        scorer(task).records(lambda inputs: outputs, data, slice(0, N))


def test_an_example_on_which_the_network_failed_has_the_worst_score() -> None:
    task = Own(by_row, lambda outputs, targets: (outputs - targets).square().mean(1))
    outputs = task.split("val").inputs.clone()
    outputs[3, 1], outputs[5, 0] = math.nan, math.nan
    found = ask(task, outputs)
    failed = [3, 5]
    assert found.losses[failed].tolist() == [math.inf] * 2
    assert found.scores[failed].tolist() == [-math.inf] * 2
    assert int(found.scores.isfinite().sum()) == int(found.losses.isfinite().sum()) == N - 2
    assert outputs.isnan().sum() == 2


# Whole evaluations


class Named(nn.Sequential):
    def forward(self, inputs: Tensor) -> Any:
        logits: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return {"logits": logits, "hidden": inputs}


class Tupled(nn.Sequential):
    def forward(self, inputs: Tensor) -> Any:
        logits: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return (logits,)


class Fails(nn.Sequential):
    def forward(self, inputs: Tensor) -> Tensor:
        raise ValueError("no such token")


def a_task(kind: type[nn.Sequential] = nn.Sequential, **changes: Any) -> ClassificationTask:
    inputs, targets = numbers(N, FEATURES), torch.arange(N) % CLASSES
    data = {"inputs": inputs, "targets": targets} | changes
    split = Split("select", data["inputs"], data["targets"])
    return ClassificationTask(lambda: kind(*build_model()), {"val": split}, name="toy")  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Named, Tupled])
@pytest.mark.parametrize("keep_outputs", [True, False])
def test_logits_in_a_dict_or_a_tuple_score_as_they_are(
    sweep: Sweep, store: Store, kind: type[nn.Sequential], keep_outputs: bool
) -> None:
    plain = Evaluator(a_task(), store, device="cpu", batch_size=16)
    other = Evaluator(a_task(kind), store, device="cpu", batch_size=16)
    assert plain.task.key != other.task.key
    for name in ("run1", "run2"):
        expected = plain.evaluate(sweep[name].mixture, "val")
        found = other.evaluate(sweep[name].mixture, "val", keep_outputs=keep_outputs)
        assert torch.equal(found.losses, expected.losses)
        assert torch.equal(found.predictions, expected.predictions)
        assert torch.equal(found.outputs, expected.outputs)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_classes_of_any_integer_dtype_are_the_same_classes(
    sweep: Sweep, store: Store, dtype: torch.dtype
) -> None:
    targets = torch.arange(N) % CLASSES
    expected, found = (
        Evaluator(a_task(targets=given), store, device="cpu").evaluate(sweep["run1"].mixture, "val")
        for given in (targets, targets.to(dtype))
    )
    assert expected.split_digest != found.split_digest
    assert (found.loss, found.score) == (expected.loss, expected.score)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": numbers(N, CLASSES).sign().relu()}, "several labels an example subclass Task"),
        ({"targets": numbers(N)}, r"targets are float32 of shape \[60\]. Give one integer"),
        ({"targets": torch.zeros(N, 1).long()}, r"int64 of shape \[60, 1\]"),
        (
            {"targets": torch.arange(N) % CLASSES + 1},
            rf"from 1 to {CLASSES}, and the network has {CLASSES}, .*Subtract 1",
        ),
        ({"targets": torch.arange(N) % CLASSES - 1}, f"from -1 to {CLASSES - 2}.*Leave out"),
        # The last of all, so that no first batch shows it.
        (
            {"targets": torch.cat([torch.zeros(N - 1), torch.tensor([-100])]).long()},
            "from -100 to 0",
        ),
        ({"inputs": numbers(N, FEATURES + 1)}, rf"raised RuntimeError.*float32 \[.*{FEATURES + 1}"),
        ({"inputs": torch.ones(N, FEATURES).byte()}, "inputs uint8"),
        ({"kind": Fails}, "raised ValueError .*no such token. To see where"),
    ],
)
def test_unusable_data_of_a_classification_is_refused_with_the_task_and_the_split(
    sweep: Sweep, store: Store, changes: dict[str, Any], words: str
) -> None:
    evaluator = Evaluator(a_task(**changes), store, device="cpu", batch_size=16)
    with pytest.raises(TaskError, match=words) as caught:
        evaluator.evaluate(sweep["run1"].mixture, "val")
    assert "'toy'" in str(caught.value)
    assert "'val'" in str(caught.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [(lambda: "net", "returned a str"), (lambda: nn.Linear(-1, 1), "raised RuntimeError")],
)
def test_a_network_that_cannot_be_built_is_refused(
    splits: dict[str, Split], build: Any, words: str
) -> None:
    task = ClassificationTask(build, splits, name="toy")
    with pytest.raises(TaskError, match=f"`build_model` of the task 'toy' {words}"):
        task.new_model()


def test_records_beyond_the_budget_are_refused_after_one_batch(
    task: ClassificationTask, store: Store, sweep: Sweep
) -> None:
    task.record_budget = 100 * (3 * 4 + 8) - 1
    evaluator = Evaluator(task, store, device="cpu", batch_size=10)
    point, seen = sweep["run1"].mixture, list[int]()
    words = (
        r"would keep 2 kB: for each of 100 examples 12 bytes of records \(float32 \[1, 3\]\) and "
        r"8 bytes of predictions .* `record_budget` is 2 kB\. Override `record` and `predict`"
    )
    with pytest.raises(TaskError, match=words):
        evaluator.evaluate(point, "val", on_progress=lambda done, total: seen.append(done))
    assert seen == []
    assert evaluator.stored([point], "val") == [None]
    middle = sweep.mixture({"run1": 1, "run2": 0.5})
    assert not evaluator.evaluate(middle, "val", keep_outputs=False).has_outputs
    task.record_budget += 1
    assert evaluator.evaluate(point, "val").has_outputs


def test_the_record_budget_includes_predictions(
    task: ClassificationTask, store: Store, sweep: Sweep
) -> None:
    class Wordy(ClassificationTask):
        def predict(self, outputs: Tensor) -> Tensor:
            return torch.zeros(len(outputs), 1000)

        def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs.argmax(1) == targets).float()

    wordy = Wordy(task.build_model, task.splits)
    wordy.record_budget = 1000 * 100 * 4 - 1
    with pytest.raises(TaskError, match="4 kB of predictions"):
        Evaluator(wordy, store, device="cpu").evaluate(
            sweep.mixture({"run1": 1, "run2": 0.5}), "val", keep_outputs=False
        )
