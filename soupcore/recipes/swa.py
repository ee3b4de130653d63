"""Stochastic weight averaging: the mean of late snapshots of one run.

Izmailov et al. 2018, arXiv:1803.05407. The ingredients are the snapshots, ordered by the natural
order of their names (step-2 before step-10), so their names must follow their order in time.
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
