"""WiSE-FT: interpolation between the base and fine-tuned weights.

(1−α)·base + α·θ (Wortsman et al. 2022, arXiv:2109.01903). For several ingredients, θ is their mean,
which gives the WiSE-FT curve of a soup (arXiv:2203.05482, Figure D.1).
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
    """Interpolate between the base and a fine-tuned ingredient, or the mean of several.

    Args:
        sweep: A sweep with a base.
        names: Ingredients to use; by default, all.
        alpha: α: 0 is the base, 1 the fine-tuned weights. Values outside [0, 1] extrapolate.
        keep: Tensor-name prefixes, such as "head.", separated by commas. These tensors come from
            the fine-tuned weights unchanged. Use it for heads that were newly initialised, which
            have nothing in common with the base's. The paper interpolates all tensors, since its
            heads come from the base's text encoder.

    Raises:
        RecipeError: There is no base, or `keep` matches no tensor or all tensors.
        SweepError: A name is not in the sweep.
    """
    parameters = WISE_FT.check({"alpha": alpha, "keep": keep})
    sweep, chosen = needs.ingredients(WISE_FT, sweep, names)
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
                f"No tensor name starts with {prefix!r}. Available prefixes: "
                f"{', '.join(beginnings[:8])}{', …' if len(beginnings) > 8 else ''}."
            )
    kept = tuple(name for name in tensors if name.startswith(prefixes))
    if len(kept) == len(tensors):
        raise RecipeError(
            f"{keep!r} matches every tensor, so nothing would be interpolated. Use a narrower "
            "prefix."
        )
    return kept, tuple(name for name in tensors if not name.startswith(prefixes))


WISE_FT = Recipe(
    name="wise_ft",
    title="WiSE-FT",
    summary="Interpolate between the base and the average of the ingredients, trading accuracy for "
    "robustness.",
    paper="Wortsman et al. 2022, arXiv:2109.01903",
    function=wise_ft,
    needs_base=True,
    parameters=(
        Number(
            name="alpha",
            label="Interpolation α",
            help="0 = base, 1 = average of fine-tuned ingredients. Paper default: 0.5.",
            minimum=-1,
            maximum=2,
            step=0.05,
            curve=tuple(i / 10 for i in range(11)),
        ),
        Text(
            name="keep",
            label="Do not interpolate",
            help="Tensor-name prefixes (e.g. `head.`) to take from the ingredients unchanged; for "
            "newly initialised heads.",
            is_rare=True,
        ),
    ),
)
