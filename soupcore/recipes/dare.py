"""DARE: drop and rescale, then merge (Yu et al. 2023, arXiv:2311.03099).

Each entry of a task vector θᵢ − base is set to zero with probability p, and the others are divided
by 1 − p. The vectors are then averaged, summed as in task arithmetic, or merged as in TIES.

With `ties`, the paper's experiments also apply the trimming of TIES to the result of DARE. That has
no effect if p exceeds the fraction that TIES trims, so it is omitted here, as in mergekit. The
rescaling is the paper's; mergekit's default for other sparsifiers matches a norm instead.
"""

from collections.abc import Iterable
from fractions import Fraction

from soupcore.merges import Dare
from soupcore.merges.dare import Combine
from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe
from soupcore.sweeps import Sweep


def dare(
    sweep: Sweep,
    names: Iterable[str] | None = None,
    *,
    drop: Coefficient = Fraction(1, 2),
    combine: Combine = "mean",
    scale: Coefficient = 1,
    seed: int = 0,
) -> Soup:
    """Drop entries of the task vectors at random, rescale the rest, and combine them.

    Args:
        sweep: A sweep with a base.
        names: Ingredients to use; by default, all.
        drop: p in [0, 1). The paper uses up to 0.9, or 0.99 for large networks.
        combine: `mean`, `sum` or `ties`.
        scale: λ, the factor of the combined task vector.
        seed: Seed of the random masks. A mask also depends on the ingredient's digest and the
            tensor's name.

    Raises:
        RecipeError: There is no base, or a parameter is out of range.
        SweepError: A name is not in the sweep.
    """
    parameters = DARE.check({"drop": drop, "combine": combine, "scale": scale, "seed": seed})
    sweep, chosen = needs.ingredients(DARE, sweep, names)
    base = needs.base(DARE, sweep)
    merge = Dare(
        base.checkpoint,
        [sweep[name].checkpoint for name in chosen],
        drop=as_fraction(drop),
        combine=combine,
        scale=as_fraction(scale),
        seed=seed,
        vote="magnitude",
        tie="majority",
    )
    return Soup.of_merge(sweep, "dare", parameters, [*chosen, base.name], merge)


DARE = Recipe(
    name="dare",
    title="DARE",
    summary="Randomly drop task-vector entries, rescale the rest by 1/(1−p), and combine.",
    paper="Yu et al. 2023, arXiv:2311.03099",
    function=dare,
    needs_base=True,
    parameters=(
        Number(
            name="drop",
            label="Drop rate p",
            help="Drop probability p; kept entries are divided by 1 − p.",
            minimum=0,
            maximum=0.999,
            step=0.05,
            curve=(0, 0.1, 0.3, 0.5, 0.7, 0.9),
        ),
        Choice(
            name="combine",
            label="Merge method",
            help="Mean, sum (task arithmetic) or TIES.",
        ),
        Number(
            name="scale",
            label="Scaling λ",
            help="Scaling of the merged task vector.",
            minimum=0,
            maximum=5,
            step=0.1,
            curve=tuple(i / 10 for i in range(1, 16)),
        ),
        Number(
            name="seed",
            label="Seed",
            help="Seed of the random mask.",
            minimum=0,
            maximum=2**31 - 1,
            step=1,
            is_rare=True,
        ),
    ),
)
