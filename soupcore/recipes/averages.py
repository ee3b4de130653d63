"""Averages of ingredients whose coefficients need no evaluation.

- Uniform: θ = (1/k)Σθᵢ (Wortsman et al. 2022, arXiv:2203.05482, section 2).
- Manual: given coefficients.
- Stochastic weight averaging: the mean of late snapshots of one run (Izmailov et al. 2018,
  arXiv:1803.05407).
- The exponential moving average of a run's snapshots. It starts at the first snapshot θ₁ and
  becomes d·average + (1−d)·θₜ at each later one (Polyak and Juditsky 1992 for averaging; same
  update as `torch.optim.swa_utils.get_ema_multi_avg_fn`).

The ingredients of the last two are the snapshots of a run, ordered by the natural order of their
names (step-2 before step-10), so their names must follow their order in time.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction

from soupcore.errors import RecipeError
from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Number, Recipe
from soupcore.sweeps import Sweep


def uniform(sweep: Sweep, names: Iterable[str] | None = None) -> Soup:
    """Average the ingredients with equal coefficients.

    Args:
        sweep: The sweep.
        names: Ingredients to use; by default, all.

    Raises:
        RecipeError: There are no ingredients.
        SweepError: A name is not in the sweep.
    """
    sweep, chosen = needs.ingredients(UNIFORM, sweep, names)
    return Soup.of(sweep, "uniform", {}, dict.fromkeys(chosen, Fraction(1, len(chosen))))


UNIFORM = Recipe(
    name="uniform",
    title="Uniform",
    summary="Equal-weight average of all selected ingredients. No evaluation needed, but one bad "
    "run can ruin it.",
    paper="Wortsman et al. 2022, arXiv:2203.05482",
    function=uniform,
)


def manual(sweep: Sweep, coefficients: Mapping[str, Coefficient]) -> Soup:
    """Mix ingredients with given coefficients, which are scaled to sum to exactly one.

    Args:
        sweep: The sweep.
        coefficients: `{name: coefficient}` of ingredients or the base. Negative coefficients
            extrapolate.

    Raises:
        RecipeError: The coefficients sum to 0, or there are none.
        SweepError: A name is not in the sweep.
    """
    fractions = {name: as_fraction(c) for name, c in coefficients.items()}
    total = sum(fractions.values())
    if total == 0:
        raise RecipeError(
            "Coefficients sum to 0; the weighted average is undefined. Change one of them."
        )
    scaled = {name: fraction / total for name, fraction in fractions.items()}
    base = sweep.base.name if sweep.base is not None else None
    chosen = [name for name in scaled if name != base]
    sweep = sweep.for_recipe(chosen, uses_base=base in scaled)
    return Soup.of(sweep, "manual", {}, scaled)


def swa(sweep: Sweep, names: Iterable[str] | None = None, *, skip: int = 0) -> Soup:
    """Average the snapshots of a run after the first few.

    The paper averages snapshots from the end of each cycle of a cyclical learning rate, and
    re-estimates BatchNorm statistics on the training data at the end. Here, BatchNorm statistics
    are averaged unless the evaluator or `Soup.re_estimate` re-estimates them.

    Args:
        sweep: A sweep whose ingredients are snapshots of one run.
        names: Snapshots to use; by default, all.
        skip: Number of early snapshots to skip.

    Raises:
        RecipeError: No snapshot is left.
        SweepError: A name is not in the sweep.
    """
    parameters = SWA.check({"skip": skip})
    sweep, chosen = needs.ingredients(SWA, sweep, names)
    chosen = chosen[skip:]
    if not chosen:
        raise RecipeError(f"All snapshots would be skipped; skip fewer than {skip}.")
    return Soup.of(sweep, "swa", parameters, dict.fromkeys(chosen, Fraction(1, len(chosen))))


SWA = Recipe(
    name="swa",
    title="SWA",
    summary="Average late snapshots of a single run, ordered by file name (natural sort).",
    paper="Izmailov et al. 2018, arXiv:1803.05407",
    function=swa,
    parameters=(
        Number(
            name="skip",
            label="Snapshots to skip",
            help="Number of early snapshots to skip.",
            minimum=0,
            maximum=10_000,
            step=1,
        ),
    ),
)


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
