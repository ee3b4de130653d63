"""DARE: drop and rescale, then merge (Yu et al. 2023, arXiv:2311.03099).

Each entry of a task vector θᵢ − base is set to zero with probability p, the others are divided by
1 − p; then the vectors are averaged, summed as in task arithmetic, or merged by elected signs.

With `ties` the paper's experiments run the whole of TIES, its trimming too, on what DARE left. With
p above TIES' own share to trim that changes nothing, and mergekit leaves it out; so does this. (The
rescaling is the paper's. mergekit's default for other sparsifiers, matching a norm, is not used.)
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
        sweep: Where the ingredients are from; it needs a base.
        names: Which of them; all unless given.
        drop: p, in [0, 1). The paper goes up to 0.9 and, for large networks, 0.99.
        combine: `mean`, `sum` or `ties`.
        scale: λ, by which the result is multiplied before it is added to the base.
        seed: With the ingredient's digest and the tensor's name it says which entries are dropped.

    Raises:
        RecipeError: There is no base, or a parameter is out of range.
        SweepError: A name is not in the sweep.
    """
    parameters = DARE.check({"drop": drop, "combine": combine, "scale": scale, "seed": seed})
    chosen = needs.ingredients(DARE, sweep, names)
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
    summary="Entries of the task vectors dropped at random, the rest rescaled and combined.",
    paper="Yu et al. 2023, arXiv:2311.03099",
    function=dare,
    needs_base=True,
    parameters=(
        Number(
            name="drop",
            label="Drop rate p",
            help="The probability that an entry is dropped; the others are divided by 1 − p.",
            default=0.5,
            minimum=0,
            maximum=0.999,
            step=0.05,
            curve=(0, 0.1, 0.3, 0.5, 0.7, 0.9),
        ),
        Choice(
            name="combine",
            label="Combine by",
            help="The mean, the sum (task arithmetic), or the mean of elected signs (TIES).",
            default="mean",
            choices=("mean", "sum", "ties"),
        ),
        Number(
            name="scale",
            label="λ",
            help="How far to go along the combined task vector.",
            default=1.0,
            minimum=0,
            maximum=5,
            step=0.1,
            curve=tuple(i / 10 for i in range(1, 16)),
        ),
        Number(
            name="seed",
            label="Seed",
            help="Which entries are dropped.",
            default=0,
            minimum=0,
            maximum=2**31 - 1,
            step=1,
        ),
    ),
)
