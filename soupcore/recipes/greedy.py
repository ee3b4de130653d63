"""The greedy soup (Wortsman et al. 2022, arXiv:2203.05482, Recipe 1).

Ingredients are sorted by their score on the `select` split. The soup starts with the best one, and
each next ingredient joins the average if the score does not get worse. One pass suffices, and the
result is never below the best ingredient on `select`.

A candidate is rejected early once no results on the remaining examples could lead to its
acceptance. Decisions are identical to those of a full pass. The trace then gives an upper bound on
the candidate's score.

The paper accepts ties ("≥"). Its code (github.com/mlfoundations/model-soups) requires ">" and
tries the later of two equally good ingredients first. The default here is the paper's rule, and
equally good ingredients keep the sweep's order.

There are three additions to Recipe 1: the loss as the criterion; a random order, as in Table 3 of
the paper, which may start with a bad ingredient; and a backward pass, which drops ingredients
whose removal does not hurt. `greedy_orders` compares several random orders.
"""

import math
import operator
import random
import statistics
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from torch import Tensor

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluation, Evaluator, UpperBound
from soupcore.evaluation.evaluation import Criterion, value_of
from soupcore.evaluation.measuring import compare
from soupcore.intervals import gained_and_lost
from soupcore.mixtures import Mixture, mean
from soupcore.progress import Progress, no_progress, part, stretch, with_bar
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe, Switch
from soupcore.recipes.trace import OnStep, Step, no_step
from soupcore.sweeps import Sweep
from soupcore.tasks import Task

Accept = Literal[">=", ">"]
Order = Literal["best first", "random"]

_RULES = {">=": operator.ge, ">": operator.gt}


@with_bar("Greedy soup")
def greedy(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    accept: Accept = ">=",
    metric: Criterion = "score",
    order: Order = "best first",
    seed: int = 0,
    backward: bool = False,
    split: str | None = None,
    early_stop: bool = True,
    on_progress: Progress = no_progress,
    progress: bool = True,
    on_step: OnStep = no_step,
) -> Soup:
    """Add ingredients to the average, best first, as long as the score does not get worse.

    Args:
        sweep: The sweep.
        evaluator: Scores the soups: at most 2k − 1 evaluations for k ingredients (k in a random
            order), and k more for a backward pass. Stored evaluations are reused.
        names: Ingredients to use; by default, all.
        accept: `>=` (the paper, ties accepted) or `>` (the released code).
        metric: Ranks and accepts ingredients: `score` (higher is better) or `loss` (lower is
            better).
        order: `best first` or `random`.
        seed: Seed of the random order, which depends on the ingredients' weights and not on their
            names.
        backward: Whether to try dropping each ingredient after the forward pass, in the order they
            joined. One is dropped if the metric without it is accepted by the same rule.
        split: The split to choose on, with the role `select`.
        early_stop: Whether to reject candidates as soon as they can no longer be accepted. The
            soup does not change. Scores of candidates rejected early are upper bounds.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
        on_step: Called with the trace after each step.

    Raises:
        RecipeError: There are no ingredients, a parameter is invalid, the split does not have the
            role `select`, or no ingredient has a finite metric.
        TaskError: The metric is undefined for some examples (see `Task.undefined`).
    """
    parameters = GREEDY.check(
        {"accept": accept, "metric": metric, "order": order, "seed": seed, "backward": backward}
    )
    sweep, chosen = needs.ingredients(GREEDY, sweep, names)
    split = needs.select_split(evaluator, split)
    first = len(chosen) if order == "best first" else 1
    evaluations = first + GREEDY.trials(len(chosen), parameters)
    alone: dict[str, Evaluation] = {}
    if order == "best first":
        points = [sweep[name].mixture for name in chosen]
        n = len(evaluator.task.split(split))
        here = stretch(on_progress, 0, len(chosen) * n, evaluations * n)
        found = evaluator.evaluate_all(points, split, keep_outputs=False, on_progress=here)
        alone = dict(zip(chosen, found, strict=True))
    search = _search_of(sweep, evaluator, chosen, alone, parameters, split, on_step)
    done = len(alone)
    trial = next(search)
    while isinstance(trial, _Trial):
        here = part(on_progress, done, evaluations)
        if early_stop and metric == "score" and trial.incumbent is not None:
            tried = evaluator.evaluate_or_reject(
                trial.point,
                trial.incumbent,
                strictly=accept == ">",
                difficulty=trial.difficulty,
                on_progress=here,
            )
        else:
            tried = evaluator.evaluate(trial.point, split, keep_outputs=False, on_progress=here)
        done += 1
        trial = search.send(tried)
    return trial


