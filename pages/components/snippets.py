"""What the pages do, as Python for a notebook."""

import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from types import MappingProxyType
from typing import Any

import streamlit as st

from pages.components.state import View
from soupcore import RECIPES, Soup
from soupcore.jobs.forms import Form
from soupcore.jobs.stored_soups import StoredSoup
from soupcore.recipes import Number, Recipe
from soupcore.recipes.parts import follows_recipe

FIGURES = "from soupcore import figures"
FRACTION = "from fractions import Fraction"
PANDAS = "import pandas as pd"


def show(code: str) -> None:
    """Show the Python equivalent of what the page shows."""
    with st.expander("The same in Python", icon=":material/code:"):
        st.code(code, language="python")


def opening(view: View, *imports: str) -> str:
    """Return how to open what the session looks at, with a blank line at its end.

    Args:
        view: What it looks at.
        imports: What is imported beside `soupcore`; and `FRACTION`, where its soups take that.
    """
    code = _imports(*imports, *([FRACTION] if view.soups else []))
    code += (
        f"sweep = {_sweep(view)}\n"
        f"task = soupcore.load_task({view.task_spec!r})\n"
        "evaluator = soupcore.Evaluator(task)\n"
    )
    if _is_re_estimated(view):
        code += 'evaluator = evaluator.with_statistics("re-estimated")\n'
    if view.soups:
        code += f"sweep = {_including(view.soups, indent=4)}\n"
    return f"{code}\n"


def _imports(*lines: str) -> str:
    """Return imports, `soupcore` among them: Python's own, then those of others, then ours."""

    def place(line: str) -> tuple[bool, bool, bool, str]:
        package = line.split()[1].split(".")[0]
        is_pythons = package in sys.stdlib_module_names
        return package == "soupcore", not is_pythons, line.startswith("from"), line

    ordered = sorted({"import soupcore", *lines}, key=place)
    groups = groupby(ordered, key=lambda line: place(line)[:2])
    return "".join("\n".join(group) + "\n\n" for _, group in groups)


def evaluate(view: View) -> str:
    """Return how to evaluate every ingredient."""
    return opening(view) + (
        "for name, ingredient in sweep.ingredients.items():\n"
        "    for split in task.reported:\n"
        "        evaluation = evaluator.evaluate(ingredient.mixture, split)\n"
        "        print(name, split, evaluation.score, evaluation.score_interval)\n"
    )


def recipe(view: View, recipe: Recipe, names: list[str], parameters: Mapping[str, Any]) -> str:
    """Return how to follow a recipe."""
    return opening(view) + (
        f"soup = {followed(recipe, names, parameters)}\n"
        "soup.evaluate(evaluator)\n"
        f'soup.save("{recipe.name}.safetensors")\n'
    )


def followed(
    recipe: Recipe, names: Sequence[str], parameters: Mapping[str, Any], sweep: str = "sweep"
) -> str:
    """Return an expression that follows a recipe, where `sweep` and `evaluator` are known."""
    evaluator = "evaluator, " if recipe.chooses else ""
    told = [p.name for p in recipe.parameters if p.name in parameters]
    options = "".join(f", {name}={parameters[name]!r}" for name in told)
    return f"soupcore.{recipe.name}({sweep}, {evaluator}{list(names)!r}{options})"


def soup_again(soup: Soup, soups: Mapping[str, StoredSoup] = MappingProxyType({})) -> str:
    """Return an expression that makes a soup, where `sweep` and `evaluator` are known.

    It takes `Fraction` from `fractions`.

    Args:
        soup: The soup.
        soups: The soups among its ingredients that are not in `sweep`.
    """
    sweep = _including(soups) if soups else "sweep"
    # A soup by hand of these coefficients would have other parts (see `soupcore.Parts`).
    if soup.coefficients and not follows_recipe(soup):
        terms = ", ".join(
            f"{name!r}: Fraction({str(c)!r})" for name, c in soup.coefficients.items()
        )
        return f"soupcore.manual({sweep}, {{{terms}}})"
    return followed(RECIPES[soup.recipe], soup.ingredients, soup.parameters, sweep)


