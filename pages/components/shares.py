"""What a soup is made of, in words."""

from fractions import Fraction

from soupcore import Soup

_SHORT = 8  # characters of a fraction that reads at a glance


def share(coefficient: Fraction) -> str:
    """Return a coefficient as text: the fraction where it is short, else a decimal number."""
    exact = str(coefficient)
    return exact if len(exact) <= _SHORT else f"{float(coefficient):.4f}"


def describe(soup: Soup) -> str:
    """Return what a soup is made of."""
    if soup.coefficients:
        return ", ".join(f"{name} × {share(c)}" for name, c in soup.coefficients.items())
    sources = [*soup.ingredients, *([soup.base] if soup.base else [])]
    return f"computed weight by weight from {', '.join(sources)}"
