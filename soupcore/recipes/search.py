"""Search for the coefficients of a learned soup by CMA-ES (Hansen and Ostermeier), with `cma`.

Akiba et al. 2024 (arXiv:2403.13187) search the coefficients of merges in this way. CMA-ES needs no
gradients, so it works with any task and optimises the primary metric itself. Points are evaluated
on the select split and stored. The search is a function of the seed and the scores, so a stopped
search resumes when it is started again.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from soupcore.checkpoints.names import layer_of
from soupcore.errors import Cancelled, RecipeError
from soupcore.evaluation import Evaluation, Evaluator
from soupcore.merges import Group, Grouped
from soupcore.progress import Progress, no_progress, stretch
from soupcore.recipes import needs
from soupcore.recipes.descent import coefficients_of
from soupcore.recipes.gradients import Floats
from soupcore.recipes.soup import Soup
from soupcore.recipes.trace import OnStep, Pass, no_step
from soupcore.sweeps import Sweep

Per = Literal["ingredient", "layer", "tensor"]
Rank = Callable[[Evaluation], tuple[float, float]]

# Standard deviation of the first points: of the logits under a softmax, or of the coefficients.
_SPREAD = {"softmax": 1.0, "hyperplane": 0.3}


def groups_of(tensors: Iterable[str], per: Per) -> dict[str, tuple[str, ...]]:
    """Return the tensors that share coefficients, `{label: tensor names}`."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in tensors:
        label = {"ingredient": "all", "layer": layer_of(name), "tensor": name}[per]
        groups[label] = (*groups.get(label, ()), name)
    return groups


def learned_soup(
    sweep: Sweep,
    evaluator: Evaluator,
    split: str,
    parameters: Mapping[str, Any],
    ordered: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    found: Mapping[str, Any],
) -> Soup:
    """Return the soup with coefficients per group; groups without any get equal ones.

    Args:
        sweep: The sweep.
        evaluator: The evaluator used for learning.
        split: The split used for learning.
        parameters: The parameters of the recipe.
        ordered: The ingredients in the order of the coefficients.
        groups: `{label: tensor names}`.
        found: `{label: coefficients}`, each of shape [k].
    """
    chosen = sweep.names(ordered)
    learned_shares = {
        label: needs.shares(dict(zip(ordered, row.tolist(), strict=True)))
        for label, row in found.items()
    }
    equal = dict.fromkeys(chosen, Fraction(1, len(chosen)))
    by_group = {
        label: {name: learned_shares.get(label, equal)[name] for name in chosen} for label in groups
    }
    described = {**parameters, "split": split}
    if parameters["optimizer"] == "cma":  # other optimisers minimise the loss
        described |= needs.choosing(evaluator, split)
    if parameters["per"] == "ingredient":
        (coefficients,) = by_group.values()
        return Soup.of(sweep, "learned", described, coefficients)
    merge = Grouped(
        {label: Group(tuple(groups[label]), sweep.mixture(by_group[label])) for label in groups}
    )
    return Soup.of_merge(sweep, "learned", described, chosen, merge)


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


class Search:
    """A search for coefficients by evaluations alone.

    Args:
        sweep: The sweep.
        evaluator: Evaluates the points.
        split: The split to evaluate on.
        parameters: The parameters of the recipe.
        chosen: The ingredients.
        keep_outputs: Whether to keep the outputs of each example at each point.
    """

    def __init__(
        self,
        sweep: Sweep,
        evaluator: Evaluator,
        split: str,
        parameters: Mapping[str, Any],
        chosen: Sequence[str],
        *,
        keep_outputs: bool = False,
    ) -> None:
        self._sweep = sweep
        self._evaluator = evaluator
        self._split = split
        self._parameters = parameters
        self._keep_outputs = keep_outputs
        # The order must not depend on names, since it assigns the random numbers to ingredients.
        self._ordered = sorted(chosen, key=lambda name: sweep[name].digest)
        tensors = sweep[self._ordered[0]].mixture.tensors
        self._groups = groups_of(tensors, parameters["per"])

    def soup_of(self, coefficients: Floats) -> Soup:
        """Return the soup with coefficients of shape [groups, k]."""
        found = dict(zip(self._groups, coefficients, strict=True))
        return learned_soup(
            self._sweep,
            self._evaluator,
            self._split,
            self._parameters,
            self._ordered,
            self._groups,
            found,
        )

    def run(
        self, rank: Rank, *, on_progress: Progress = no_progress, on_step: OnStep = no_step
    ) -> Evolution:
        """Search by CMA-ES and return the search, with its best coefficients.

        Args:
            rank: Returns the sort key of a point; lower is better.
            on_progress: Called with the number of examples done and the maximum in total. Raise
                `Cancelled` in it to stop early.
            on_step: Called with the trace after each generation.

        Raises:
            RecipeError: The package cma is not installed.
            Cancelled: The search was cancelled before the first points were evaluated.
        """
        examples = len(self._evaluator.task.split(self._split))
        total, done = self._parameters["evaluations"], 0

        def evaluate(points: Sequence[Floats]) -> list[Evaluation]:
            nonlocal done
            progress = stretch(
                on_progress, done * examples, len(points) * examples, total * examples
            )
            done += len(points)
            return self._evaluator.evaluate_all(
                [self.soup_of(point).mixture for point in points],
                self._split,
                keep_outputs=self._keep_outputs,
                on_progress=progress,
            )

        shape = len(self._groups), len(self._ordered)
        evolution = Evolution(evaluate, shape, self._parameters, rank, on_step)
        evolution.run()
        return evolution


def by_score(evaluation: Evaluation) -> tuple[float, float]:
    """Return minus the score of a point and, for ties, its loss."""
    return rank(evaluation.score, evaluation.loss)


def rank(score: float, loss: float) -> tuple[float, float]:
    """Return the sort key of a point with this score and loss; lower is better."""
    return (
        -score if math.isfinite(score) else math.inf,
        loss if math.isfinite(loss) else math.inf,
    )