def _including(soups: Mapping[str, StoredSoup], *, indent: int = 0) -> str:
    terms = [
        f"{name!r}: {soup_again(stored.soup, stored.soups)}.checkpoint"
        for name, stored in soups.items()
    ]
    if not indent:
        return f"sweep.including({{{', '.join(terms)}}})"
    lines = "".join(f"{' ' * indent}{term},\n" for term in terms)
    return f"sweep.including({{\n{lines}}})"


def curve(
    view: View, recipe: Recipe, number: Number, names: list[str], others: Mapping[str, Any], *,
    figure: str = "recipe_curve",
) -> str:  # fmt: skip
    """Return how to follow a recipe with one parameter at several values, and to draw that.

    Args:
        view: What is looked at.
        recipe: Which recipe.
        number: Its parameter.
        names: The ingredients.
        others: The other parameters.
        figure: `recipe_curve` or `trade_off`.
    """
    reports, shifts = view.task.splits_with_role("report"), view.task.splits_with_role("shift")
    options = "".join(f", {name}={value!r}" for name, value in others.items())
    code = opening(view, FIGURES, PANDAS) + (
        f"curve = soupcore.curve(\n    {recipe.name!r}, {number.name!r}, sweep, evaluator,\n"
        f"    {names!r},\n    splits=task.reported{options},\n)\n"
        'table = pd.DataFrame({"value": curve.values, "select": curve.scores()})\n'
    )
    if reports:
        code += f'table["report"] = curve.scores({reports[0]!r})\n'
    if shifts:
        code += f"by_shift = pd.DataFrame([curve.scores(split) for split in {shifts!r}])\n"
        code += 'table["mean shift"] = by_shift.mean()\n'
    return code + (
        f"best = curve.best.parameters[{number.name!r}]\n"
        f"figures.{figure}(\n"
        f"    table, parameter={number.symbol!r}, best=best, score_name=task.score_name\n"
        ").show()\n"
    )


def manual(view: View, coefficients: Mapping[str, Fraction]) -> str:
    """Return how to mix by given coefficients."""
    terms = "".join(
        f"    {name!r}: Fraction({c.numerator}, {c.denominator}),\n"
        for name, c in coefficients.items()
    )
    # Soups among the ingredients may be of recipes that evaluate.
    start = opening(view) if view.soups else f"{_imports(FRACTION)}sweep = {_sweep(view)}\n"
    return f'{start}soup = soupcore.manual(sweep, {{\n{terms}}})\nsoup.save("soup.safetensors")\n'


def rebuild(view: View, soup: Soup, form: Form) -> str:
    """Return how to make a soup's weights again, to the bit, without choosing again."""
    if soup.coefficients and _is_of_files(view, soup):
        code, _, _ = manual(view, soup.coefficients).rpartition("soup.save(")
    else:
        code = (
            _imports("import json", "from pathlib import Path")
            + f'manifest = json.loads(Path("{soup.recipe}-{soup.id}.json").read_text())\n'
            f"soup = soupcore.rebuild(manifest, {view.folder!r})\n"
        )
    if soup.estimate is not None:
        code += (
            f"task = soupcore.load_task({view.task_spec!r})\n"
            f"soup.re_estimate(soupcore.Evaluator(task), examples={soup.estimate.examples})\n"
        )
    options = {"dtype": form.dtype, "shard_size": form.shard_size}
    arguments = [form.file_name(soup), *(f"{k}={v!r}" for k, v in options.items() if v)]
    return f"{code}soup.save({', '.join([repr(arguments[0]), *arguments[1:]])})\n"


def _is_of_files(view: View, soup: Soup) -> bool:
    return view.sweep.ingredients.keys() >= set(soup.ingredients)


def _is_re_estimated(view: View) -> bool:
    return view.statistics == "re-estimated"


def _sweep(view: View) -> str:
    weights = f", weights={view.weights!r}" if view.weights else ""
    return f"soupcore.Sweep.from_folder({view.folder!r}{weights})"
