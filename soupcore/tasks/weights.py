"""How much each example, or each token of an example, counts.

Weights are relative: all of them times the same number give the same scores, and a weight of zero
leaves an example out. As scikit-learn's `sample_weight`, they enter means and sums, and are no
numbers of copies: intervals are those of n weighted examples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks.examples import Examples, Leaf, Ragged, column


def checked_weights(weights: Any, n: int) -> tuple[Tensor | None, Leaf | None]:
    """Return weights of examples, or of tokens, in the form in which they are used.

    Args:
        weights: A number for each of n examples, shape [n]; or one for each token, shape
            [n, tokens] or a list with a tensor for each example; or None.
        n: Number of examples.

    Returns:
        Weights of examples, float64, shape [n], or None; and weights of tokens, float32, or None.

    Raises:
        TaskError: There is not one for each example, one is negative or not finite, or those of all
            examples, or of the tokens of one, are zero.
    """
    if weights is None:
        return None, None
    leaf = _leaf(weights)
    if isinstance(leaf, Tensor) and leaf.ndim == 0:
        raise TaskError("The weights of a split are one for each example, not one number.")
    if len(leaf) != n:
        raise TaskError(f"A split needs one weight for each example: {n}, not {len(leaf)}.")
    values = leaf if isinstance(leaf, Tensor) else leaf.values
    if values.is_complex() or values.ndim > (2 if values is leaf else 1):
        raise TaskError(
            "The weights of a split are one number for each example, shape [n], or for each of its "
            f"tokens, shape [n, tokens]; they have shape {list(values.shape)}."
        )
    of_tokens = isinstance(leaf, Ragged) or leaf.ndim == 2
    values = values.detach().cpu().to(torch.float32 if of_tokens else torch.float64)
    wrong = (~values.isfinite() | (values < 0)).nonzero()
    if len(wrong):
        value = float(values[tuple(wrong[0])])
        raise TaskError(f"Weights are finite and not negative; the split has the weight {value:g}.")
    if not of_tokens:
        if not values.any():
            raise TaskError("All weights of the split are zero, so its scores would be undefined.")
        return values, None
    leaf = values if isinstance(leaf, Tensor) else Ragged(values, leaf.offsets)
    rows = leaf if isinstance(leaf, Tensor) else leaf.tensors(slice(None))
    without = next((row for row, each in enumerate(rows) if not each.any()), None)
    if without is not None:
        raise TaskError(
            f"All tokens of example {without} have the weight zero, so its loss is undefined. "
            "Leave the example out of the split."
        )
    return None, leaf


def _leaf(weights: Any) -> Leaf:
    try:
        if isinstance(weights, Tensor):
            return weights
        if hasattr(weights, "shape"):  # an array, or a column of a table
            return torch.as_tensor(np.asarray(weights))
        return column([torch.as_tensor(each, dtype=torch.float64) for each in weights], "weights")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(f"The weights of a split are numbers: {error}") from None


def check_tokens(weights: Leaf, inputs: Examples) -> None:
    """Check that there is a weight for each token of the inputs.

    The tokens are those of `input_ids`, or of the first tensor of the inputs.

    Raises:
        TaskError: Their shapes differ, or batches are made by a `collate`, which takes no weights.
    """
    if inputs.collate is not None:
        raise TaskError(
            "Weights of tokens need inputs that Stockpot pads, and this split has a `collate`. "
            "Leave it out, or weigh whole examples."
        )
    tokens = inputs.named("input_ids")
    if isinstance(weights, Tensor) and isinstance(tokens, Tensor):
        fits = weights.shape == tokens.shape[:2]
    else:
        fits = torch.equal(_lengths(weights), _lengths(tokens))
    if not fits:
        raise TaskError(
            "A split needs one weight for each token of its inputs, in the same shape: a tensor of "
            "shape [n, tokens], or a list with one tensor for each example."
        )


def tensors_of(*weights: Leaf | None) -> Iterator[Tensor]:
    """Return the tensors that weights consist of."""
    for leaf in weights:
        if isinstance(leaf, Ragged):
            yield from (leaf.values, leaf.offsets)
        elif leaf is not None:
            yield leaf


def _lengths(leaf: Leaf) -> Tensor:
    if isinstance(leaf, Ragged):
        return leaf.lengths
    return torch.full((len(leaf),), leaf.shape[1] if leaf.ndim > 1 else 0)
