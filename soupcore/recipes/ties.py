"""TIES-Merging: trim, elect signs, merge (Yadav et al. 2023, arXiv:2306.01708, Algorithm 1).

1. Trim: of each task vector θᵢ − base, keep the entries with the largest magnitudes.
2. Elect: for each entry, the sign with the larger total.
3. Merge: for each entry, the mean of those that are kept and have that sign; λ times it is added to
   the base.

The paper trims over the whole vector, mergekit and PEFT tensor by tensor: `trim`. Where the totals
are equal the paper says nothing; its code takes the sign that most entries of the whole vector
have, mergekit +: `tie`. For a share of n that is no whole number the paper says nothing; here it is
rounded down, and all entries as large as the last one kept are kept. (The paper's code keeps one
entry more than that, mergekit exactly that many.)
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
    """Merge what the task vectors agree on.

    Args:
        sweep: Where the ingredients are from; it needs a base.
        names: Which of them; all unless given.
        density: The share of each task vector that is kept, in (0, 1].
        scale: λ. The paper's default is 1; it chooses on held-out data from 0.8 to 2.5.
        trim: The share is of the whole vector (`global`, the paper) or of each `tensor`.
        vote: For the sign counts the `magnitude` (the paper), or only the `count` of ingredients.
        tie: The sign where the votes are equal: that of the `majority` of all entries, or
            `positive`.

    Raises:
        RecipeError: There is no base, or a parameter is out of range.
        SweepError: A name is not in the sweep.
    """
    parameters = TIES.check(
        {"density": density, "scale": scale, "trim": trim, "vote": vote, "tie": tie}
    )
    chosen = needs.ingredients(TIES, sweep, names)
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
    summary="Of each task vector the largest entries; of these, those with the elected sign.",
    paper="Yadav et al. 2023, arXiv:2306.01708",
    function=ties,
    needs_base=True,
    parameters=(
        Number(
            name="density",
            label="Share kept k",
            help="Of each task vector, the share of entries with the largest magnitudes.",
            default=0.2,
            minimum=0.001,
            maximum=1,
            step=0.05,
            curve=(0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1),
        ),
        Number(
            name="scale",
            label="λ",
            help="How far to go along the merged task vector.",
            default=1.0,
            minimum=0,
            maximum=5,
            step=0.1,
            curve=tuple(i / 10 for i in range(8, 26)),
        ),
        Choice(
            name="trim",
            label="Trim",
            help="Over the whole vector as in the paper, or tensor by tensor as in mergekit.",
            default="global",
            choices=("global", "tensor"),
        ),
        Choice(
            name="vote",
            label="Vote by",
            help="For the sign of an entry counts its magnitude, or only how many have it.",
            default="magnitude",
            choices=("magnitude", "count"),
        ),
        Choice(
            name="tie",
            label="Equal votes",
            help="The sign that most entries of the whole vector have, or + as in mergekit.",
            default="majority",
            choices=("majority", "positive"),
        ),
    ),
)
