"""Rounding of computed coefficients to the exact fractions that define soups."""

from collections.abc import Mapping
from fractions import Fraction

_DIGITS = 9  # smaller changes of a coefficient are below the precision of float32 weights


def rounded(number: float) -> Fraction:
    """Return a computed coefficient rounded to nine decimal places, as a fraction."""
    return Fraction(f"{number:.{_DIGITS}f}")


def shares(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Scale weights to sum to exactly one, each rounded to nine decimal places.

    The rounding remainder is added to the largest, or to the first of several largest.

    Args:
        weights: Finite numbers with a positive sum. Some may be negative.
    """
    total = sum(weights.values())
    fractions = {name: rounded(weight / total) for name, weight in weights.items()}
    fractions[max(fractions, key=lambda name: fractions[name])] += 1 - sum(fractions.values())
    return fractions
