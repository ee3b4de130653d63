"""Model Stock: interpolate each tensor between the base and the average (arXiv:2403.19522).

Jang et al. 2024 observe that fine-tuned weights lie on a thin shell around a centre, and that the
angle θ between the task vectors of k of them determines the point closest to this centre: for each
tensor t·mean + (1−t)·base with t = k·cosθ / (1 + (k−1)·cosθ).

The paper uses one angle, taken here as the mean of the pairwise angles. mergekit uses the mean of
the cosines instead (`similarity`). The formula diverges as cosθ approaches −1/(k−1), and leads away
from the mean below cosθ = 0, so t is clamped between 0 (the base) and 1 (the mean).
"""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np

from soupcore.inner_products import Floats, gram_matrices
from soupcore.merges import Group, Grouped
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Recipe
from soupcore.sweeps import Sweep

Similarity = Literal["angle", "cosine"]


def model_stock(
    sweep: Sweep, names: Iterable[str] | None = None, *, similarity: Similarity = "angle"
) -> Soup:
    """Interpolate each tensor between the base and the average, with a ratio set by the angles.

    Tensors that are not floats, and those that no ingredient changed, come from the mean.

    Args:
        sweep: A sweep with a base.
        names: Ingredients to use; by default, all. A single ingredient is returned unchanged.
        similarity: `angle`: cosine of the mean angle (the paper); `cosine`: mean of the cosines
            (mergekit).

    Raises:
        RecipeError: There is no base.
        SweepError: A name is not in the sweep.
    """
    parameters = MODEL_STOCK.check({"similarity": similarity})
    sweep, chosen = needs.ingredients(MODEL_STOCK, sweep, names)
    base = needs.base(MODEL_STOCK, sweep)
    # The order must not depend on names, because it affects the rounding of sums.
    checkpoints = sorted((sweep[name].checkpoint for name in chosen), key=lambda c: c.digest)
    products = gram_matrices(checkpoints, base.checkpoint)
    groups = {}
    for tensor in base.checkpoint.tensors:
        ratio = needs.rounded(_ratio(products[tensor], similarity) if tensor in products else 1.0)
        coefficients = {base.name: 1 - ratio} | dict.fromkeys(chosen, ratio / len(chosen))
        groups[tensor] = Group((tensor,), sweep.mixture(coefficients))
    names_used = [*chosen, base.name]
    return Soup.of_merge(sweep, "model_stock", parameters, names_used, Grouped(groups))


def _ratio(products: Floats, similarity: Similarity) -> float:
    """Return t of one tensor from the inner products of its task vectors."""
    k = len(products)
    norms = np.sqrt(np.diag(products))
    pairs = [(i, j) for i in range(k) for j in range(i) if norms[i] and norms[j]]
    if not pairs:  # no angle without two ingredients that differ from the base
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
    summary="Interpolate each tensor between the base and the average, with a ratio set by the "
    "angle between ingredients.",
    paper="Jang et al. 2024, arXiv:2403.19522",
    function=model_stock,
    needs_base=True,
    parameters=(
        Choice(
            name="similarity",
            label="Similarity",
            help="Cosine of the mean angle (paper) or mean cosine (mergekit).",
            is_rare=True,
        ),
    ),
)
