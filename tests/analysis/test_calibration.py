import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcore.analysis.calibration import calibration, fit_temperature
from soupcore.errors import TaskError


def sample(n: int, classes: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits, and targets drawn from the probabilities that logits × scale stand for."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    targets = torch.multinomial((logits * scale).softmax(1), 1, generator=generator).squeeze(1)
    return logits, targets


@given(st.integers(20, 300), st.integers(2, 5), st.integers(0, 100))
def test_bins_are_those_of_scikit_learn(n: int, classes: int, seed: int) -> None:
    logits, targets = sample(n - n % 10, classes, seed)  # it cuts at quantiles: the same if even
    found = calibration(logits, targets, bins=10)
    confidence, said = logits.softmax(1).max(1)
    right = (said == targets).numpy()
    accuracy, mean = calibration_curve(right, confidence.numpy(), n_bins=10, strategy="quantile")
    assert [each.confidence for each in found.bins] == pytest.approx(list(mean))
    assert [each.accuracy for each in found.bins] == pytest.approx(list(accuracy))
    assert found.ece == pytest.approx(np.abs(mean - accuracy).mean())


def test_a_calibrated_network_has_almost_no_calibration_error() -> None:
    logits, targets = sample(20_000, 4, seed=0)
    assert calibration(logits, targets).ece < 0.02
    assert calibration(3 * logits, targets).ece > 0.1


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_the_temperature_makes_up_for_logits_that_are_too_large(scale: float) -> None:
    logits, targets = sample(20_000, 4, seed=1, scale=scale)
    temperature = fit_temperature(logits, targets)
    assert temperature == pytest.approx(1 / scale, rel=0.05)
    after = calibration(logits, targets, temperature=temperature)
    assert after.ece < 0.02
    assert after.temperature == temperature


def test_the_slope_of_the_loss_is_zero_at_the_temperature_found() -> None:
    logits, targets = sample(500, 3, seed=2, scale=0.5)
    beta = torch.tensor(1 / fit_temperature(logits, targets)).double().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(beta * logits, targets), [beta])
    assert abs(float(slope)) < 1e-6


def test_the_temperature_is_low_if_every_example_is_right() -> None:
    logits = torch.tensor([[5.0, 0.0], [0.0, 5.0]])
    temperature = fit_temperature(logits, targets := torch.tensor([0, 1]))
    assert 0.01 <= temperature < 0.2
    assert cross_entropy(logits / temperature, targets) < 1e-6


def test_every_example_is_in_one_bin_even_if_there_are_few() -> None:
    logits, targets = sample(7, 3, seed=3)
    found = calibration(logits, targets)
    assert [each.n for each in found.bins] == [1] * 7
    assert found.bins[0].confidence <= found.bins[-1].confidence


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3)),
    ],
)
def test_outputs_that_are_no_logits_of_classes_are_refused(logits: Tensor, targets: Tensor) -> None:
    with pytest.raises(TaskError, match="Calibration needs logits"):
        calibration(logits, targets)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_classes_of_any_integer_dtype_are_the_same(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 4, generator=generator)
    targets = torch.randint(0, 4, (60,), generator=generator)
    assert calibration(logits, targets.to(dtype)) == calibration(logits, targets)
    assert fit_temperature(logits, targets.to(dtype)) == fit_temperature(logits, targets)


@pytest.mark.parametrize("shift", [1, -1])
def test_a_class_without_a_logit_is_refused(shift: int) -> None:
    targets = torch.arange(4) + shift
    with pytest.raises(TaskError, match=f"from {shift} to {3 + shift}, .* 0 to 3"):
        calibration(torch.zeros(4, 4), targets)
