"""Learned soups from given coefficients, and the search for coefficients by evaluations."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

from soupcore.checkpoints.names import layer_of
from soupcore.evaluation import Evaluation, Evaluator
from soupcore.merges import Group, Grouped
from soupcore.progress import Progress, no_progress, stretch
from soupcore.recipes import needs
from soupcore.recipes.evolution import Evolution, Rank
from soupcore.recipes.gradients import Floats
from soupcore.recipes.shares import shares
from soupcore.recipes.soup import Soup
from soupcore.recipes.trace import OnStep, no_step
from soupcore.sweeps import Sweep

Per = Literal["ingredient", "layer", "tensor"]


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
        label: shares(dict(zip(ordered, row.tolist(), strict=True))) for label, row in found.items()
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
