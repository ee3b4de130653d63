"""The greedy soup (Wortsman et al. 2022, arXiv:2203.05482, Recipe 1).

Ingredients are sorted by their score on the `select` split, best first. The soup starts as the
best; each next one joins the mean if the score with it does not fall. One pass; the result is
never below the best ingredient on `select`.

A candidate is given up as soon as the examples that it has not seen cannot save it, which leaves
every decision as it would be; what is known of it then is what it scores at most.

The paper accepts on "≥"; its code (github.com/mlfoundations/model-soups) accepts on ">" and, where
ingredients score the same, takes the later one first. Here the default is the paper's rule, and
equal ingredients keep the sweep's order.
"""

import math
import operator
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

from soupcore.errors import RecipeError
from soupcore.evaluation import Bound, Evaluation, Evaluator, Progress, no_progress
from soupcore.evaluation.evaluator import part
from soupcore.mixtures import mean
from soupcore.recipes.soup import Soup, Step
from soupcore.recipes.spec import OnStep, Parameter, Recipe, no_step
from soupcore.sweeps import Sweep

Accept = Literal[">=", ">"]

_RULES = {">=": operator.ge, ">": operator.gt}


def greedy(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    accept: Accept = ">=",
    split: str | None = None,
    early_stop: bool = True,
    on_progress: Progress = no_progress,
    on_step: OnStep = no_step,
) -> Soup:
    """Add ingredients to the mean, best first, as long as the score does not fall.

    Args:
        sweep: Where the ingredients are from.
        evaluator: Scores them; 2k − 1 evaluations for k ingredients, fewer where the store has
            some.
        names: Which of them; all unless given.
        accept: `>=` (the paper: an equal score is enough) or `>` (the paper's code).
        split: The split to choose on; it must have the role `select`.
        early_stop: Whether to give up candidates that can no longer be accepted. The soup is the
            same, and the scores of those rejected are bounds.
        on_progress: Called with examples done and in all; raise in it to stop.
        on_step: Called with the trace each time it grows.

    Raises:
        RecipeError: There are no ingredients, the rule is unknown, or the split is not for
            choosing.
    """
    chosen = sweep.names(names)
    split = split or evaluator.task.select
    if not chosen:
        raise RecipeError("A greedy soup needs at least one ingredient.")
    if accept not in _RULES:
        raise RecipeError(f"The rule of acceptance is '>=' or '>', not {accept!r}.")
    if evaluator.task.split(split).role != "select":
        raise RecipeError(
            f"The split {split!r} has the role {evaluator.task.split(split).role!r}; a recipe may "
            f"only choose on {evaluator.task.select!r}."
        )
    evaluations = 2 * len(chosen) - 1
    alone = {
        name: evaluator.evaluate(
            sweep[name].mixture, split, on_progress=part(on_progress, index, evaluations)
        )
        for index, name in enumerate(chosen)
    }
    best, *candidates = sorted(chosen, key=lambda name: _descending(alone[name].score))
    soup: tuple[str, ...] = (best,)
    current = alone[best]
    trace = [Step(best, current.score, True, soup, gained=0, lost=0, examples=current.n)]
    on_step(trace)
    for index, candidate in enumerate(candidates, start=len(chosen)):
        trial = mean(sweep[name].mixture for name in (*soup, candidate))
        progress = part(on_progress, index, evaluations)
        tried: Evaluation | Bound
        if early_stop:
            tried = evaluator.contest(
                trial,
                current,
                strictly=accept == ">",
                # Near the mean of what the soup and the candidate lose on an example alone.
                difficulty=current.losses + alone[candidate].losses / len(soup),
                on_progress=progress,
            )
        else:
            tried = evaluator.evaluate(trial, split, on_progress=progress)
        gained, lost = _changes(current, tried)
        accepted, is_bound = False, isinstance(tried, Bound)
        if isinstance(tried, Evaluation) and _RULES[accept](tried.score, current.score):
            accepted, soup, current = True, (*soup, candidate), tried
        trace.append(
            Step(candidate, tried.score, accepted, soup, gained, lost, is_bound, tried.seen)
        )
        on_step(trace)
    result = Soup.of(
        sweep,
        "greedy",
        {"accept": accept, "split": split},
        dict.fromkeys(soup, Fraction(1, len(soup))),
        trace,
    )
    result.evaluations[split] = current
    return result


def _descending(score: float) -> float:
    return math.inf if math.isnan(score) else -score


def _changes(before: Evaluation, after: Evaluation | Bound) -> tuple[int, int]:
    seen = before.scores[after.rows] if isinstance(after, Bound) else before.scores
    difference = after.scores - seen
    return int((difference > 0).sum()), int((difference < 0).sum())


RECIPE = Recipe(
    name="greedy",
    title="Greedy",
    summary="Best first; each next ingredient joins the mean if the select score does not fall.",
    paper="Wortsman et al. 2022, arXiv:2203.05482, Recipe 1",
    parameters=(
        Parameter(
            name="accept",
            label="Accept when the score is",
            choices=(">=", ">"),
            help="≥ is the paper's rule: an equal score is enough. > is what its code does.",
        ),
    ),
    chooses=True,
    trials=lambda k: k - 1,
    follow=greedy,
)
