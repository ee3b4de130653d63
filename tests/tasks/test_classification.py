import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from soupcore import ClassificationTask, Split


@pytest.fixture
def toy() -> ClassificationTask:
    splits = {"val": Split("select", torch.zeros(1, 3), torch.tensor([0]))}
    return ClassificationTask(nn.Identity, splits, name="toy")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_loss_and_score_are_scikit_learn_s(
    toy: ClassificationTask, seed: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = (3 * torch.randn(200, 5, generator=generator)).to(dtype)
    targets = torch.randint(0, 5, (200,), generator=generator)
    losses, scores = toy.loss(outputs, targets), toy.score(outputs, targets)
    assert losses.shape == scores.shape == targets.shape
    chances = outputs.double().softmax(1).numpy()
    expected = log_loss(targets.numpy(), chances, labels=range(5))
    assert float(losses.double().mean()) == pytest.approx(expected, rel=1e-6)
    predictions = toy.predict(outputs)
    assert float(scores.mean()) == pytest.approx(accuracy_score(targets, predictions))
    assert set(scores.tolist()) == {0.0, 1.0}


def test_the_lowest_class_is_predicted_for_equal_logits(toy: ClassificationTask) -> None:
    outputs = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    assert toy.predict(outputs).tolist() == [0, 1, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_logits_that_are_not_finite_are_wrong(
    toy: ClassificationTask, bad: float, place: int
) -> None:
    outputs = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    outputs[0, place] = bad
    for target in (0, 1):
        targets = torch.tensor([target, 1])
        assert toy.score(outputs, targets).tolist() == [0.0, 1.0]


def test_the_score_is_called_accuracy(toy: ClassificationTask) -> None:
    assert toy.score_name == "accuracy"
