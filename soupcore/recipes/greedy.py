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
whose removal does not hurt.
"""

import math
import operator
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Literal

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluation, Evaluator, UpperBound
from soupcore.evaluation.evaluation import Criterion, value_of
from soupcore.evaluation.measuring import compare
from soupcore.intervals import gained_and_lost
from soupcore.mixtures import mean
from soupcore.progress import Progress, no_progress, part, with_bar
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
    alone = len(chosen) if order == "best first" else 1
    evaluations = alone + GREEDY.trials(len(chosen), parameters)
    done = 0

    def evaluate(names: Sequence[str]) -> Evaluation:
        nonlocal done
        done += 1
        trial = mean(sweep[name].mixture for name in names)
        progress = part(on_progress, done - 1, evaluations)
        return evaluator.evaluate(trial, split, keep_outputs=False, on_progress=progress)

    def evaluate_or_reject(names: Sequence[str], candidate: str) -> Evaluation | UpperBound:
        nonlocal done
        done += 1
        difficulty = current.losses
        if candidate in scored and candidate not in soup:
            # Proportional to the weighted sum of the losses of the soup and the candidate.
            difficulty = difficulty + scored[candidate].losses / len(soup)
        return evaluator.evaluate_or_reject(
            mean(sweep[name].mixture for name in names),
            current,
            strictly=accept == ">",
            difficulty=difficulty,
            on_progress=part(on_progress, done - 1, evaluations),
        )

    scored: dict[str, Evaluation] = {}
    if order == "best first":
        scored = {name: evaluate([name]) for name in chosen}
        values = {name: value_of(found, metric, repr(name)) for name, found in scored.items()}
        first, *candidates = sorted(chosen, key=lambda name: -values[name])
        if values[first] == -math.inf:
            raise RecipeError(
                f"No ingredient has a finite {metric} on {split!r}. Check that the weights fit the "
                "task, or choose another metric."
            )
        current = scored[first]
    else:
        by_weights = sorted(chosen, key=lambda name: sweep[name].digest)
        first, *candidates = random.Random(seed).sample(by_weights, len(by_weights))  # noqa: S311
        current = evaluate([first])
    soup: tuple[str, ...] = (first,)
    trace = [Step(first, current.score, True, soup, 0, 0, loss=current.loss, examples=current.n)]
    on_step(trace)

    def value(found: Evaluation, names: Sequence[str]) -> float:
        return value_of(found, metric, f"the mean of {', '.join(names)}")

    def attempt(action: Literal["add", "drop"], name: str) -> None:
        nonlocal soup, current
        trial = (*soup, name) if action == "add" else tuple(n for n in soup if n != name)
        tried = (
            evaluate_or_reject(trial, name) if early_stop and metric == "score" else evaluate(trial)
        )
        accepted = isinstance(tried, Evaluation) and bool(
            _RULES[accept](value(tried, trial), value(current, soup))
        )
        after = trial if accepted else soup
        trace.append(_step(name, action, current, tried, accepted, after, evaluator.task))
        if isinstance(tried, Evaluation) and accepted:
            soup, current = trial, tried
        on_step(trace)

    for candidate in candidates:
        attempt("add", candidate)
    for member in soup if backward else ():
        if len(soup) > 1:
            attempt("drop", member)
    result = Soup.of(
        sweep,
        "greedy",
        parameters | needs.choosing(evaluator, split),
        dict.fromkeys(soup, Fraction(1, len(soup))),
        trace,
    )
    result.take_statistics_of(evaluator)
    result.evaluations[split] = current
    return result


def _step(
    name: str,
    action: Literal["add", "drop"],
    before: Evaluation,
    tried: Evaluation | UpperBound,
    accepted: bool,
    soup: tuple[str, ...],
    task: Task,
) -> Step:
    split: tuple[int, int] | None = None
    if task.metric.is_mean:
        seen = before.scores[tried.rows] if isinstance(tried, UpperBound) else before.scores
        split = gained_and_lost(tried.scores, seen)
    sure = compare(task, tried, before) if accepted and isinstance(tried, Evaluation) else None
    return Step(
        name,
        tried.score,
        accepted,
        soup,
        gained=split and split[0],
        lost=split and split[1],
        action=action,
        loss=tried.loss if isinstance(tried, Evaluation) else math.nan,
        is_bound=isinstance(tried, UpperBound),
        examples=tried.seen,
        interval=sure.interval if sure else None,
        p_value=sure.p_value if sure else None,
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
