import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

import soupcore
from soupcore import Evaluation, Evaluator, Mixture, Sweep
from soupcore.progress import stretch

EXAMPLES = 100

MakeTable = Callable[
    [str, Callable[[frozenset[str]], float] | Mapping[str, float]], tuple[Sweep, Evaluator]
]


@dataclass
class TableEvaluator:
    """Looks the score of a soup up by the names of its equal parts, in percent.

    The examples that are right are the first ones, so that a better soup only gains.
    """

    sweep: Sweep
    percents: Callable[[frozenset[str]], float]
    task: soupcore.ClassificationTask
    evaluated: list[frozenset[str]] = field(default_factory=list)
    losses: dict[frozenset[str], float] = field(default_factory=dict)
    estimate: None = None
    at_once: int = 1

    def evaluate(
        self,
        mixture: Mixture,
        split: str,
        *,
        keep_outputs: bool = True,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Evaluation:
        names = {self.sweep[name].digest: name for name in self.sweep.names()}
        parts = frozenset(names[digest] for digest in mixture.coefficients)
        assert mixture == soupcore.mean(self.sweep[name].mixture for name in parts)
        self.evaluated.append(parts)
        percent = self.percents(parts)
        on_progress(EXAMPLES, EXAMPLES)
        return Looked(
            mixture_key=mixture.key,
            split=split,
            n=EXAMPLES,
            loss=self.losses.get(parts, 1 - percent / 100),
            score=percent / 100,
            score_interval=(0.0, 1.0),
            seconds=0.0,
            has_outputs=False,
            arrays=Path(),
        )

    def evaluate_or_reject(
        self,
        mixture: Mixture,
        incumbent: Evaluation,
        *,
        strictly: bool,
        difficulty: torch.Tensor,
        on_progress: Callable[[int, int], None],
    ) -> Evaluation:
        """Evaluate to the end, as an evaluator may; giving up early is tested with a real one."""
        assert difficulty.shape == (incumbent.n,)
        return self.evaluate(mixture, incumbent.split, on_progress=on_progress)

    def evaluate_all(
        self,
        mixtures: Sequence[Mixture],
        split: str,
        *,
        keep_outputs: bool = True,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Evaluation]:
        found = []
        for index, mixture in enumerate(mixtures):
            here = stretch(on_progress, index * EXAMPLES, EXAMPLES, len(mixtures) * EXAMPLES)
            found.append(self.evaluate(mixture, split, on_progress=here))
        return found


class Looked(Evaluation):
    @property
    def losses(self) -> torch.Tensor:
        return torch.full((EXAMPLES,), math.inf if math.isnan(self.loss) else self.loss)

    @property
    def scores(self) -> torch.Tensor:
        if math.isnan(self.score):  # the network failed
            return torch.full((EXAMPLES,), -math.inf)
        right = self.score * EXAMPLES
        return (torch.arange(EXAMPLES) < round(right)).float()


def evaluated(evaluator: Evaluator) -> list[frozenset[str]]:
    return cast("TableEvaluator", evaluator).evaluated
