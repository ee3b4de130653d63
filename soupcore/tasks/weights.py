"""Weights of examples and tokens.

Weights are relative: multiplying all by one number changes no score. An example of weight zero is
left out. Like scikit-learn's `sample_weight`, weights enter means and sums. They are not counts:
intervals assume n examples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks.examples import Examples, Leaf, Ragged, column


def checked_weights(weights: Any, n: int) -> tuple[Tensor | None, Leaf | None]:
    """Validate and convert weights of examples or tokens.

    Args:
        weights: A number for each of n examples, shape [n]; or one for each token, shape
            [n, tokens] or a list with a tensor for each example; or None.
        n: Number of examples.

    Returns:
        Weights of examples, float64, shape [n], or None; and weights of tokens, float32, or None.

    Raises:
        TaskError: The number of weights is wrong, one is negative or not finite, or all weights of
            the examples, or of the tokens of one example, are zero.
    """
    if weights is None:
        return None, None
    leaf = _leaf(weights)
    if isinstance(leaf, Tensor) and leaf.ndim == 0:
        raise TaskError("A split needs one weight for each example, not one number.")
    if len(leaf) != n:
        raise TaskError(f"A split needs one weight for each example: {n}, not {len(leaf)}.")
    values = leaf if isinstance(leaf, Tensor) else leaf.values
    if values.is_complex() or values.ndim > (2 if values is leaf else 1):
        raise TaskError(
            "A split needs one weight for each example, shape [n], or for each token, shape "
            f"[n, tokens]; its weights have shape {list(values.shape)}."
        )
    of_tokens = isinstance(leaf, Ragged) or leaf.ndim == 2
    values = values.detach().cpu().to(torch.float32 if of_tokens else torch.float64)
    wrong = (~values.isfinite() | (values < 0)).nonzero()
    if len(wrong):
        value = float(values[tuple(wrong[0])])
        raise TaskError(
            f"Weights must be finite and not negative; the split has the weight {value:g}."
        )
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
        raise TaskError(f"The weights of a split must be numbers: {error}") from None


def check_tokens(weights: Leaf, inputs: Examples) -> None:
    """Check that there is a weight for each token of the inputs.

    The tokens are those of `input_ids`, or of the first tensor of the inputs.

    Raises:
        TaskError: Their shapes differ, or batches are made by a `collate`, which takes no weights.
    """
    if inputs.collate is not None:
        raise TaskError(
            "Weights of tokens need inputs that Stockpot pads, but this split has a `collate`. "
            "Leave it out, or give weights of whole examples."
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
    """Return the tensors of the weights."""
    for leaf in weights:
        if isinstance(leaf, Ragged):
            yield from (leaf.values, leaf.offsets)
        elif leaf is not None:
            yield leaf


def _lengths(leaf: Leaf) -> Tensor:
    if isinstance(leaf, Ragged):
        return leaf.lengths
    return torch.full((len(leaf),), leaf.shape[1] if leaf.ndim > 1 else 0)
