from dataclasses import dataclass

from torch import Tensor

from soupcore import Evaluator, Sweep, Task


class DoubleWell(Task):
    """One weight w, the loss (w² − 1)²: two minima at ±1 and a hill of height 1 between them."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs - targets) ** 2 - 1).square().flatten()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.abs() > 0.5).float().flatten()


@dataclass
class Well:
    sweep: Sweep
    evaluator: Evaluator
