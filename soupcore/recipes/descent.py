"""Gradient descent in the space of coefficients, with early stopping."""

import math
from contextlib import suppress
from typing import Literal

import numpy as np
import scipy  # its submodules load when they are first used
import torch
from torch import Tensor

from soupcore.progress import Progress
from soupcore.recipes.gradients import Floats, LossGradient, Objective
from soupcore.recipes.trace import OnStep, Pass
from soupcore.tasks import Split

Space = Literal["softmax", "hyperplane"]

_PATIENCE = 3  # passes without a new best before descent stops


class _EnoughError(Exception):
    """Raised to stop an optimiser."""


def hold_back(split: Split, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide the examples of a split at random into a train part and a held-out part.

    If the targets are classes, the division is stratified, to within one example per class.

    Args:
        split: The examples. Examples of weight zero are in neither part.
        share: Fraction to hold out, from 0 to 1.
        seed: Seed of the division.

    Returns:
        The indices of the train part and of the held-out part, each ascending.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    if split.weights is not None:
        order = order[split.weights[order] > 0]
    n = len(order)
    classes = split.classes()
    if classes is not None:
        order = order[classes[order].argsort(stable=True)]
    # Every 1/share-th in this order; examples of a class are adjacent, so this is stratified.
    steps = (torch.arange(n + 1, dtype=torch.float64) * share).floor()
    is_held = steps[1:] > steps[:-1]
    return torch.sort(order[~is_held]).values, torch.sort(order[is_held]).values


def coefficients_of(raw: Floats, space: Space) -> Floats:
    """Return coefficients that sum to one, equal ones for zeros.

    Args:
        raw: Any numbers, shape [groups, k].
        space: `softmax`: softmax(raw); `hyperplane`: 1/k + raw − mean(raw), which may be negative.
    """
    if space == "softmax":
        return np.asarray(scipy.special.softmax(raw, axis=1))
    coefficients: Floats = 1 / raw.shape[1] + raw - raw.mean(axis=1, keepdims=True)
    return coefficients


class Descent:
    """Learns coefficients pass by pass, starting from equal ones.

    Args:
        objective: The loss and its gradient.
        k: Number of ingredients.
        space: Map from raw numbers to coefficients; see `coefficients_of`.
        learn: Indices of the examples to learn from.
        held_back: Indices of the examples for early stopping. If there are none, the loss on
            `learn` decides.
        learns_temperature: Whether to learn β, which is 1 otherwise.
        passes: Maximum number of passes over the examples to learn from.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        on_step: Called with the trace after each pass.

    Attributes:
        trace: The result of each pass.
        best: The coefficients of the best pass, shape [groups, k].
    """

    def __init__(
        self,
        objective: Objective,
        k: int,
        space: Space,
        *,
        learn: Tensor,
        held_back: Tensor,
        learns_temperature: bool,
        passes: int,
        on_progress: Progress,
        on_step: OnStep,
    ) -> None:
        self._objective = objective
        self._shape = (len(objective.labels), k)
        self._space = space
        self._learn = learn
        self._held_back = held_back
        self._learns_temperature = learns_temperature
        self._passes = passes
        self._on_progress = on_progress
        self._on_step = on_step
        self._examples_done = 0
        self._passes_done = 0
        self._best_loss = math.inf
        self._since_best = 0
        self.trace: list[Pass] = []
        self.best: Floats = np.full(self._shape, 1 / k)

    def by_lbfgs(self) -> None:
        """Run full-batch L-BFGS (Byrd et al. 1995, the implementation of scipy)."""
        start = np.append(np.zeros(math.prod(self._shape)), 1.0)

        def value_and_gradient(point: Floats) -> tuple[float, Floats]:
            if self._passes_done == self._passes:
                raise _EnoughError
            found = self._gradient(point, self._learn)
            if self.trace:
                self._passes_done += 1
            else:
                self._record(point, found.loss)
            return found.loss, self._pulled_back(point, found)

        def on_iteration(intermediate_result: scipy.optimize.OptimizeResult) -> None:
            self._record(intermediate_result.x, float(intermediate_result.fun))

        with suppress(_EnoughError):
            scipy.optimize.minimize(
                value_and_gradient, start, jac=True, method="L-BFGS-B", callback=on_iteration
            )

    def by_adamw(self, rate: float, batch_size: int, seed: int) -> None:
        """Run AdamW with a constant rate and no weight decay, over batches in random order."""
        raw = torch.zeros(math.prod(self._shape) + 1, dtype=torch.float64, requires_grad=True)
        with torch.no_grad():
            raw[-1] = 1  # β
        optimizer = torch.optim.AdamW([raw], lr=rate, weight_decay=0)
        generator = torch.Generator().manual_seed(seed)
        point = raw.detach().numpy()  # a view, which follows the optimiser's steps
        loss, _ = self._objective.loss_and_score(
            self._coefficients(point), self._temperature(point), self._learn, self._count
        )
        self._record(point, loss)
        size = self._objective.size(self._learn)
        with suppress(_EnoughError):
            while self._passes_done < self._passes:
                self._passes_done += 1
                order = self._learn[torch.randperm(len(self._learn), generator=generator)]
                total = 0.0
                for batch in torch.split(order, batch_size):
                    found = self._gradient(point, batch)
                    raw.grad = torch.from_numpy(self._pulled_back(point, found))
                    optimizer.step()
                    total += found.loss * self._objective.size(batch) / size
                self._record(point, total)

    def _record(self, point: Floats, loss: float) -> None:
        """Evaluate a point after a pass, and stop after `_PATIENCE` passes without a new best."""
        held_back = held_back_score = math.nan
        if len(self._held_back):
            held_back, held_back_score = self._loss_and_score(point, self._held_back)
        deciding = held_back if len(self._held_back) else loss
        is_best = deciding < self._best_loss
        if is_best:
            self._best_loss = deciding
            self.best = self._coefficients(point)
        self.trace.append(
            Pass(
                number=self._passes_done,
                loss=loss,
                held_back_loss=held_back,
                held_back_score=held_back_score,
                temperature=self._temperature(point),
                best=is_best,
            )
        )
        self._on_step(self.trace)
        self._since_best = 0 if is_best else self._since_best + 1
        if self._since_best == _PATIENCE:
            raise _EnoughError

    def _coefficients(self, point: Floats) -> Floats:
        return coefficients_of(point[:-1].reshape(self._shape), self._space)

    def _temperature(self, point: Floats) -> float:
        return float(point[-1]) if self._learns_temperature else 1.0

    def _pulled_back(self, point: Floats, found: LossGradient) -> Floats:
        """Return the gradient with respect to a point from that for its coefficients."""
        by_coefficients = found.by_coefficients
        if self._space == "softmax":
            share = self._coefficients(point)
            common = (share * by_coefficients).sum(axis=1, keepdims=True)
            by_raw = share * (by_coefficients - common)
        else:
            by_raw = by_coefficients - by_coefficients.mean(axis=1, keepdims=True)
        by_temperature = found.by_temperature if self._learns_temperature else 0.0
        return np.append(by_raw.ravel(), by_temperature)

    def _gradient(self, point: Floats, examples: Tensor) -> LossGradient:
        return self._objective.gradient(
            self._coefficients(point), self._temperature(point), examples, self._count
        )

    def _loss_and_score(self, point: Floats, examples: Tensor) -> tuple[float, float]:
        """Return loss and score for comparing points; a learned β is refitted at each point."""
        coefficients = self._coefficients(point)
        if self._learns_temperature:
            return self._objective.loss_and_score_refitted(coefficients, examples, self._count)
        return self._objective.loss_and_score(coefficients, 1.0, examples, self._count)

    def _count(self, examples: int) -> None:
        # One pass more than those for learning: the evaluation of the start.
        total = (self._passes + 1) * (len(self._learn) + len(self._held_back))
        self._examples_done += examples
        self._on_progress(min(self._examples_done, total), total)
