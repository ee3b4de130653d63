"""WiSE-FT: between the base and what was fine-tuned from it.

(1−α)·base + α·θ (Wortsman et al. 2022, arXiv:2109.01903). Where several ingredients are named, θ is
their mean: the WiSE-FT curve of a soup (arXiv:2203.05482, Figure D.1).
"""

from collections.abc import Iterable
from fractions import Fraction

from soupcore.errors import RecipeError
from soupcore.merges import Group, Grouped
from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Number, Recipe, Text
from soupcore.sweeps import Sweep


def wise_ft(
    sweep: Sweep,
    names: Iterable[str] | None = None,
    *,
    alpha: Coefficient = Fraction(1, 2),
    keep: str = "",
) -> Soup:
    """Go from the base towards the fine-tuned ingredient, or the mean of several.

    Args:
        sweep: Where they are from; it needs a base.
        names: Which ingredients; all unless given.
        alpha: α: 0 is the base, 1 the fine-tuned end; beyond extrapolates.
        keep: Beginnings of the names of tensors that stay as trained, separated by commas, as in
            "head." The paper interpolates all, its heads being made from the base's text encoder.
            A head that every run initialised anew has nothing in common with the base's: keep it.

    Raises:
        RecipeError: There is no base, or `keep` matches no tensor or all.
        SweepError: A name is not in the sweep.
    """
    parameters = WISE_FT.check({"alpha": alpha, "keep": keep})
    chosen = needs.ingredients(WISE_FT, sweep, names)
    base = needs.base(WISE_FT, sweep)
    share = as_fraction(alpha)
    trained = dict.fromkeys(chosen, Fraction(1, len(chosen)))
    towards = {name: share * fraction for name, fraction in trained.items()}
    coefficients = {base.name: 1 - share} | towards
    if not keep.strip():
        return Soup.of(sweep, "wise_ft", parameters, coefficients, keep_zeros=True)
    kept, rest = _divide(list(base.checkpoint.tensors), keep)
    merge = Grouped(
        {
            "kept": Group(kept, sweep.mixture(trained)),
            "rest": Group(rest, sweep.mixture(coefficients)),
        }
    )
    return Soup.of_merge(sweep, "wise_ft", parameters, coefficients, merge)


def _divide(tensors: list[str], keep: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    prefixes = tuple(prefix.strip() for prefix in keep.split(",") if prefix.strip())
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in tensors):
            beginnings = sorted({name.partition(".")[0] for name in tensors})
            raise RecipeError(
                f"No tensor's name begins with {prefix!r}; they begin with "
                f"{', '.join(beginnings[:8])}{', …' if len(beginnings) > 8 else ''}."
            )
    kept = tuple(name for name in tensors if name.startswith(prefixes))
    if len(kept) == len(tensors):
        raise RecipeError(f"{keep!r} keeps every tensor, so nothing is mixed; keep fewer.")
    return kept, tuple(name for name in tensors if not name.startswith(prefixes))


WISE_FT = Recipe(
    name="wise_ft",
    title="WiSE-FT",
    summary="On the line from the base to the mean of the ingredients: robustness for accuracy.",
    paper="Wortsman et al. 2022, arXiv:2109.01903",
    function=wise_ft,
    needs_base=True,
    parameters=(
        Number(
            name="alpha",
            label="α",
            help="0 is the base, 1 the fine-tuned end. The paper's default is 0.5.",
            default=0.5,
            minimum=-1,
            maximum=2,
            step=0.05,
            curve=tuple(i / 10 for i in range(11)),
        ),
        Text(
            name="keep",
            label="Keep as trained",
            help="Beginnings of tensor names, such as head., that are not mixed with the base: "
            "for heads that were initialised anew.",
            default="",
        ),
    ),
)
