"""Search for coefficients by CMA-ES (Hansen and Ostermeier), with the package `cma`.

Akiba et al. 2024 (arXiv:2403.13187) search the coefficients of merges in this way. CMA-ES needs no
gradients, so it works with any task and optimises the primary metric itself. Points are evaluated
on the select split and stored. The search is a function of the seed and the scores, so a stopped
search resumes when it is started again.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from soupcore.errors import Cancelled, RecipeError
from soupcore.evaluation import Evaluation
from soupcore.recipes.descent import coefficients_of
from soupcore.recipes.gradients import Floats
from soupcore.recipes.trace import OnStep, Pass, no_step

Rank = Callable[[Evaluation], tuple[float, float]]

# Standard deviation of the first points: of the logits under a softmax, or of the coefficients.
_SPREAD = {"softmax": 1.0, "hyperplane": 0.3}


class Evolution:
    """A search for coefficients by CMA-ES, which starts from equal ones.

    Args:
        evaluate: Evaluates points given by their coefficients, each of shape [groups, k].
        shape: Groups and k.
        parameters: The parameters `space`, `evaluations` and `seed` of the recipe.
        rank: Returns the sort key of a point; lower is better, and infinite if it failed.
        on_step: Called with the trace after each generation.

    Attributes:
        best: The coefficients with the best score so far. Ties go to the lower loss, then to the
            first.
        trace: A pass for the best point of each generation; number 0 is the start.

    Raises:
        RecipeError: The package cma is not installed.
    """

    def __init__(
        self,
        evaluate: Callable[[Sequence[Floats]], Sequence[Evaluation]],
        shape: tuple[int, int],
        parameters: Mapping[str, Any],
        rank: Rank,
        on_step: OnStep = no_step,
    ) -> None:
        try:
            with warnings.catch_warnings():  # a warning that it cannot plot without matplotlib
                warnings.simplefilter("ignore")
                import cma
        except ImportError:
            raise RecipeError(
                "Learning without gradients needs the package cma: pip install cma. Otherwise, "
                "choose another recipe, such as greedy."
            ) from None
        self._evaluate = evaluate
        self._shape = shape
        self._parameters = parameters
        self._rank_of = rank
        self._on_step = on_step
        self.trace: list[Pass] = []
        self.best: Floats = coefficients_of(np.zeros(shape), parameters["space"])
        self._rank = (math.inf, math.inf)
        # Drawn from a separate generator: cma would seed NumPy's for the whole process.
        generator = np.random.default_rng(parameters["seed"])
        self._strategy = cma.CMAEvolutionStrategy(
            np.zeros(math.prod(shape)),
            _SPREAD[parameters["space"]],
            {
                "randn": lambda *size: generator.standard_normal(size),
                "seed": math.nan,
                "maxfevals": math.inf,
                "verbose": -9,
            },
        )

    def run(self) -> None:
        """Evaluate up to `evaluations` points, until the search has converged.

        Raises:
            Cancelled: The search was cancelled before the first points were evaluated.
        """
        left = self._parameters["evaluations"]
        try:
            self._tried([np.zeros(self._shape)])  # the uniform soup
            left -= 1
            while left > 0 and not self._strategy.stop():
                population = self._strategy.ask()
                candidates = population[:left]
                left -= len(candidates)
                scores = self._tried([each.reshape(self._shape) for each in candidates])
                if len(candidates) == len(population):
                    self._strategy.tell(population, scores)
        except (Cancelled, KeyboardInterrupt):
            if not self.trace:
                raise

    def _tried(self, points: Sequence[Floats]) -> list[float]:
        """Evaluate points and return the values to minimise."""
        coefficients = [coefficients_of(point, self._parameters["space"]) for point in points]
        found = self._evaluate(coefficients)
        ranks = [self._rank_of(evaluation) for evaluation in found]
        first = min(range(len(ranks)), key=ranks.__getitem__)
        is_best = ranks[first] < self._rank
        if is_best:
            self._rank, self.best = ranks[first], coefficients[first]
        step = Pass(len(self.trace), found[first].loss, math.nan, found[first].score, 1.0, is_best)
        self.trace.append(step)
        self._on_step(self.trace)
        finite = [rank[0] for rank in ranks if math.isfinite(rank[0])]
        worst = max(finite, default=0.0) + 1.0  # of a point whose network failed
        return [rank[0] if math.isfinite(rank[0]) else worst for rank in ranks]


def by_score(evaluation: Evaluation) -> tuple[float, float]:
    """Return minus the score of a point and, for ties, its loss."""
    return rank(evaluation.score, evaluation.loss)


def rank(score: float, loss: float) -> tuple[float, float]:
    """Return the sort key of a point with this score and loss; lower is better."""
    return (
        -score if math.isfinite(score) else math.inf,
        loss if math.isfinite(loss) else math.inf,
    )
