"""Sweeps of small networks, and the plain loop that the engine is held against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from soupcore import ClassificationTask, Evaluation, Evaluator, Mixture, Split, Store, Sweep
from tests.benchmarks.nets import ConvNet, Mlp, VisionTransformer
from tests.helpers import save_sweep

SIDE, CLASSES, EXAMPLES = 8, 5, 70

NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Mlp(1, SIDE, 32, CLASSES),
    "conv net": lambda: ConvNet(1, 4, CLASSES),
    "transformer": lambda: VisionTransformer(1, SIDE, 16, 2, 2, CLASSES),
}


@dataclass(frozen=True)
class ToySweep:
    """A task, a sweep for it, and the state dicts that it was made of."""

    task: ClassificationTask
    sweep: Sweep
    states: Mapping[str, Mapping[str, Tensor]]

    def plain(self, mixture: Mixture, split: str = "val") -> tuple[Tensor, Tensor]:
        """Return losses and scores by the plain loop: a new state dict, loaded, and a batch."""
        model = self.task.build_model()
        state = {
            name: torch.stack([c * self._state(d)[name].double() for d, c in terms]).sum(0)
            for name in model.state_dict()
            for terms in [[(d, float(c)) for d, c in mixture.coefficients.items()]]
        }
        model.load_state_dict({n: t.to(model.state_dict()[n].dtype) for n, t in state.items()})
        data = self.task.split(split)
        with torch.no_grad():
            outputs = model.eval()(data.inputs.clone())
        losses = cross_entropy(outputs, data.targets, reduction="none")
        return losses, (outputs.argmax(1) == data.targets).float()

    def _state(self, digest: str) -> Mapping[str, Tensor]:
        name = next(n for n in self.states if self.sweep[n].digest == digest)
        return self.states[name]

    def agrees(self, found: Evaluation, mixture: Mixture, split: str = "val") -> bool:
        """Whether an evaluation is the plain loop's: loss to 1e-6, scores exactly."""
        losses, scores = self.plain(mixture, split)
        loss = float(losses.double().mean())
        return abs(found.loss - loss) <= 1e-6 * max(1, loss) and found.scores.equal(scores)

    def evaluator(self, store: Store, **options: Any) -> Evaluator:
        """Return an evaluator on the CPU."""
        return Evaluator(self.task, store, device="cpu", **options)

    def points(self) -> list[Mixture]:
        """Return points of all kinds: alone, between two, far out, and the mean of all."""
        names = self.sweep.names()
        pairs = list(pairwise(names))
        return [
            *(self.sweep[name].mixture for name in names),
            *(
                self.sweep.mixture({a: 1 - alpha, b: alpha})
                for a, b in pairs
                for alpha in (Fraction(1, 7), Fraction(1, 2), Fraction(5, 4))
            ),
            self.sweep.mixture(dict.fromkeys(names, Fraction(1, len(names)))),
        ]


def toy_sweep(
    folder: Path,
    build: Callable[[], nn.Module],
    *,
    moving: Callable[[str], bool] = lambda name: True,
    splits: Sequence[str] = ("val",),
    k: int = 3,
) -> ToySweep:
    """Make a sweep around one initialisation, and data.

    Args:
        folder: Where to put its files.
        build: Makes the network.
        moving: Which tensors differ between the ingredients.
        splits: Names of the splits; the first is to choose on, the others are reported.
        k: How many ingredients.
    """
    with torch.random.fork_rng():
        torch.manual_seed(5)
        base = build().state_dict()
        base = {name: _lively(name, tensor) for name, tensor in base.items()}
        states = {
            f"run{i}": {n: _moved(t) if moving(n) else t.clone() for n, t in base.items()}
            for i in range(k)
        }
        data = {
            name: Split(
                "report" if i else "select",
                torch.randn(EXAMPLES + i, 1, SIDE, SIDE),
                torch.randint(0, CLASSES, (EXAMPLES + i,)),
            )
            for i, name in enumerate(splits)
        }
    task = ClassificationTask(build, data, name="net")
    return ToySweep(task, Sweep.from_folder(save_sweep(folder, states)), states)


def _lively(name: str, tensor: Tensor) -> Tensor:
    """Give BatchNorm the statistics and gains of a trained network."""
    if name.endswith("running_var"):
        return torch.rand_like(tensor) * 2 + 0.1
    if name.endswith("running_mean"):
        return torch.randn_like(tensor)
    if "norm" in name and name.endswith("weight"):
        return torch.randn_like(tensor)
    return tensor.clone()


def _moved(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    return tensor * (1 + 0.1 * torch.randn_like(tensor)) + 0.01 * torch.randn_like(tensor).abs()
