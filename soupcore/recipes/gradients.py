"""The loss of a mixture as a function of its coefficients, with its gradient, streamed.

By the chain rule ∂L/∂cᵢ = ⟨∇θL, θᵢ⟩: one backward pass through one network gives ∇θL, and the inner
products take one pass over the ingredients' files, so these need not be in memory. (Coefficients
that sum to one leave ⟨∇θL, θ₁⟩ without effect; products with the differences θᵢ − θ₁ are as good,
and lose nothing to rounding where ingredients are close to each other.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.evaluation.devices import computing_on
from soupcore.evaluation.fitting import Fitting
from soupcore.merges.task_vectors import read_wide, wide_dtype
from soupcore.mixtures import Mixture
from soupcore.tasks import Split, Task

Floats = npt.NDArray[np.float64]

_CHUNK = 31 << 10  # elements of each ingredient at a time, where they are read from files
_RESIDENT_CHUNK = 1 << 20  # and where they are in memory


@dataclass(frozen=True)
class Found:
    """The mean loss over some examples, and its gradient.

    Attributes:
        loss: The mean loss.
        by_coefficients: Its gradient with respect to the coefficients, shape [groups, k], up to a
            constant for each group.
        by_temperature: That with respect to β.
    """

    loss: float
    by_coefficients: Floats
    by_temperature: float


class Objective:
    """Mean loss of β·f(x; θ(c)) where θ(c) = Σ cᵢθᵢ, with coefficients for each group of tensors.

    Only one network is in memory, with its gradient; the ingredients too where they fit.

    Args:
        task: The network and the loss.
        split: The examples.
        checkpoints: θᵢ, k of them.
        groups: `{label: names of tensors}`; groups in which the ingredients do not differ are left
            out of `labels`.
        device: Where to compute.
        batch_size: Examples a pass through the network.
        memory_budget: Bytes that the ingredients may take to be kept in memory.

    Attributes:
        labels: The groups that have coefficients, in order.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        checkpoints: Sequence[Checkpoint],
        groups: Mapping[str, Sequence[str]],
        *,
        device: torch.device,
        batch_size: int,
        memory_budget: int,
    ) -> None:
        self._task = task
        self._split = split
        self._device = device
        self._batch_size = batch_size
        self._model = task.build_model().to(device).eval()
        fitting = Fitting(self._model.state_dict(), task.name)
        alone = [Mixture([(checkpoint, 1)]) for checkpoint in checkpoints]
        self._checkpoints = [
            source for point in alone for source in fitting.under_own_names(point).sources.values()
        ]
        theirs = fitting.names_in(alone[0])
        self._placed: bytes | None = None
        resident = sum(checkpoint.nbytes for checkpoint in checkpoints) <= memory_budget
        self._home = device if resident else torch.device("cpu")
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        group_of = {name: label for label, names in groups.items() for name in names}
        self._tensors: dict[str, list[tuple[str, Tensor]]] = {label: [] for label in groups}
        seen: set[int] = set()
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            if id(tensor) in seen:  # tied to one before: one tensor, with one gradient
                continue
            seen.add(id(tensor))
            if not tensor.is_floating_point():
                tensor.copy_(self._checkpoints[0].read(name))
                continue
            # BatchNorm's statistics are mixed as well, so they are differentiated as well.
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
    ) -> Found:
        """Return the mean loss over some examples and its gradient.

        Args:
            coefficients: c, shape [groups, k]; each row sums to one.
            temperature: β.
            examples: Which examples of the split, as indices.
            on_batch: Called with the number of examples done since the last call.
        """
        self._place(coefficients)
        self._model.zero_grad()
        for tensor in self._model.buffers():
            tensor.grad = None
        beta = torch.tensor(temperature, device=self._device, requires_grad=True)
        total = 0.0
        with computing_on(self._device), _DifferentiableStatistics():
            for outputs, targets in self._batches(examples):
                loss = self._task.loss(beta * outputs, targets).sum() / len(examples)
                torch.autograd.backward(loss)
                total += float(loss.detach())
                on_batch(len(targets))
        by_temperature = 0.0 if beta.grad is None else float(beta.grad)
        return Found(total, self._inner_products(coefficients.shape), by_temperature)

    @torch.no_grad()
    def judge(
        self,
        coefficients: Floats,
        temperature: float,
        examples: Tensor,
        on_batch: Callable[[int], None],
    ) -> tuple[float, float]:
        """Return the mean loss and the mean score over some examples; see `gradient`."""
        self._place(coefficients)
        losses, scores = 0.0, 0.0
        with computing_on(self._device):
            for outputs, targets in self._batches(examples):
                losses += float(self._task.loss(temperature * outputs, targets).double().sum())
                scores += float(self._task.score(outputs, targets).double().sum())
                on_batch(len(targets))
        return losses / len(examples), scores / len(examples)

    def _batches(self, examples: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in torch.split(examples, self._batch_size):
            inputs = self._split.inputs[batch].to(self._device)
            if self._split.prepare is not None:
                inputs = self._split.prepare(inputs)
            yield self._model(inputs), self._split.targets[batch].to(self._device)

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
        found = np.zeros(shape)
        for row, label in zip(found, self.labels, strict=True):
            for name, tensor in self._tensors[label]:
                if tensor.grad is None:
                    continue
                gradient = tensor.grad.reshape(-1).to(self._home)
                for start, first, others in self._pieces(name, tensor):
                    part = gradient[start : start + len(first)].to(first.dtype)
                    row[1:] += torch.mv(others, part).double().cpu().numpy()
        return found

    def _pieces(self, name: str, tensor: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Give θ₁ and θᵢ − θ₁ piece by piece: where it begins, [n] and [k − 1, n].

        Each piece may take the place of the one before.
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
            for row in rows[1:]:  # one by one: a row is too short for torch to wake its threads
                row.sub_(rows[0])
            yield start, rows[0], rows[1:]

    @torch.no_grad()
    def _differs(self, name: str, tensor: Tensor, *, keep: bool) -> bool:
        """Whether the ingredients differ in a tensor; where they do not, place it for good."""
        if are_known_alike(self._checkpoints, name):  # and may hold the −inf of an attention mask
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


class _DifferentiableStatistics(TorchFunctionMode):
    """Makes BatchNorm in evaluation mode differentiable by its statistics, which torch's is not."""

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
