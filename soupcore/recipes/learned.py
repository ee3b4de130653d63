"""The learned soup: coefficients by gradient descent (arXiv:2203.05482, equation 2 and appendix I).

Wortsman et al. 2022 minimise the held-out loss of β·f(x; Σαᵢθᵢ) over α and a temperature β, with α
on the simplex by a softmax, all equal at the start, by AdamW; one αᵢ for each ingredient, or for
each ingredient and layer. MEHL-Soup (Li et al. 2024, arXiv:2407.03641) learns on the hyperplane
Σα = 1, which allows negative ones, and learns better.

Here both spaces are offered. In either, L-BFGS over all examples reaches a lower loss in a few
passes than AdamW in many; AdamW has the paper's settings: a constant rate of 0.1 (0.05 where there
is more than one group) and no decay. The paper's 3 epochs, 5 with coefficients for each tensor, are
`passes=3` and `passes=5`; by default there may be more. (MEHL-Soup's own way of descending, block
by block of ingredients, saves the memory that streaming saves here, and is not followed.)

Part of the split that is chosen on is held back, to stop when the loss there stops falling and to
keep the best coefficients: with many of them the rest is soon learned by heart.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from soupcore.errors import Cancelled
from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.merges import Group, Grouped
from soupcore.mixtures import mean
from soupcore.recipes import needs
from soupcore.recipes.descent import Descent, Space
from soupcore.recipes.gradients import Objective
from soupcore.recipes.layers import layer_of
from soupcore.recipes.shares import shares
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe, Switch
from soupcore.recipes.trace import OnStep, no_step
from soupcore.sweeps import Sweep
from soupcore.tasks import ClassificationTask, Split

Per = Literal["ingredient", "layer", "tensor"]
Optimizer = Literal["lbfgs", "adamw"]


def learned(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    per: Per = "ingredient",
    space: Space = "softmax",
    optimizer: Optimizer = "lbfgs",
    passes: int = 10,
    temperature: bool = True,
    held_back: float = 0.2,
    seed: int = 0,
    split: str | None = None,
    memory_budget: int = 2 << 30,
    on_progress: Progress = no_progress,
    on_step: OnStep = no_step,
) -> Soup:
    """Learn the coefficients on the examples of the select split.

    Memory: the network, its gradient and a batch; the ingredients too where they fit the budget.

    Args:
        sweep: Where the ingredients are from.
        evaluator: Knows the task and the device.
        names: Which ingredients; all unless given.
        per: One coefficient per `ingredient`; or of each ingredient one for each `layer` (a block:
            see `soupcore.recipes.layers`) or `tensor`.
        space: `softmax`: positive, sum to one; `hyperplane`: sum to one.
        optimizer: `lbfgs` or `adamw`.
        passes: Over the examples, at most. The paper's are 3, or 5 `per` tensor, by AdamW.
        temperature: Whether to learn β with them. It belongs to the learning, not to the soup: it
            changes no prediction. Only where outputs are logits, in a `ClassificationTask`.
        held_back: The share of the examples held back, in [0, 0.5]; of each class alike.
        seed: Which are held back, and the order in which AdamW sees the rest.
        split: The split to learn on; it must have the role `select`.
        memory_budget: Bytes that the ingredients may take to be kept in memory.
        on_progress: Called with examples done and in all, at most. Raise `Cancelled` in it to
            stop: the best coefficients so far make the soup.
        on_step: Called with the trace each time it grows.

    Raises:
        RecipeError: A parameter is out of range, or the split is not for choosing.
        Cancelled: It was stopped before the first pass was done.
    """
    parameters = LEARNED.check(
        {
            "per": per,
            "space": space,
            "optimizer": optimizer,
            "passes": passes,
            "temperature": temperature,
            "held_back": held_back,
            "seed": seed,
        }
    )
    chosen = needs.ingredients(LEARNED, sweep, names)
    split = needs.select_split(evaluator, split)
    # In an order that does not depend on names, so that the rounding of sums does not either.
    ordered = sorted(chosen, key=lambda name: sweep[name].digest)
    examples = evaluator.task.split(split)
    learn, rest = hold_back(examples, held_back, seed)
    # The start is the uniform soup; evaluating it also makes sure that the weights fit the task.
    start = mean(sweep[name].mixture for name in chosen)
    evaluator.evaluate(start, split)
    groups = _groups(start.tensors, per)
    objective = Objective(
        evaluator.task,
        examples,
        [sweep[name].checkpoint for name in ordered],
        groups,
        device=evaluator.device,
        batch_size=evaluator.batch_size,
        memory_budget=memory_budget,
    )
    descent = Descent(
        objective,
        len(ordered),
        space,
        learn=learn,
        held_back=rest,
        learns_temperature=temperature and isinstance(evaluator.task, ClassificationTask),
        passes=passes,
        on_progress=on_progress,
        on_step=on_step,
    )
    try:
        if optimizer == "lbfgs":
            descent.by_lbfgs()
        else:
            rate = 0.1 if per == "ingredient" else 0.05
            descent.by_adamw(rate, evaluator.batch_size, seed)
    except (Cancelled, KeyboardInterrupt):
        if not descent.trace:
            raise
    found = {
        label: shares(dict(zip(ordered, row.tolist(), strict=True)))
        for label, row in zip(objective.labels, descent.best, strict=True)
    }
    equal = dict.fromkeys(chosen, Fraction(1, len(chosen)))
    by_group = {label: {name: found.get(label, equal)[name] for name in chosen} for label in groups}
    parameters |= {"split": split}
    if per == "ingredient":
        (coefficients,) = by_group.values()
        soup = Soup.of(sweep, "learned", parameters, coefficients)
    else:
        merge = Grouped(
            {label: Group(groups[label], sweep.mixture(by_group[label])) for label in groups}
        )
        soup = Soup.of_merge(sweep, "learned", parameters, chosen, merge)
    soup.passes = tuple(descent.trace)
    soup.take_statistics_of(evaluator)
    soup.evaluations[split] = evaluator.evaluate(soup.mixture, split)
    return soup


def _groups(tensors: Iterable[str], per: Per) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for name in tensors:
        label = {"ingredient": "all", "layer": layer_of(name), "tensor": name}[per]
        groups[label] = (*groups.get(label, ()), name)
    return groups


def hold_back(split: Split, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide the examples of a split at random into those to learn from and those held back.

    Where the targets are classes, of each class the same share is held back, up to one example.

    Args:
        split: The examples.
        share: The share held back, from 0 to 1.
        seed: Which.

    Returns:
        The indices of the two parts, each ascending.
    """
    n = len(split)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    targets = split.targets.cpu()
    if targets.dim() == 1 and not targets.is_floating_point():
        order = order[targets[order].argsort(stable=True)]
    # Every 1/share-th in this order, so that classes, which lie together, lose equal shares.
    steps = (torch.arange(n + 1, dtype=torch.float64) * share).floor()
    is_held = steps[1:] > steps[:-1]
    return torch.sort(order[~is_held]).values, torch.sort(order[is_held]).values


