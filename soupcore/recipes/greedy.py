"""The greedy soup (Wortsman et al. 2022, arXiv:2203.05482, Recipe 1).

Ingredients are sorted by their score on the `select` split, best first. The soup starts as the
best; each next one joins the mean if the score with it does not fall. One pass; the result is
never below the best ingredient on `select`.

A candidate is given up as soon as the examples that it has not seen cannot save it, which leaves
every decision as it would be; what is known of it then is what it scores at most.

The paper accepts on "≥"; its code (github.com/mlfoundations/model-soups) accepts on ">" and, where
ingredients score the same, takes the later one first. Here the default is the paper's rule, and
equal ingredients keep the sweep's order.

Beyond Recipe 1: the loss in place of the score; a random order, as in the paper's Table 3, which
starts with any ingredient and so promises nothing; and a backward pass that leaves out again what
no longer helps.
"""

import math
import operator
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Literal

from soupcore.evaluation import Bound, Evaluation, Evaluator, Progress, no_progress, paired
from soupcore.evaluation.progress import part
from soupcore.mixtures import mean
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe, Switch
from soupcore.recipes.trace import OnStep, Step, no_step
from soupcore.sweeps import Sweep

Accept = Literal[">=", ">"]
Metric = Literal["score", "loss"]
Order = Literal["best first", "random"]

_RULES = {">=": operator.ge, ">": operator.gt}


def greedy(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    accept: Accept = ">=",
    metric: Metric = "score",
    order: Order = "best first",
    seed: int = 0,
    backward: bool = False,
    split: str | None = None,
    early_stop: bool = True,
    on_progress: Progress = no_progress,
    on_step: OnStep = no_step,
) -> Soup:
    """Add ingredients to the mean, best first, as long as the score does not fall.

    Args:
        sweep: Where the ingredients are from.
        evaluator: Scores them; 2k − 1 evaluations for k ingredients (k in a random order), k more
            for a backward pass, fewer where the store has some.
        names: Which of them; all unless given.
        accept: `>=` (the paper: an equal score is enough) or `>` (the paper's code).
        metric: What may not fall: the `score`, or minus the `loss`. It sorts them, too.
        order: `best first`, or `random`.
        seed: Which random order; it depends on the ingredients' weights, not on their names.
        backward: At the end, try the soup without each of its ingredients, in the order they
            joined, and leave out those without which the metric, by the same rule, does not fall.
        split: The split to choose on; it must have the role `select`.
        early_stop: Whether to give up candidates that can no longer be accepted. The soup is the
            same, and the scores of those rejected are bounds.
        on_progress: Called with examples done and in all; raise in it to stop.
        on_step: Called with the trace each time it grows.

    Raises:
        RecipeError: There are no ingredients, a parameter is unknown, or the split is not for
            choosing.
    """
    parameters = GREEDY.check(
        {"accept": accept, "metric": metric, "order": order, "seed": seed, "backward": backward}
    )
    chosen = needs.ingredients(GREEDY, sweep, names)
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

    def contest(names: Sequence[str], candidate: str) -> Evaluation | Bound:
        nonlocal done
        done += 1
        difficulty = current.losses
        if candidate in scored and candidate not in soup:
            # Near the mean of what the soup and the candidate lose on an example alone.
            difficulty = difficulty + scored[candidate].losses / len(soup)
        return evaluator.contest(
            mean(sweep[name].mixture for name in names),
            current,
            strictly=accept == ">",
            difficulty=difficulty,
            on_progress=part(on_progress, done - 1, evaluations),
        )

    scored: dict[str, Evaluation] = {}
    if order == "best first":
        scored = {name: evaluate([name]) for name in chosen}
        first, *candidates = sorted(
            chosen, key=lambda name: _descending(_value(scored[name], metric))
        )
        current = scored[first]
    else:
        by_weights = sorted(chosen, key=lambda name: sweep[name].digest)
        first, *candidates = random.Random(seed).sample(by_weights, len(by_weights))  # noqa: S311
        current = evaluate([first])
    soup: tuple[str, ...] = (first,)
    trace = [Step(first, current.score, True, soup, 0, 0, loss=current.loss, examples=current.n)]
    on_step(trace)

    def attempt(action: Literal["add", "drop"], name: str) -> None:
        nonlocal soup, current
        trial = (*soup, name) if action == "add" else tuple(n for n in soup if n != name)
        tried = contest(trial, name) if early_stop and metric == "score" else evaluate(trial)
        accepted = isinstance(tried, Evaluation) and bool(
            _RULES[accept](_value(tried, metric), _value(current, metric))
        )
        trace.append(_step(name, action, current, tried, accepted, trial if accepted else soup))
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
        parameters | {"split": split},
        dict.fromkeys(soup, Fraction(1, len(soup))),
        trace,
    )
    result.take_statistics_of(evaluator)
    result.evaluations[split] = current
    return result


def _value(evaluation: Evaluation, metric: Metric) -> float:
    return evaluation.score if metric == "score" else -evaluation.loss


def _descending(value: float) -> float:
    return math.inf if math.isnan(value) else -value


def _step(
    name: str,
    action: Literal["add", "drop"],
    before: Evaluation,
    tried: Evaluation | Bound,
    accepted: bool,
    soup: tuple[str, ...],
) -> Step:
    seen = before.scores[tried.rows] if isinstance(tried, Bound) else before.scores
    difference = tried.scores - seen
    sure = paired(tried.scores, seen) if accepted else None
    return Step(
        name,
        tried.score,
        accepted,
        soup,
        gained=int((difference > 0).sum()),
        lost=int((difference < 0).sum()),
        action=action,
        loss=tried.loss if isinstance(tried, Evaluation) else math.nan,
        is_bound=isinstance(tried, Bound),
        examples=tried.seen,
        interval=sure.interval if sure else None,
        p_value=sure.p_value if sure else None,
    )


GREEDY = Recipe(
    name="greedy",
    title="Greedy",
    summary="Best first; each next ingredient joins the mean if the select score does not fall.",
    paper="Wortsman et al. 2022, arXiv:2203.05482, Recipe 1",
    function=greedy,
    chooses=True,
    ranks=True,
    trials=lambda k, parameters: k - 1 + (k if parameters["backward"] else 0),
    parameters=(
        Choice(
            name="accept",
            label="Accept when the score is",
            help="≥ is the paper's rule: an equal score is enough. > is what its code does.",
            default=">=",
            choices=(">=", ">"),
        ),
        Choice(
            name="metric",
            label="Choose by",
            help="What sorts the ingredients and may not fall: the score, or minus the loss.",
            default="score",
            choices=("score", "loss"),
        ),
        Choice(
            name="order",
            label="Order",
            help="Best first, or a random order, which may start with a bad one.",
            default="best first",
            choices=("best first", "random"),
        ),
        Number(
            name="seed",
            label="Seed",
            help="Which random order.",
            default=0,
            minimum=0,
            maximum=2**31 - 1,
            step=1,
        ),
        Switch(
            name="backward",
            label="Backward pass",
            help="At the end, leave out again what no longer helps.",
            default=False,
        ),
    ),
)
