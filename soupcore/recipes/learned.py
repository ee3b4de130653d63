"""The learned soup: coefficients by gradient descent (arXiv:2203.05482, equation 2 and appendix I).

Wortsman et al. 2022 minimise the held-out loss of β·f(x; Σαᵢθᵢ) over α and a temperature β with
AdamW. A softmax keeps α on the simplex, and all αᵢ start equal. There is one αᵢ per ingredient, or
per ingredient and layer. MEHL-Soup (Li et al. 2024, arXiv:2407.03641) learns on the hyperplane
Σα = 1, which allows negative coefficients, and reports better results.

Both spaces are available here. In either, full-batch L-BFGS reaches a lower loss in a few passes
than AdamW in many. AdamW uses the paper's settings: a constant rate of 0.1 (0.05 with several
groups) and no weight decay. The paper's 3 epochs, or 5 with coefficients per tensor, are `passes=3`
and `passes=5`; the default allows more. MEHL-Soup's blockwise descent is not implemented, since
streaming already saves the memory that it saves.

A task without gradients, such as one that a command evaluates, can be learned with the optimiser
`cma` (see `soupcore.recipes.search`), which optimises the score by evaluations alone.

With gradients, part of the select split is held out for early stopping and for choosing the best
coefficients, because many coefficients overfit the rest quickly. Coefficients are compared at the β
that minimises the loss of each, since a fixed β would put some of them at a disadvantage.

One diverged ingredient can spoil the start with equal coefficients: its weights dominate the
average, β shrinks until the outputs carry no information, and the gradient vanishes. If the loss
ends above that of a single ingredient, learning is repeated with the ingredients of the greedy soup
by loss, and the better result is kept. The notes of the soup report this.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from soupcore.errors import Cancelled, RecipeError
from soupcore.evaluation import Evaluation, Evaluator
from soupcore.evaluation.data import targets_of
from soupcore.mixtures import mean
from soupcore.progress import Progress, no_progress, part, with_bar
from soupcore.recipes import needs
from soupcore.recipes.descent import Descent, Space, hold_back
from soupcore.recipes.gradients import Objective, least_loss
from soupcore.recipes.greedy import greedy
from soupcore.recipes.search import Per, Search, by_score, groups_of, learned_soup
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe, Switch
from soupcore.recipes.trace import OnStep, no_step
from soupcore.sweeps import Sweep

Optimizer = Literal["lbfgs", "adamw", "cma"]


@with_bar("Learned soup")
def learned(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    per: Per = "ingredient",
    space: Space = "softmax",
    optimizer: Optimizer = "lbfgs",
    passes: int = 10,
    evaluations: int = 100,
    temperature: bool = True,
    held_back: float = 0.2,
    seed: int = 0,
    restart: bool = True,
    split: str | None = None,
    memory_budget: int = 2 << 30,
    on_progress: Progress = no_progress,
    progress: bool = True,
    on_step: OnStep = no_step,
) -> Soup:
    """Learn the coefficients of a soup by gradient descent on the select split.

    The soup's `notes` say if it was learned from fewer ingredients than were given, or if it scores
    below the best of them.

    Memory holds the network, its gradient and a batch, and the ingredients if they fit the budget.

    Args:
        sweep: The sweep.
        evaluator: Supplies the task and the device.
        names: Ingredients to use; by default, all.
        per: One coefficient per `ingredient`, or per ingredient and `layer` (a block, see
            `soupcore.checkpoints.names`), or per ingredient and `tensor`.
        space: `softmax`: non-negative, sum to one; `hyperplane`: sum to one.
        optimizer: `lbfgs` or `adamw`, which need gradients of the loss, or `cma`, which needs none
            and optimises the score on the whole split. It needs the package `cma`.
        passes: Maximum number of passes over the examples. The paper uses AdamW with 3, or 5 per
            tensor.
        evaluations: Maximum number of points that `cma` evaluates; no other optimiser uses it.
        temperature: Whether to learn β too. It affects learning only and not the soup's
            predictions. Ignored unless the task records logits (see `Task.output_kind`).
        held_back: Fraction of the examples held out for early stopping, in [0, 0.5], stratified by
            class.
        seed: Seed of the held-out examples and of AdamW's batch order.
        restart: Whether to learn again from the ingredients of the greedy soup by loss if the loss
            ends above that of a single ingredient. The paper does not do this.
        split: The split to learn on, with the role `select`.
        memory_budget: Largest total size of the ingredients, in bytes, to keep them in memory.
        on_progress: Called with the number of examples done and the maximum in total. Raise
            `Cancelled` in it to stop early: the soup then has the best coefficients so far.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
        on_step: Called with the trace after each pass.

    Raises:
        RecipeError: A parameter is out of range, the split does not have the role `select`, the
            task has no gradients, or the loss is undefined for some examples.
        Cancelled: Learning was cancelled before the first pass was done.
    """
    parameters = LEARNED.check(
        {
            "per": per,
            "space": space,
            "optimizer": optimizer,
            "passes": passes,
            "evaluations": evaluations,
            "temperature": temperature,
            "held_back": held_back,
            "seed": seed,
            "restart": restart,
        }
    )
    sweep, chosen = needs.ingredients(LEARNED, sweep, names)
    split = needs.select_split(evaluator, split)
    if optimizer != "cma" and (reason := evaluator.task.why_no_gradients):
        raise RecipeError(
            f"{reason} Choose the optimiser `cma`, which needs evaluations only, or another "
            "recipe, such as greedy."
        )
    learning = _Learning(
        sweep,
        evaluator,
        split,
        parameters,
        memory_budget=memory_budget,
        on_progress=part(on_progress, 1, 2),
        on_step=on_step,
    )
    points = [sweep[name].mixture for name in chosen]
    scored = evaluator.evaluate_all(points, split, on_progress=part(on_progress, 0, 2))
    alone = dict(zip(chosen, scored, strict=True))
    if optimizer == "cma":
        return learning.by_evaluations(chosen, alone)
    soup = learning.of(chosen)
    best = min(alone, key=lambda name: learning.loss_of(alone[name]))
    if restart and not learning.was_stopped and learning.is_above(soup, alone[best]):
        try:
            soup = learning.again(soup, chosen, best, alone[best])
        except (Cancelled, KeyboardInterrupt):
            if soup is None:
                raise
    if soup is None:
        raise RecipeError(
            f"The average of all ingredients has a loss on {split!r} that is not finite, so it "
            "has no gradient. Exclude the ingredient that diverged."
        )
    soup.notes += _below_the_best(soup, alone, split)
    return soup


class _Learning:
    """Learns coefficients for given ingredients, always with the same parameters.

    Attributes:
        was_stopped: Whether learning was cancelled.
    """

    def __init__(
        self,
        sweep: Sweep,
        evaluator: Evaluator,
        split: str,
        parameters: Mapping[str, Any],
        *,
        memory_budget: int,
        on_progress: Progress,
        on_step: OnStep,
    ) -> None:
        self._sweep = sweep
        self._evaluator = evaluator
        self._split = split
        self._parameters = parameters
        self._memory_budget = memory_budget
        self._on_progress = on_progress
        self._on_step = on_step
        task = evaluator.task
        are_logits = task.output_kind == "logits" and task.averages == "records"
        self._learns_temperature = parameters["temperature"] and are_logits
        self.was_stopped = False

    def of(self, chosen: Sequence[str]) -> Soup | None:
        """Return the soup of some ingredients; None if the loss of their mean is not finite."""
        sweep, evaluator, parameters = self._sweep, self._evaluator, self._parameters
        # The order must not depend on names, because it affects the rounding of sums.
        ordered = sorted(chosen, key=lambda name: sweep[name].digest)
        examples = evaluator.task.split(self._split)
        learn, rest = hold_back(examples, parameters["held_back"], parameters["seed"])
        # The start is the uniform soup. Evaluating it also checks that the weights fit the task.
        start = mean(sweep[name].mixture for name in chosen)
        if not _has_finite_loss(evaluator.evaluate(start, self._split)):
            return None
        groups = groups_of(start.tensors, parameters["per"])
        objective = Objective(
            evaluator.task,
            self._split,
            [sweep[name].checkpoint for name in ordered],
            groups,
            device=evaluator.device,
            batch_size=evaluator.batch_size,
            memory_budget=self._memory_budget,
        )
        descent = Descent(
            objective,
            len(ordered),
            parameters["space"],
            learn=learn,
            held_back=rest,
            learns_temperature=self._learns_temperature,
            passes=parameters["passes"],
            on_progress=self._on_progress,
            on_step=self._on_step,
        )
        try:
            if parameters["optimizer"] == "lbfgs":
                descent.by_lbfgs()
            else:
                rate = 0.1 if parameters["per"] == "ingredient" else 0.05
                descent.by_adamw(rate, evaluator.batch_size, parameters["seed"])
        except (Cancelled, KeyboardInterrupt):
            if not descent.trace:
                raise
            self.was_stopped = True
        found = dict(zip(objective.labels, descent.best, strict=True))
        soup = learned_soup(sweep, evaluator, self._split, parameters, ordered, groups, found)
        soup.passes = tuple(descent.trace)
        soup.take_statistics_of(evaluator)
        soup.evaluations[self._split] = evaluator.evaluate(soup.mixture, self._split)
        return soup

    def by_evaluations(self, chosen: Sequence[str], alone: Mapping[str, Evaluation]) -> Soup:
        """Return the soup found by CMA-ES, with a note if the best ingredient scores higher.

        Args:
            chosen: The ingredients.
            alone: Their evaluations.
        """
        evaluator = self._evaluator
        search = Search(self._sweep, evaluator, self._split, self._parameters, chosen)
        evolution = search.run(by_score, on_progress=self._on_progress, on_step=self._on_step)
        soup = search.soup_of(evolution.best)
        soup.passes = tuple(evolution.trace)
        soup.take_statistics_of(evaluator)
        here = soup.evaluations[self._split] = evaluator.evaluate(soup.mixture, self._split)
        best = _best_above(here, alone)
        if best is not None:
            unit = evaluator.task.score_unit
            soup.notes += (
                f"On {self._split} the soup scores {unit.text(here.score)}, below the best "
                f"ingredient, {best} ({unit.text(alone[best].score)}). Allow more evaluations, or "
                "choose fewer ingredients.",
            )
        return soup

    def again(
        self, first: Soup | None, chosen: Sequence[str], best: str, alone: Evaluation
    ) -> Soup | None:
        """Learn from the ingredients of the greedy soup; return the better soup of the two.

        Args:
            first: The soup learned from all ingredients.
            chosen: All ingredients.
            best: The ingredient with the lowest loss.
            alone: The evaluation of that ingredient.
        """
        members = greedy(
            self._sweep,
            self._evaluator,
            chosen,
            metric="loss",
            split=self._split,
            on_progress=self._on_progress,
        ).ingredients
        if len(members) == len(chosen):
            return first
        fewer = self._sweep.names(members)
        second = self.of(fewer)
        if second is None or (first is not None and self.is_above(second, self._evaluation(first))):
            return first
        reason = "has no finite loss"
        if first is not None:
            loss, least = (self.loss_of(each) for each in (self._evaluation(first), alone))
            reason = f"ended at a loss of {loss:.4g}, above {least:.4g} for {best} alone"
        second.notes = (
            f"Learning from the mean of all ingredients {reason}. It was repeated with the "
            f"ingredients of the greedy soup by loss: {', '.join(fewer)}.",
        )
        return second

    def is_above(self, soup: Soup | None, other: Evaluation) -> bool:
        """Return whether a soup has a higher loss than another, each at its own best β."""
        return soup is None or self.loss_of(self._evaluation(soup)) > self.loss_of(other)

    def loss_of(self, evaluation: Evaluation) -> float:
        """Return the loss on the whole split; if β is learned, at the β that minimises it."""
        if self._learns_temperature and evaluation.has_outputs:
            task = self._evaluator.task
            targets = targets_of(task.split(self._split))
            return least_loss(task, evaluation.outputs, targets, evaluation.weights)
        return evaluation.loss if math.isfinite(evaluation.loss) else math.inf

    def _evaluation(self, soup: Soup) -> Evaluation:
        return soup.evaluations[self._split]


def _has_finite_loss(evaluation: Evaluation) -> bool:
    undefined = int(evaluation.losses.isnan().sum())
    if undefined:
        raise RecipeError(
            f"The loss is undefined (NaN) for {undefined} of {evaluation.n} examples of "
            f"{evaluation.split!r}, but learning needs its gradient. Make the task's `loss` return "
            "a number for each example, or remove these examples from the split."
        )
    return math.isfinite(evaluation.loss)


def _below_the_best(soup: Soup, alone: Mapping[str, Evaluation], split: str) -> tuple[str, ...]:
    """Return a note if the soup scores below the best ingredient, with the likely reason."""
    here = soup.evaluations[split]
    best = _best_above(here, alone)
    if best is None:
        return ()
    there, unit = alone[best], here.labels.score_unit
    why = (
        f"Learning minimises the loss, which is lower: {here.loss:.4g} vs. {there.loss:.4g}."
        if here.loss <= there.loss
        else f"Its loss is also higher: {here.loss:.4g} vs. {there.loss:.4g}. Either early "
        "stopping came too soon, or the ingredients share no basin. Try fewer ingredients or "
        "another recipe."
    )
    return (
        f"On {split} the soup scores {unit.text(here.score)}, below the best ingredient, {best} "
        f"({unit.text(there.score)}). {why}",
    )


def _best_above(here: Evaluation, alone: Mapping[str, Evaluation]) -> str | None:
    """Return the best ingredient by score if it scores above a soup, else None."""
    above = {n: each.score for n, each in alone.items() if here.score < each.score < math.inf}
    return max(above, key=lambda name: above[name]) if above else None


def _trials(k: int, parameters: Mapping[str, Any]) -> int:
    if parameters["optimizer"] == "cma":
        return int(parameters["evaluations"])
    # Learning runs at most twice, the second time with the ingredients of a greedy soup.
    once: int = parameters["passes"] + 1
    return 2 * once + k if parameters["restart"] else once


LEARNED = Recipe(
    name="learned",
    title="Learned",
    summary="Learn mixing weights by gradient descent on select, with early stopping on a held-out "
    "part of it.",
    paper="Wortsman et al. 2022, arXiv:2203.05482, equation 2; Li et al. 2024, arXiv:2407.03641",
    function=learned,
    chooses=True,
    ranks=True,
    fits=True,
    trials=_trials,
    parameters=(
        Choice(
            name="per",
            label="Granularity",
            help="One weight per ingredient, per ingredient and layer, or per ingredient and "
            "tensor. Finer granularity overfits more easily.",
        ),
        Choice(
            name="space",
            label="Coefficients",
            help="Softmax: non-negative, sums to 1 (Model Soups). Hyperplane: sums to 1, may be "
            "negative (MEHL-Soup).",
            is_rare=True,
        ),
        Choice(
            name="optimizer",
            label="Optimiser",
            help="L-BFGS (full batch), or AdamW with the paper's learning rate and no weight "
            "decay. CMA-ES needs no gradients and optimises the score itself, by evaluations; it "
            "needs the package cma.",
            is_rare=True,
        ),
        Number(
            name="passes",
            label="Max passes",
            help="Maximum passes over select; stops early when held-out loss rises. The paper uses "
            "3 (AdamW), or 5 per tensor.",
            minimum=1,
            maximum=100,
            step=1,
            is_rare=True,
        ),
        Number(
            name="evaluations",
            label="Max evaluations",
            help="Maximum number of points that CMA-ES evaluates on select. The other optimisers "
            "do not use it.",
            minimum=2,
            maximum=10_000,
            step=10,
            is_rare=True,
            only_if=("optimizer", "cma"),
        ),
        Switch(
            name="temperature",
            label="Learn logit scale β",
            help="Multiplies logits by β in the loss. Affects training of the mixing weights, not "
            "the soup's predictions.",
            is_rare=True,
        ),
        Number(
            name="held_back",
            label="Held-out fraction",
            help="Fraction of select used for early stopping instead of training.",
            minimum=0,
            maximum=0.5,
            step=0.05,
            is_rare=True,
        ),
        Number(
            name="seed",
            label="Seed",
            help="Seed for the held-out split and the batch order.",
            minimum=0,
            maximum=2**31 - 1,
            step=1,
            is_rare=True,
        ),
        Switch(
            name="restart",
            label="Restart",
            help="If the loss ends above that of a single ingredient, learn again from the "
            "ingredients of the greedy soup by loss. One diverged run can cause this.",
            is_rare=True,
        ),
    ),
)
