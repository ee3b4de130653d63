"""Generated Python code: pieces of source with their imports, and soups as expressions."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

from soupcore.recipes import RECIPES, Soup
from soupcore.recipes.parts import follows_recipe
from soupcore.stored_soups import StoredSoup
from soupcore.sweeps import TensorRule

_FRACTION = "from fractions import Fraction"
ANALYSIS = "from soupcore import analysis"
CROSS_FIT_LEARNED = "from soupcore.recipes import cross_fit_learned"
COMBINATIONS = "from itertools import combinations"


@dataclass(frozen=True)
class Code:
    """Python source: statements and their imports.

    Attributes:
        body: The statements. They may use `soupcore`, `sweep`, `task` and `evaluator`.
        imports: Lines such as "from soupcore import figures".
    """

    body: str
    imports: tuple[str, ...] = ()

    def __add__(self, other: "Code") -> "Code":
        """Return the concatenation of both."""
        return Code(self.body + other.body, (*self.imports, *other.imports))


def source(code: Code) -> str:
    """Return the text of code with its imports, including `Fraction` if used."""
    needed = (_FRACTION,) if "Fraction(" in code.body else ()
    return _import_lines([*code.imports, *needed]) + code.body


def options(values: Mapping[str, Any]) -> str:
    """Return keyword arguments to append to others, such as ", accept='>'"."""
    return "".join(f", {name}={value!r}" for name, value in values.items())


def followed(
    recipe: str,
    names: Sequence[str],
    parameters: Mapping[str, Any],
    sweep: str = "sweep",
    evaluator: str = "evaluator",
) -> str:
    """Return an expression that follows a recipe, given `sweep` and `evaluator`."""
    known = RECIPES[recipe]
    evaluator = f"{evaluator}, " if known.chooses else ""
    given = {p.name: parameters[p.name] for p in known.parameters if p.name in parameters}
    return f"soupcore.{recipe}({sweep}, {evaluator}{list(names)!r}{options(given)})"


def fractions(coefficients: Mapping[str, object]) -> str:
    """Return a dict of exact coefficients by name, given `Fraction`."""
    terms = ", ".join(f"{name!r}: Fraction({str(c)!r})" for name, c in coefficients.items())
    return f"{{{terms}}}"


def soup_again(soup: Soup, soups: Mapping[str, StoredSoup] = MappingProxyType({})) -> str:
    """Return an expression that rebuilds a soup, given `sweep`, `evaluator` and `Fraction`.

    Args:
        soup: The soup.
        soups: Soups among its ingredients that are not in `sweep`.
    """
    sweep = including_soups(soups) if soups else "sweep"
    if soup.fixed and soup.rule != TensorRule():
        sweep += with_tensors(TensorRule(soup.rule.take, tuple(soup.fixed[0].coefficients)))
    # A manual soup of these coefficients would have other sub-soups (see `soupcore.Parts`).
    if soup.coefficients and not follows_recipe(soup):
        return f"soupcore.manual({sweep}, {fractions(soup.coefficients)})"
    recipe, parameters = soup.recipe, soup.parameters
    if soup.passes:  # it may have been stopped early; the first pass is the start
        passes = soup.passes[-1].number
        recipe, parameters = recipe if passes else "uniform", parameters | {"passes": passes}
    evaluator = "evaluator"
    if parameters.get("optimizer") == "cma":  # only this optimiser uses the score
        evaluator += f".with_primary({soup.primary!r})"
    return followed(recipe, soup.ingredients, parameters, sweep, evaluator)


def including_soups(soups: Mapping[str, StoredSoup], *, indent: int = 0) -> str:
    """Return an expression for `sweep` with soups as additional ingredients, given `Fraction`."""
    terms = [
        f"{name!r}: {soup_again(stored.soup, stored.soups)}.checkpoint"
        for name, stored in soups.items()
    ]
    if not indent:
        return f"sweep.including({{{', '.join(terms)}}})"
    lines = "".join(f"{' ' * indent}{term},\n" for term in terms)
    return f"sweep.including({{\n{lines}}})"


def with_tensors(rule: TensorRule) -> str:
    """Return `.with_tensors(...)` as source."""
    rest = f", rest={list(rule.rest)!r}" if rule.rest else ""
    return f".with_tensors({rule.take!r}{rest})"


def _import_lines(imports: Iterable[str]) -> str:
    """Return sorted imports, including `soupcore`: standard library, third party, `soupcore`."""

    def order(line: str) -> tuple[bool, bool, bool, str]:
        package = line.split()[1].split(".")[0]
        is_standard = package in sys.stdlib_module_names
        return package == "soupcore", not is_standard, line.startswith("from"), line

    ordered = sorted({"import soupcore", *imports}, key=order)
    groups = groupby(ordered, key=lambda line: order(line)[:2])
    return "".join("\n".join(group) + "\n\n" for _, group in groups)
