"""Model Stock: from the mean of a few towards the centre of many (arXiv:2403.19522).

Jang et al. 2024: fine-tuned weights lie on a shell around a centre that more of them would average
to, and the angle θ between the task vectors of k of them, seen from the base, tells how far the
centre is: for each tensor t·mean + (1−t)·base with t = k·cosθ / (1 + (k−1)·cosθ).

The paper speaks of the angle, so θ is the mean of the pairwise angles; mergekit takes the mean of
the cosines: `similarity`. As cosθ nears −1/(k−1) the formula runs off to infinity, and below 0 it
leads away from the mean: t is held between 0 (the base) and 1 (the mean).
"""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np

from soupcore.merges import Group, Grouped
from soupcore.merges.inner_products import Matrix, inner_products
from soupcore.recipes import needs
from soupcore.recipes.shares import rounded
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Recipe
from soupcore.sweeps import Sweep

Similarity = Literal["angle", "cosine"]


def model_stock(
    sweep: Sweep, names: Iterable[str] | None = None, *, similarity: Similarity = "angle"
) -> Soup:
    """Average each tensor and move it towards the base as far as the angles tell.

    Tensors that are not floats, and those that no ingredient changed, come from the mean.

    Args:
        sweep: Where the ingredients are from; it needs a base.
        names: Which of them; all unless given. One alone stays as it is.
        similarity: `angle`: cosθ of the mean angle (the paper); `cosine`: the mean of the cosines.

    Raises:
        RecipeError: There is no base.
        SweepError: A name is not in the sweep.
    """
    parameters = MODEL_STOCK.check({"similarity": similarity})
    chosen = needs.ingredients(MODEL_STOCK, sweep, names)
    base = needs.base(MODEL_STOCK, sweep)
    # In an order that does not depend on names, so that the sums of products do not either.
    checkpoints = sorted((sweep[name].checkpoint for name in chosen), key=lambda c: c.digest)
    products = inner_products(checkpoints, base.checkpoint)
    groups = {}
    for tensor in base.checkpoint.tensors:
        ratio = rounded(_ratio(products[tensor], similarity) if tensor in products else 1.0)
        coefficients = {base.name: 1 - ratio} | dict.fromkeys(chosen, ratio / len(chosen))
        groups[tensor] = Group((tensor,), sweep.mixture(coefficients))
    names_used = [*chosen, base.name]
    return Soup.of_merge(sweep, "model_stock", parameters, names_used, Grouped(groups))


def _ratio(products: Matrix, similarity: Similarity) -> float:
    """Return t of one tensor, from the inner products of its task vectors."""
    k = len(products)
    norms = np.sqrt(np.diag(products))
    pairs = [(i, j) for i in range(k) for j in range(i) if norms[i] and norms[j]]
    if not pairs:  # one ingredient, or no two that moved: no angle
        return 1.0
    cosines = np.clip([products[pair] / (norms[pair[0]] * norms[pair[1]]) for pair in pairs], -1, 1)
    if similarity == "cosine":
        cosine = float(cosines.mean())
    else:
        cosine = math.cos(np.arccos(cosines).mean())
    return k * max(cosine, 0.0) / (1 + (k - 1) * max(cosine, 0.0))


MODEL_STOCK = Recipe(
    name="model_stock",
    title="Model Stock",
    summary="The mean, each tensor moved towards the base as far as the angles between runs tell.",
    paper="Jang et al. 2024, arXiv:2403.19522",
    function=model_stock,
    needs_base=True,
    parameters=(
        Choice(
            name="similarity",
            label="Similarity",
            help="The cosine of the mean angle as in the paper, or the mean cosine as in mergekit.",
            default="angle",
            choices=("angle", "cosine"),
        ),
    ),
)
