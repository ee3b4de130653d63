"""Stochastic weight averaging: the mean of late snapshots of one run.

Izmailov et al. 2018, arXiv:1803.05407. The ingredients are the snapshots; their order in time is
the natural order of their names (step-2 before step-10), so name them so.
"""

from collections.abc import Iterable
from fractions import Fraction

from soupcore.errors import RecipeError
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Number, Recipe
from soupcore.sweeps import Sweep


def swa(sweep: Sweep, names: Iterable[str] | None = None, *, skip: int = 0) -> Soup:
    """Average the snapshots of a run after the first few.

    The paper averages at the end of each cycle of its learning rate schedule, once at the end of
    training it re-estimates BatchNorm's statistics on the training data; here they are averaged.

    Args:
        sweep: Where the snapshots are from.
        names: Which of them; all unless given.
        skip: How many at the beginning are left out.

    Raises:
        RecipeError: None is left.
        SweepError: A name is not in the sweep.
    """
    parameters = SWA.check({"skip": skip})
    chosen = needs.ingredients(SWA, sweep, names)[skip:]
    if not chosen:
        raise RecipeError(f"All snapshots are skipped; skip fewer than {skip}.")
    return Soup.of(sweep, "swa", parameters, dict.fromkeys(chosen, Fraction(1, len(chosen))))


SWA = Recipe(
    name="swa",
    title="SWA",
    summary="The mean of late snapshots of one run, in the natural order of their names.",
    paper="Izmailov et al. 2018, arXiv:1803.05407",
    function=swa,
    parameters=(
        Number(
            name="skip",
            label="Snapshots to skip",
            help="How many at the beginning of the run are left out.",
            default=0,
            minimum=0,
            maximum=10_000,
            step=1,
        ),
    ),
)
