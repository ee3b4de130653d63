"""The exponential moving average of a run's snapshots.

The average starts at the first snapshot θ₁ and becomes d·average + (1−d)·θₜ at each later one
(Polyak and Juditsky 1992 for averaging; same update as
`torch.optim.swa_utils.get_ema_multi_avg_fn`). Snapshots are ordered by the natural order of their
names (step-2 before step-10), so their names must follow their order in time.
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
    """Average the snapshots of a run with exponentially decaying weights.

    Args:
        sweep: A sweep whose ingredients are snapshots of one run.
        names: Snapshots to use; by default, all.
        decay: d in [0, 1], the weight kept on the running average at each snapshot. Averages over
            optimiser steps use 0.999 or more. There are fewer snapshots, so the default is lower.

    Raises:
        RecipeError: There are no snapshots, or the decay is out of range.
        SweepError: A name is not in the sweep.
    """
    parameters = EMA.check({"decay": decay})
    sweep, (first, *later) = needs.ingredients(EMA, sweep, names)
    keep = as_fraction(decay)
    coefficients = {first: keep ** len(later)}
    for age, name in enumerate(reversed(later)):
        coefficients[name] = (1 - keep) * keep**age
    in_order = {name: coefficients[name] for name in (first, *later)}
    return Soup.of(sweep, "ema", parameters, in_order)


EMA = Recipe(
    name="ema",
    title="EMA",
    summary="Exponential moving average of a run's snapshots, ordered by file name (natural sort).",
    paper="Polyak and Juditsky 1992, SIAM J. Control Optim. 30(4)",
    function=ema,
    parameters=(
        Number(
            name="decay",
            label="Decay d",
            help="Weight kept on the running average at each snapshot.",
            minimum=0,
            maximum=1,
            step=0.01,
            curve=(0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99),
        ),
    ),
)