@dataclass(frozen=True)
class Orders:
    """Greedy soups of the same ingredients in several random orders.

    Attributes:
        soups: One soup per seed.
        split: The split used for choosing.
    """

    soups: tuple[Soup, ...]
    split: str

    def scores(self, split: str | None = None) -> list[float]:
        """Return the score of each soup on a split; by default, on `self.split`."""
        return [soup.evaluations[split or self.split].score for soup in self.soups]

    def mean(self, split: str | None = None) -> float:
        """Return the mean of the scores."""
        return statistics.mean(self.scores(split))

    def spread(self, split: str | None = None) -> float:
        """Return the standard deviation of the scores over the orders."""
        scores = self.scores(split)
        return statistics.stdev(scores) if len(scores) > 1 else math.nan


@with_bar("Greedy orders")
def greedy_orders(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    seeds: Sequence[int] = range(10),
    accept: Accept = ">=",
    metric: Criterion = "score",
    split: str | None = None,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> Orders:
    """Build greedy soups in several random orders.

    If the evaluator evaluates several points at the same time, such as on a Ray cluster, the orders
    advance together, without early rejection. The soups are the same.

    Args:
        sweep: The sweep.
        evaluator: Scores the soups: at most k evaluations per order.
        names: Ingredients to use; by default, all.
        seeds: Seeds of the orders.
        accept: As for `greedy`.
        metric: As for `greedy`.
        split: As for `greedy`.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Raises:
        RecipeError: As for `greedy`.
    """
    sweep, chosen = needs.ingredients(GREEDY, sweep, names)
    split = needs.select_split(evaluator, split)
    if evaluator.at_once == 1:  # trials can be rejected early, which needs one after another
        soups = [
            greedy(
                sweep,
                evaluator,
                chosen,
                accept=accept,
                metric=metric,
                order="random",
                seed=seed,
                split=split,
                on_progress=part(on_progress, index, len(seeds)),
            )
            for index, seed in enumerate(seeds)
        ]
        return Orders(tuple(soups), split)
    settings = {"accept": accept, "metric": metric, "order": "random"}
    searches = [
        _search_of(sweep, evaluator, chosen, {}, GREEDY.check({**settings, "seed": seed}), split)
        for seed in seeds
    ]
    wanted = [next(search) for search in searches]
    for index in range(len(chosen)):
        trials = [each for each in wanted if isinstance(each, _Trial)]
        found = evaluator.evaluate_all(
            [trial.point for trial in trials],
            split,
            keep_outputs=False,
            on_progress=part(on_progress, index, len(chosen)),
        )
        wanted = [search.send(each) for search, each in zip(searches, found, strict=True)]
    return Orders(tuple(each for each in wanted if isinstance(each, Soup)), split)


@dataclass(frozen=True)
class _Trial:
    """A mean of ingredients that the search has to score next.

    Attributes:
        point: The mean.
        incumbent: The evaluation of the current soup, against which the trial may be rejected
            early; None for the first one.
        difficulty: See `Evaluator.evaluate_or_reject`.
    """

    point: Mixture
    incumbent: Evaluation | None = None
    difficulty: Tensor | None = None


_Search = Generator["_Trial | Soup", "Evaluation | UpperBound", None]


def _search_of(
    sweep: Sweep,
    evaluator: Evaluator,
    chosen: Sequence[str],
    alone: Mapping[str, Evaluation],
    parameters: Mapping[str, Any],
    split: str,
    on_step: OnStep = no_step,
) -> _Search:
    """Yield the trials of greedy, then the soup. `send` the evaluation of each trial.

    Args:
        sweep: The sweep.
        evaluator: Supplies the task and the BatchNorm statistics; not used to evaluate.
        chosen: Names of the ingredients.
        alone: Evaluations of the ingredients; empty for a random order.
        parameters: Checked parameters of the recipe.
        split: The split to choose on.
        on_step: Called with the trace after each step.
    """
    keeps, metric = _RULES[parameters["accept"]], parameters["metric"]

    def value(found: Evaluation, names: Sequence[str]) -> float:
        return value_of(found, metric, f"the mean of {', '.join(names)}")

    def point_of(names: Sequence[str]) -> Mixture:
        return mean(sweep[name].mixture for name in names)

    if parameters["order"] == "best first":
        values = {name: value_of(found, metric, repr(name)) for name, found in alone.items()}
        first, *candidates = sorted(chosen, key=lambda name: -values[name])
        if values[first] == -math.inf:
            raise RecipeError(
                f"No ingredient has a finite {metric} on {split!r}. Check that the weights fit the "
                "task, or choose another metric."
            )
        current = alone[first]
    else:
        by_weights = sorted(chosen, key=lambda name: sweep[name].digest)
        generator = random.Random(parameters["seed"])  # noqa: S311 - not for secrets
        first, *candidates = generator.sample(by_weights, len(by_weights))
        scored = yield _Trial(point_of([first]))
        assert isinstance(scored, Evaluation)  # noqa: S101 - it cannot be rejected
        current = scored
    soup: tuple[str, ...] = (first,)
    trace = [Step(first, current.score, True, soup, 0, 0, loss=current.loss, examples=current.n)]
    on_step(trace)

    def attempt(action: Literal["add", "drop"], name: str) -> _Search:
        nonlocal soup, current
        trial = (*soup, name) if action == "add" else tuple(n for n in soup if n != name)
        difficulty = current.losses
        if action == "add" and name in alone:
            # Proportional to the weighted sum of the losses of the soup and the candidate.
            difficulty = difficulty + alone[name].losses / len(soup)
        tried = yield _Trial(point_of(trial), current, difficulty)
        accepted = isinstance(tried, Evaluation) and bool(
            keeps(value(tried, trial), value(current, soup))
        )
        after = trial if accepted else soup
        trace.append(_step(name, action, current, tried, accepted, after, evaluator.task))
        if isinstance(tried, Evaluation) and accepted:
            soup, current = trial, tried
        on_step(trace)

    for candidate in candidates:
        yield from attempt("add", candidate)
    for member in soup if parameters["backward"] else ():
        if len(soup) > 1:
            yield from attempt("drop", member)
    coefficients = dict.fromkeys(soup, Fraction(1, len(soup)))
    settings = {**parameters, **needs.choosing(evaluator, split)}
    result = Soup.of(sweep, "greedy", settings, coefficients, trace)
    result.take_statistics_of(evaluator)
    result.evaluations[split] = current
    yield result


def _step(
    name: str,
    action: Literal["add", "drop"],
    before: Evaluation,
    tried: Evaluation | UpperBound,
    accepted: bool,
    soup: tuple[str, ...],
    task: Task,
) -> Step:
    """Return the step of the trace for a trial.

    Args:
        name: The candidate.
        action: Whether it was added or dropped.
        before: The evaluation of the current soup.
        tried: The result of the trial.
        accepted: Whether the trial became the current soup.
        soup: Names in the soup after the step.
        task: The task.
    """
    counts: tuple[int, int] | None = None
    if task.metric.is_mean:
        seen = before.scores[tried.rows] if isinstance(tried, UpperBound) else before.scores
        counts = gained_and_lost(tried.scores, seen)
    gain = compare(task, tried, before) if accepted and isinstance(tried, Evaluation) else None
    return Step(
        name,
        tried.score,
        accepted,
        soup,
        gained=counts and counts[0],
        lost=counts and counts[1],
        action=action,
        loss=tried.loss if isinstance(tried, Evaluation) else math.nan,
        is_bound=isinstance(tried, UpperBound),
        examples=tried.seen,
        interval=gain.interval if gain else None,
        p_value=gain.p_value if gain else None,
    )


GREEDY = Recipe(
    name="greedy",
    title="Greedy",
    summary="Sort ingredients by validation score; add each in turn if the average does not get "
    "worse.",
    paper="Wortsman et al. 2022, arXiv:2203.05482, Recipe 1",
    function=greedy,
    chooses=True,
    ranks=True,
    trials=lambda k, parameters: k - 1 + (k if parameters["backward"] else 0),
    parameters=(
        Choice(
            name="accept",
            label="Accept if new score is",
            help="≥: the paper's Recipe 1 (ties accepted). >: the released code.",
        ),
        Choice(
            name="metric",
            label="Criterion",
            help="Used both to rank ingredients and to accept them: score (higher is better) or "
            "loss (lower is better).",
            is_rare=True,
        ),
        Choice(
            name="order",
            label="Order",
            help="Best first (default), or a random order.",
            is_rare=True,
        ),
        Number(
            name="seed",
            label="Seed",
            help="Seed of the random order.",
            minimum=0,
            maximum=2**31 - 1,
            step=1,
            is_rare=True,
            only_if=("order", "random"),
        ),
        Switch(
            name="backward",
            label="Backward pass",
            help="After the forward pass, drop any ingredient whose removal does not hurt.",
            is_rare=True,
        ),
    ),
)
