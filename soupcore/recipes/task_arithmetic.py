"""Task arithmetic: θ = base ± λΣ(θᵢ − base) (Ilharco et al. 2023, arXiv:2212.04089).

The formula is linear, so the soup is one mixture: ±λ of each ingredient and 1 ∓ kλ of the base.
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
        sweep: A sweep with a base.
        names: Ingredients to use; by default, all.
        scale: λ. The paper chooses it on held-out data from 0, 0.05, …, 1.
        operation: `add`, or `subtract` to unlearn (the paper's negation).

    Raises:
        RecipeError: There is no base.
        SweepError: A name is not in the sweep.
    """
    parameters = TASK_ARITHMETIC.check({"scale": scale, "operation": operation})
    sweep, chosen = needs.ingredients(TASK_ARITHMETIC, sweep, names)
    base = needs.base(TASK_ARITHMETIC, sweep)
    step = as_fraction(scale) * (1 if operation == "add" else -1)
    coefficients = {base.name: 1 - len(chosen) * step} | dict.fromkeys(chosen, step)
    return Soup.of(sweep, "task_arithmetic", parameters, coefficients, keep_zeros=True)


TASK_ARITHMETIC = Recipe(
    name="task_arithmetic",
    title="Task arithmetic",
    summary="Add λ × the sum of task vectors to the base, or subtract it.",
    paper="Ilharco et al. 2023, arXiv:2212.04089",
    function=task_arithmetic,
    needs_base=True,
    parameters=(
        Number(
            name="scale",
            label="Scaling λ",
            help="Scaling coefficient. λ = 1/k gives the plain average of k ingredients.",
            minimum=0,
            maximum=5,
            step=0.05,
            curve=tuple(i / 20 for i in range(21)),
        ),
        Choice(
            name="operation",
            label="Task vectors",
            help="Add, or subtract to unlearn (negation).",
        ),
    ),
)