LEARNED = Recipe(
    name="learned",
    title="Learned",
    summary="Coefficients by gradient descent on select, part of it held back to know when to "
    "stop.",
    paper="Wortsman et al. 2022, arXiv:2203.05482, equation 2; Li et al. 2024, arXiv:2407.03641",
    function=learned,
    chooses=True,
    trials=lambda k, parameters: parameters["passes"] + 1,
    parameters=(
        Choice(
            name="per",
            label="One coefficient for each",
            help="Ingredient; or ingredient and layer, or ingredient and tensor: more to learn, "
            "and more to learn by heart.",
            default="ingredient",
            choices=("ingredient", "layer", "tensor"),
        ),
        Choice(
            name="space",
            label="Coefficients",
            help="Softmax: positive, sum to one, as in the soups' paper. Hyperplane: sum to one, "
            "as in MEHL-Soup.",
            default="softmax",
            choices=("softmax", "hyperplane"),
        ),
        Choice(
            name="optimizer",
            label="Optimiser",
            help="L-BFGS over all examples at once, or AdamW with the paper's rate and no decay.",
            default="lbfgs",
            choices=("lbfgs", "adamw"),
        ),
        Number(
            name="passes",
            label="Passes",
            help="Over the examples, at most; it stops earlier where the held-back loss rises. The "
            "paper makes 3 by AdamW, and 5 with a coefficient for each tensor.",
            default=10,
            minimum=1,
            maximum=100,
            step=1,
        ),
        Switch(
            name="temperature",
            label="Learn a temperature",
            help="β, by which logits are multiplied before the loss. It does not change the soup's "
            "predictions, only what is learned.",
            default=True,
        ),
        Number(
            name="held_back",
            label="Held back",
            help="The share of select that is not learned from but says when to stop.",
            default=0.2,
            minimum=0,
            maximum=0.5,
            step=0.05,
        ),
        Number(
            name="seed",
            label="Seed",
            help="Which examples are held back, and the order of the others.",
            default=0,
            minimum=0,
            maximum=2**31 - 1,
            step=1,
        ),
    ),
)
