"""TIES-Merging: trim, elect signs, merge (Yadav et al. 2023, arXiv:2306.01708, Algorithm 1).

1. Trim: keep the entries of each task vector θᵢ − base with the largest magnitudes.
2. Elect: for each entry, choose the sign with the larger total magnitude.
3. Merge: for each entry, average the kept values with the elected sign. Add λ times this vector to
   the base.

The paper trims over the whole vector, mergekit and PEFT tensor by tensor (`trim`). The paper does
not say how to break ties between signs: its code takes the majority sign over the whole vector,
mergekit takes + (`tie`). Nor does it say how to round the number of entries kept: here it is
rounded down, and all entries as large as the smallest one kept are kept too. The paper's code keeps
one entry more than that number, mergekit exactly that number.
"""

from collections.abc import Iterable
from fractions import Fraction

from soupcore.merges import Ties
from soupcore.merges.task_vectors import Tie, Vote
from soupcore.merges.ties import Trim
from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe
from soupcore.sweeps import Sweep


def ties(
    sweep: Sweep,
    names: Iterable[str] | None = None,
    *,
    density: Coefficient = Fraction(1, 5),
    scale: Coefficient = 1,
    trim: Trim = "global",
    vote: Vote = "magnitude",
    tie: Tie = "majority",
) -> Soup:
    """Trim task vectors, elect a sign per entry, and average the entries that agree.

    Args:
        sweep: A sweep with a base.
        names: Ingredients to use; by default, all.
        density: Fraction of each task vector kept, in (0, 1].
        scale: λ. The paper's default is 1; on held-out data it tries 0.8 to 2.5.
        trim: Whether the fraction applies to the whole vector (`global`, the paper) or to each
            `tensor` (mergekit).
        vote: Elects a sign by total `magnitude` (the paper) or by `count` of ingredients.
        tie: Sign for ties: the `majority` sign over the whole vector, or `positive` (mergekit).

    Raises:
        RecipeError: There is no base, or a parameter is out of range.
        SweepError: A name is not in the sweep.
    """
    parameters = TIES.check(
        {"density": density, "scale": scale, "trim": trim, "vote": vote, "tie": tie}
    )
    sweep, chosen = needs.ingredients(TIES, sweep, names)
    base = needs.base(TIES, sweep)
    merge = Ties(
        base.checkpoint,
        [sweep[name].checkpoint for name in chosen],
        density=as_fraction(density),
        scale=as_fraction(scale),
        trim=trim,
        vote=vote,
        tie=tie,
    )
    return Soup.of_merge(sweep, "ties", parameters, [*chosen, base.name], merge)


TIES = Recipe(
    name="ties",
    title="TIES",
    summary="Trim each task vector to its largest entries, elect a sign per entry, and average the "
    "entries that agree.",
    paper="Yadav et al. 2023, arXiv:2306.01708",
    function=ties,
    needs_base=True,
    parameters=(
        Number(
            name="density",
            label="Density k",
            help="Fraction of each task vector kept, by magnitude.",
            minimum=0.001,
            maximum=1,
            step=0.05,
            curve=(0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1),
        ),
        Number(
            name="scale",
            label="Scaling λ",
            help="Scaling of the merged task vector.",
            minimum=0,
            maximum=5,
            step=0.1,
            curve=tuple(i / 10 for i in range(8, 26)),
        ),
        Choice(
            name="trim",
            label="Trim scope",
            help="Global (paper) or per tensor (mergekit).",
            is_rare=True,
        ),
        Choice(
            name="vote",
            label="Elect sign by",
            help="Total magnitude, or number of ingredients.",
            is_rare=True,
        ),
        Choice(
            name="tie",
            label="Tie-break",
            help="Majority sign over the whole vector, or + (mergekit).",
            is_rare=True,
        ),
    ),
)
