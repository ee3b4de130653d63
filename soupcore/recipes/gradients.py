"""The loss of a mixture as a function of its coefficients, with its gradient.

By the chain rule, ∂L/∂cᵢ = ⟨∇θL, θᵢ⟩. One backward pass through one network gives ∇θL, and one pass
over the ingredients' files gives the inner products, so the ingredients need not be in memory. The
products are taken with the differences θᵢ − θ₁: for coefficients that sum to one, ⟨∇θL, θ₁⟩ has no
effect, and differences avoid rounding errors between ingredients that are close to each other.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when they are first used
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.evaluation.data import Data
from soupcore.evaluation.network import computing_on
from soupcore.evaluation.scoring import Scorer
from soupcore.intervals import mean_of
from soupcore.merges.task_vectors import read_wide, wide_dtype
from soupcore.mixtures import Mixture
from soupcore.name_map import NameMap
from soupcore.tasks import Task

Floats = npt.NDArray[np.float64]

_CHUNK = 31 << 10  # elements per ingredient and step, when read from files
_RESIDENT_CHUNK = 1 << 20  # the same for ingredients in memory


@dataclass(frozen=True)
class LossGradient:
    """The mean loss over some examples, and its gradient.

    Attributes:
        loss: The mean loss.
        by_coefficients: Gradient with respect to the coefficients, shape [groups, k], up to a
            constant per group.
        by_temperature: Gradient with respect to β.
    """

    loss: float
    by_coefficients: Floats
    by_temperature: float


class Objective:
    """Mean loss of β·f(x; θ(c)), where θ(c) = Σ cᵢθᵢ with coefficients per group of tensors.

    The mean is weighted if the examples of the split have weights.

    Only one network and its gradient are in memory, and the ingredients if they fit the budget.

    Args:
        task: The network and the loss.
        split: Name of the split with the examples.
        checkpoints: The k ingredients θᵢ.
        groups: `{label: tensor names}`.
        device: Device to compute on.
        batch_size: Examples per forward pass.
        memory_budget: Largest total size of the ingredients, in bytes, to keep them in memory.

    Attributes:
        labels: The groups in which the ingredients differ, in order. Only these have coefficients.
    """

    def __init__(
        self,
        task: Task,
        split: str,
        checkpoints: Sequence[Checkpoint],
        groups: Mapping[str, Sequence[str]],
        *,
        device: torch.device,
        batch_size: int,
        memory_budget: int,
    ) -> None:
        self._task = task
        self._data = Data.of(task.split(split), device)
        self._weights = task.split(split).weights
        self._scorer = Scorer(task, split, self._data.target_tensor)
        self._device = device
        self._batch_size = batch_size
        self._model = task.new_model().to(device).eval()
        buffers = dict(self._model.named_buffers(remove_duplicate=False))
        name_map = NameMap(self._model.state_dict(), task.name, buffers)
        alone = [Mixture([(checkpoint, 1)]) for checkpoint in checkpoints]
        self._checkpoints = [
            source for point in alone for source in name_map.under_own_names(point).sources.values()
        ]
        theirs = name_map.names_in(alone[0])
        self._placed: bytes | None = None
        resident = sum(checkpoint.nbytes for checkpoint in checkpoints) <= memory_budget
        self._home = device if resident else torch.device("cpu")
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        group_of = {name: label for label, names in groups.items() for name in names}
        self._tensors: dict[str, list[tuple[str, Tensor]]] = {label: [] for label in groups}
        seen: set[int] = set()
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            if id(tensor) in seen:  # tied tensors have one gradient
                continue
            seen.add(id(tensor))
            if not tensor.is_floating_point():
                tensor.copy_(self._checkpoints[0].read(name))
                continue
            # BatchNorm statistics are mixed too, so they need gradients too.
            tensor.requires_grad_()
            if self._differs(name, tensor, keep=resident):
                self._tensors[group_of[theirs[name]]].append((name, tensor))
        self.labels = [label for label, tensors in self._tensors.items() if tensors]

    def gradient(
        self,
        coefficients: Floats,
        temperature: float,
        examples: Tensor,
        on_batch: Callable[[int], None],
    ) -> LossGradient:
        """Return the mean loss over some examples and its gradient.

        Args:
            coefficients: c, shape [groups, k]; each row sums to one.
            temperature: β.
            examples: Indices of the examples.
            on_batch: Called with the number of examples done since the last call.
        """
        self._place(coefficients)
        self._model.zero_grad()
        for tensor in self._model.buffers():
            tensor.grad = None
        beta = torch.tensor(temperature, device=self._device, requires_grad=True)
        total = 0.0
        with computing_on(self._device), _DifferentiableStatistics():
            for outputs, targets, weights in self._batches(examples):
                losses = self._task.loss(beta * outputs, targets)
                if weights is not None:
                    losses = losses * weights.to(losses)
                loss = losses.sum() / self.size(examples)
                torch.autograd.backward(loss)
                total += float(loss.detach())
                on_batch(len(targets))
        by_temperature = 0.0 if beta.grad is None else float(beta.grad)
        return LossGradient(total, self._inner_products(coefficients.shape), by_temperature)

    @torch.no_grad()
    def loss_and_score_refitted(
        self, coefficients: Floats, examples: Tensor, on_batch: Callable[[int], None]
    ) -> tuple[float, float]:
        """Return the mean loss over some examples at the β that minimises it, and the mean score.

        With a fixed β, points with another optimal β would be at a disadvantage.
        """
        self._place(coefficients)
        batches = []
        with computing_on(self._device):
            for outputs, targets, _ in self._batches(examples):
                batches.append((outputs, targets))
                on_batch(len(targets))
            outputs, targets = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
            scores = self._task.score(outputs, targets)
            loss = least_loss(self._task, outputs, targets, self._weights_of(examples))
        return loss, self._mean_score(scores, examples)

    @torch.no_grad()
    def loss_and_score(
        self,
        coefficients: Floats,
        temperature: float,
        examples: Tensor,
        on_batch: Callable[[int], None],
    ) -> tuple[float, float]:
        """Return the mean loss and the mean score over some examples; see `gradient`."""
        self._place(coefficients)
        total, scores = 0.0, []
        with computing_on(self._device):
            for outputs, targets, weights in self._batches(examples):
                losses = self._task.loss(temperature * outputs, targets).double()
                total += float((losses if weights is None else losses * weights.to(losses)).sum())
                scores.append(self._task.score(outputs, targets))
                on_batch(len(targets))
        return total / self.size(examples), self._mean_score(torch.cat(scores), examples)

    def size(self, examples: Tensor) -> float:
        """Return the number of some examples, or the sum of their weights."""
        weights = self._weights_of(examples)
        return len(examples) if weights is None else float(weights.sum())

    def _weights_of(self, examples: Tensor) -> Tensor | None:
        return None if self._weights is None else self._weights[examples]

    def _mean_score(self, scores: Tensor, examples: Tensor) -> float:
        return mean_of(scores, self._task.undefined, self._weights_of(examples))

    def _batches(self, examples: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        for batch in torch.split(examples, self._batch_size):
            outputs, targets = self._scorer.records(self._model, self._data, batch)
            yield outputs, targets, self._weights_of(batch)

    @torch.no_grad()
    def _place(self, coefficients: Floats) -> None:
        """Write θ(c) into the network."""
        if coefficients.tobytes() == self._placed:
            return
        for label, row in zip(self.labels, coefficients, strict=True):
            shares = torch.from_numpy(row[1:]).to(self._home)
            for name, tensor in self._tensors[label]:
                flat = torch.empty(tensor.numel(), dtype=wide_dtype(tensor.dtype))
                flat = flat.to(self._home)
                for start, first, others in self._pieces(name, tensor):
                    place = flat[start : start + len(first)]
                    torch.addmv(first, others.T, shares.to(first.dtype), out=place)
                tensor.copy_(flat.reshape(tensor.shape))
        self._placed = coefficients.tobytes()

    def _inner_products(self, shape: tuple[int, ...]) -> Floats:
        products = np.zeros(shape)
        for row, label in zip(products, self.labels, strict=True):
            for name, tensor in self._tensors[label]:
                if tensor.grad is None:
                    continue
                gradient = tensor.grad.reshape(-1).to(self._home)
                for start, first, others in self._pieces(name, tensor):
                    part = gradient[start : start + len(first)].to(first.dtype)
                    row[1:] += torch.mv(others, part).double().cpu().numpy()
        return products

    def _pieces(self, name: str, tensor: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield θ₁ and θᵢ − θ₁ piece by piece: the offset and tensors of shape [n] and [k − 1, n].

        A piece may reuse the memory of the previous one.
        """
        if name in self._kept:
            first, others = self._kept[name]
            for start in range(0, len(first), _RESIDENT_CHUNK):
                stop = start + _RESIDENT_CHUNK
                yield start, first[start:stop], others[:, start:stop]
            return
        chunk = min(_CHUNK, tensor.numel())
        buffer = torch.empty(len(self._checkpoints) * chunk, dtype=wide_dtype(tensor.dtype))
        for start in range(0, tensor.numel(), _CHUNK):
            count = min(_CHUNK, tensor.numel() - start)
            rows = buffer[: len(self._checkpoints) * count].view(-1, count)
            for row, checkpoint in zip(rows, self._checkpoints, strict=True):
                read_wide(checkpoint, name, start, row)
            for row in rows[1:]:  # one by one, since torch uses no threads for short rows
                row.sub_(rows[0])
            yield start, rows[0], rows[1:]

    @torch.no_grad()
    def _differs(self, name: str, tensor: Tensor, *, keep: bool) -> bool:
        """Return whether the ingredients differ in a tensor; if not, copy it into the network."""
        if are_known_alike(self._checkpoints, name):  # may hold −inf, as attention masks do
            pass
        elif not keep:
            if any(bool(others.any()) for _, _, others in self._pieces(name, tensor)):
                return True
        else:
            first = torch.empty(tensor.numel(), dtype=wide_dtype(tensor.dtype))
            others = torch.empty(len(self._checkpoints) - 1, len(first), dtype=first.dtype)
            for start, one, rest in self._pieces(name, tensor):
                first[start : start + len(one)] = one
                others[:, start : start + len(one)] = rest
            if others.any():
                self._kept[name] = first.to(self._home), others.to(self._home)
                return True
        tensor.copy_(self._checkpoints[0].read(name))
        return False


def least_loss(task: Task, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return the minimum over β in [0.01, 100] of the mean loss of β·logits; ∞ if not finite.

    Args:
        task: Defines the loss. Cross-entropy is convex in β.
        logits: Shape [n, classes].
        targets: Shape [n].
        weights: The weight of each example, shape [n]; None for equal weights.
    """

    def loss(log_beta: float) -> float:
        value = mean_of(task.loss(math.exp(log_beta) * logits, targets), "refuse", weights)
        return value if math.isfinite(value) else math.inf

    if loss(0.0) == math.inf:
        return math.inf
    ends = (math.log(0.01), math.log(100))
    minimum = scipy.optimize.minimize_scalar(
        loss, bounds=ends, method="bounded", options={"xatol": 1e-5}
    )
    return min(float(minimum.fun), loss(0.0))


class _DifferentiableStatistics(TorchFunctionMode):
    """Makes BatchNorm in evaluation mode differentiable with respect to its statistics."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        return torch.batch_norm(
            inputs, weight, bias, running_mean, running_var, training, momentum, eps, False
        )
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    shape = (1, -1, *(1 for _ in inputs.shape[2:]))
    return inputs * scale.reshape(shape) + shift.reshape(shape)
