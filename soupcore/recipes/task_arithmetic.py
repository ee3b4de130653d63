"""Task arithmetic: θ = base ± λΣ(θᵢ − base) (Ilharco et al. 2023, arXiv:2212.04089).

All of it is linear, so the soup is one mixture: ±λ of each ingredient and 1 ∓ kλ of the base.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe
from soupcore.sweeps import Sweep

Operation = Literal["add", "subtract"]


def task_arithmetic(
    sweep: Sweep,
    names: Iterable[str] | None = None,
    *,
    scale: Coefficient = Fraction(3, 10),
    operation: Operation = "add",
) -> Soup:
    """Add the task vectors of the ingredients to the base, or subtract them.

    Args:
        sweep: Where they are from; it needs a base.
        names: Which ingredients; all unless given.
        scale: λ. The paper chooses it on held-out data, from 0 to 1 by 0.05.
        operation: `add`, to learn what they learned; `subtract` (the paper's negation), to forget.

    Raises:
        RecipeError: There is no base.
        SweepError: A name is not in the sweep.
    """
    parameters = TASK_ARITHMETIC.check({"scale": scale, "operation": operation})
    chosen = needs.ingredients(TASK_ARITHMETIC, sweep, names)
    base = needs.base(TASK_ARITHMETIC, sweep)
    step = as_fraction(scale) * (1 if operation == "add" else -1)
    coefficients = {base.name: 1 - len(chosen) * step} | dict.fromkeys(chosen, step)
    return Soup.of(sweep, "task_arithmetic", parameters, coefficients, keep_zeros=True)


TASK_ARITHMETIC = Recipe(
    name="task_arithmetic",
    title="Task arithmetic",
    summary="λ times the sum of the task vectors, added to the base or taken away from it.",
    paper="Ilharco et al. 2023, arXiv:2212.04089",
    function=task_arithmetic,
    needs_base=True,
    parameters=(
        Number(
            name="scale",
            label="λ",
            help="How far to go. 1/k of k ingredients gives their mean.",
            default=0.3,
            minimum=0,
            maximum=5,
            step=0.05,
            curve=tuple(i / 20 for i in range(21)),
        ),
        Choice(
            name="operation",
            label="Task vectors",
            help="Add them, or subtract them to forget what they learned.",
            default="add",
            choices=("add", "subtract"),
        ),
    ),
)
