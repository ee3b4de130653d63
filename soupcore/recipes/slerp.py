"""SLERP: spherical linear interpolation between two networks (Shoemake 1985, SIGGRAPH).

The result is sin((1−t)Ω)/sinΩ·θ₀ + sin(tΩ)/sinΩ·θ₁, where Ω is the angle between the two, tensor by
tensor as in mergekit, or between the whole vectors. For nearly parallel or opposite vectors
(|cosΩ| > 0.9995) it is the linear interpolation (1−t)·θ₀ + t·θ₁, as sinΩ is close to 0.
"""

import math
from collections.abc import Iterable
from fractions import Fraction

from soupcore.inner_products import Floats, gram_matrices
from soupcore.merges import Group, Grouped
from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Number, Recipe, Switch
from soupcore.sweeps import Sweep

_STRAIGHT = 0.9995  # |cosine| above which interpolation is linear


def slerp(
    sweep: Sweep,
    names: Iterable[str] | None = None,
    *,
    t: Coefficient = Fraction(1, 2),
    whole: bool = False,
) -> Soup:
    """Interpolate between two networks along the great circle.

    Args:
        sweep: The sweep.
        names: Two ingredients. The first is the one that comes first in the sweep.
        t: 0 is the first network, 1 the second.
        whole: Use one angle for the whole weight vector instead of one per tensor.

    Raises:
        RecipeError: There are not exactly two ingredients.
        SweepError: A name is not in the sweep.
    """
    parameters = SLERP.check({"t": t, "whole": whole})
    sweep, (start, end) = needs.ingredients(SLERP, sweep, names)
    products = gram_matrices([sweep[start].checkpoint, sweep[end].checkpoint])
    if whole:
        products = dict.fromkeys(products, sum(products.values()))  # type: ignore[arg-type]
    share = as_fraction(t)
    straight = (1 - share, share)
    groups = {}
    for tensor in sweep[start].checkpoint.tensors:
        ends = _ends(products[tensor], share) if tensor in products else straight
        mixture = sweep.mixture(dict(zip((start, end), ends, strict=True)))
        groups[tensor] = Group((tensor,), mixture)
    return Soup.of_merge(sweep, "slerp", parameters, [start, end], Grouped(groups))


def _ends(products: Floats, t: Fraction) -> tuple[Fraction, Fraction]:
    """Return the coefficients of the two networks from their inner products."""
    norms = math.sqrt(products[0, 0] * products[1, 1])
    cosine = products[0, 1] / norms if norms else 1.0
    if abs(cosine) > _STRAIGHT:
        return 1 - t, t
    angle = math.acos(cosine)
    return (
        needs.rounded(math.sin(float(1 - t) * angle) / math.sin(angle)),
        needs.rounded(math.sin(float(t) * angle) / math.sin(angle)),
    )


SLERP = Recipe(
    name="slerp",
    title="SLERP",
    summary="Spherical interpolation between two networks (preserves norm).",
    paper="Shoemake 1985, SIGGRAPH",
    function=slerp,
    takes=(2, 2),
    parameters=(
        Number(
            name="t",
            label="t",
            help="0 = first network, 1 = second.",
            minimum=0,
            maximum=1,
            step=0.05,
            curve=tuple(i / 10 for i in range(11)),
        ),
        Switch(
            name="whole",
            label="Single global angle",
            help="Use one angle for the whole weight vector instead of one per tensor.",
            is_rare=True,
        ),
    ),
)
