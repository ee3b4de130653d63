"""The exponential moving average of a run's snapshots.

θ₁ for the first snapshot, then d·average + (1−d)·θₜ for each next one (Polyak and Juditsky 1992 for
averaging; as `torch.optim.swa_utils.get_ema_multi_avg_fn`). The order in time is the natural order
of the snapshots' names (step-2 before step-10), so name them so.
"""

from collections.abc import Iterable
from fractions import Fraction

from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Number, Recipe
from soupcore.sweeps import Sweep


def ema(
    sweep: Sweep, names: Iterable[str] | None = None, *, decay: Coefficient = Fraction(9, 10)
) -> Soup:
    """Average the snapshots of a run, later ones with more weight.

    Args:
        sweep: Where the snapshots are from.
        names: Which of them; all unless given.
        decay: d, in [0, 1]: what the average keeps of itself with each next snapshot. Averages
            over optimiser steps take 0.999 or more; snapshots are fewer, so it is less here.

    Raises:
        RecipeError: There are none, or the decay is out of range.
        SweepError: A name is not in the sweep.
    """
    parameters = EMA.check({"decay": decay})
    first, *later = needs.ingredients(EMA, sweep, names)
    keep = as_fraction(decay)
    coefficients = {first: keep ** len(later)}
    for age, name in enumerate(reversed(later)):
        coefficients[name] = (1 - keep) * keep**age
    in_order = {name: coefficients[name] for name in (first, *later)}
    return Soup.of(sweep, "ema", parameters, in_order)


EMA = Recipe(
    name="ema",
    title="EMA",
    summary="The exponential mean of a run's snapshots, in the natural order of their names.",
    paper="Polyak and Juditsky 1992, SIAM J. Control Optim. 30(4)",
    function=ema,
    parameters=(
        Number(
            name="decay",
            label="Decay d",
            help="What the average keeps of itself with each next snapshot.",
            default=0.9,
            minimum=0,
            maximum=1,
            step=0.01,
            curve=(0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99),
        ),
    ),
)
