"""From computed numbers to the exact coefficients that a soup is made and described with."""

from collections.abc import Mapping
from fractions import Fraction

_DIGITS = 9  # a change of 1e-9 in a coefficient changes no float32 weight that matters


def rounded(number: float) -> Fraction:
    """Return a computed coefficient to nine decimal places, exactly."""
    return Fraction(f"{number:.{_DIGITS}f}")


def shares(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Scale weights to sum to one, exactly, each to nine decimal places.

    What rounding leaves over goes to the largest, the first where several are.

    Args:
        weights: Finite numbers, some of which may be negative, with a sum that is positive.
    """
    total = sum(weights.values())
    found = {name: rounded(weight / total) for name, weight in weights.items()}
    found[max(found, key=lambda name: found[name])] += 1 - sum(found.values())
    return found
