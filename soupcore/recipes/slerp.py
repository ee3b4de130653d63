"""SLERP: the great circle between two networks (Shoemake 1985, SIGGRAPH).

sin((1−t)Ω)/sinΩ·θ₀ + sin(tΩ)/sinΩ·θ₁ with Ω the angle between the two, tensor by tensor as mergekit
does, or of the whole vectors. Where they point the same or opposite ways (|cosΩ| > 0.9995) there is
no one circle or it is straight, and the result is (1−t)·θ₀ + t·θ₁.
"""

import math
from collections.abc import Iterable
from fractions import Fraction

from soupcore.merges import Group, Grouped
from soupcore.merges.inner_products import Matrix, inner_products
from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes import needs
from soupcore.recipes.shares import rounded
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Number, Recipe, Switch
from soupcore.sweeps import Sweep

_STRAIGHT = 0.9995  # |cosine| above which the circle is taken for a line


def slerp(
    sweep: Sweep,
    names: Iterable[str] | None = None,
    *,
    t: Coefficient = Fraction(1, 2),
    whole: bool = False,
) -> Soup:
    """Go along the great circle from one network to another.

    Args:
        sweep: Where they are from.
        names: The two; t counts from the first in the sweep's order.
        t: 0 is the first, 1 the second.
        whole: Take the angle between the whole vectors, not of each tensor.

    Raises:
        RecipeError: They are not two.
        SweepError: A name is not in the sweep.
    """
    parameters = SLERP.check({"t": t, "whole": whole})
    start, end = needs.ingredients(SLERP, sweep, names)
    products = inner_products([sweep[start].checkpoint, sweep[end].checkpoint])
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


def _ends(products: Matrix, t: Fraction) -> tuple[Fraction, Fraction]:
    """Return the coefficients of the two ends, from their inner products."""
    norms = math.sqrt(products[0, 0] * products[1, 1])
    cosine = products[0, 1] / norms if norms else 1.0
    if abs(cosine) > _STRAIGHT:
        return 1 - t, t
    angle = math.acos(cosine)
    return (
        rounded(math.sin(float(1 - t) * angle) / math.sin(angle)),
        rounded(math.sin(float(t) * angle) / math.sin(angle)),
    )


SLERP = Recipe(
    name="slerp",
    title="SLERP",
    summary="On the great circle between two networks, which keeps their norm.",
    paper="Shoemake 1985, SIGGRAPH",
    function=slerp,
    takes=(2, 2),
    parameters=(
        Number(
            name="t",
            label="t",
            help="0 is the first of the two, 1 the second.",
            default=0.5,
            minimum=0,
            maximum=1,
            step=0.05,
            curve=tuple(i / 10 for i in range(11)),
        ),
        Switch(
            name="whole",
            label="One angle for all",
            help="Take the angle between the whole vectors, not of each tensor.",
            default=False,
        ),
    ),
)
