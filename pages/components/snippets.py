"""What the pages do, as Python for a notebook."""

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import streamlit as st

from pages.components import scores
from pages.components.state import View
from soupcore import RECIPES, Soup
from soupcore.jobs.forms import Form
from soupcore.jobs.stored_soups import StoredSoup
from soupcore.recipes import Number, Recipe


def show(code: str) -> None:
    """Show the Python equivalent of what the page shows."""
    with st.expander("The same in Python", icon=":material/code:"):
        st.code(code, language="python")


def opening(view: View) -> str:
    """Return how to open what the session looks at."""
    code = (
        "import soupcore\n\n"
        f"sweep = {_sweep(view)}\n"
        f"task = soupcore.load_task({view.task_spec!r})\n"
        "evaluator = soupcore.Evaluator(task)\n"
    )
    if _is_re_estimated(view):
        code += 'evaluator = evaluator.with_statistics("re-estimated")\n'
    if view.soups:
        code += f"sweep = {_including(view.soups, indent=4)}\n"
    return code


def evaluate(view: View) -> str:
    """Return how to evaluate every ingredient."""
    return opening(view) + (
        "\nfor name, ingredient in sweep.ingredients.items():\n"
        "    for split in task.reported:\n"
        "        evaluation = evaluator.evaluate(ingredient.mixture, split)\n"
        "        print(name, split, evaluation.score, evaluation.score_interval)\n"
    )


def recipe(view: View, recipe: Recipe, names: list[str], parameters: Mapping[str, Any]) -> str:
    """Return how to follow a recipe."""
    told = {p.name: parameters[p.name] for p in recipe.parameters}
    return (
        _fractions(view)
        + opening(view)
        + (
            f"\nsoup = {_followed('sweep', recipe, names, told)}\n"
            "soup.evaluate(evaluator)\n"
            f'soup.save("{recipe.name}.safetensors")\n'
        )
    )


def soup_again(soup: Soup, soups: Mapping[str, StoredSoup] = MappingProxyType({})) -> str:
    """Return an expression that makes a soup, where `sweep` and `evaluator` are known.

    It takes `Fraction` from `fractions`.

    Args:
        soup: The soup.
        soups: The soups among its ingredients that are not in `sweep`.
    """
    sweep = _including(soups) if soups else "sweep"
    if soup.coefficients:
        terms = ", ".join(
            f"{name!r}: Fraction({str(c)!r})" for name, c in soup.coefficients.items()
        )
        return f"soupcore.manual({sweep}, {{{terms}}})"
    return _followed(sweep, RECIPES[soup.recipe], soup.ingredients, soup.parameters)


def _including(soups: Mapping[str, StoredSoup], *, indent: int = 0) -> str:
    terms = [
        f"{name!r}: {soup_again(stored.soup, stored.soups)}.checkpoint"
        for name, stored in soups.items()
    ]
    if not indent:
        return f"sweep.including({{{', '.join(terms)}}})"
    lines = "".join(f"{' ' * indent}{term},\n" for term in terms)
    return f"sweep.including({{\n{lines}}})"


def _followed(sweep: str, recipe: Recipe, names: list[str], parameters: Mapping[str, Any]) -> str:
    evaluator = "evaluator, " if recipe.chooses else ""
    options = "".join(f", {name}={value!r}" for name, value in parameters.items())
    return f"soupcore.{recipe.name}({sweep}, {evaluator}{names!r}{options})"


def curve(
    view: View, recipe: Recipe, number: Number, names: list[str], others: Mapping[str, Any]
) -> str:
    """Return how to follow a recipe with one parameter at several values, and to draw that."""
    reports, shifts = view.task.splits_with_role("report"), view.task.splits_with_role("shift")
    options = "".join(f", {name}={value!r}" for name, value in others.items())
    code = _fractions(view) + "import pandas as pd\n\n" + opening(view)
    code += "from soupcore import figures\n"
    code += (
        f"\ncurve = soupcore.curve(\n    {recipe.name!r}, {number.name!r}, sweep, evaluator,\n"
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
        f"figures.recipe_curve(table, parameter={number.symbol!r}, best=best).show()\n"
    )


def manual(view: View, coefficients: Mapping[str, Fraction]) -> str:
    """Return how to mix by given coefficients."""
    terms = "".join(
        f"    {name!r}: Fraction({c.numerator}, {c.denominator}),\n"
        for name, c in coefficients.items()
    )
    # Soups among the ingredients may be of recipes that evaluate.
    start = opening(view) if view.soups else f"import soupcore\n\nsweep = {_sweep(view)}\n"
    return (
        "from fractions import Fraction\n\n"
        + start
        + f"soup = soupcore.manual(sweep, {{\n{terms}}})\n"
        + 'soup.save("soup.safetensors")\n'
    )


def evidence(view: View, soup: Soup, best: str) -> str:
    """Return how to compare a soup with the best ingredient, and to see what it owes to which."""
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    if not _is_of_files(view, soup):
        stored = next(stored for stored in scores.soups(view) if stored.soup.id == soup.id)
        view = view.including(stored.soups)
    return (
        "from fractions import Fraction\n\nfrom soupcore import analysis\n"
        + opening(view)
        + f"\nsoup = {soup_again(soup)}.evaluate(evaluator)\n"
        f"alone = evaluator.evaluate(sweep[{best!r}].mixture, {split!r})\n"
        f"print(analysis.paired(soup.evaluations[{split!r}].scores, alone.scores))\n"
        f"outputs, targets = soup.evaluations[{split!r}].outputs, task.split({split!r}).targets\n"
        "print(analysis.calibration(outputs, targets).ece)\n"
        f"parts = soupcore.Parts(sweep, soup)\n"
        f"print(analysis.shapley_values(evaluator, parts, {split!r}))\n"
    )


def rebuild(view: View, soup: Soup, form: Form) -> str:
    """Return how to make a soup's weights again, to the bit, without choosing again."""
    if soup.coefficients and _is_of_files(view, soup):
        code, _, _ = manual(view, soup.coefficients).rpartition("soup.save(")
    else:
        code = (
            "import json\nfrom pathlib import Path\n\nimport soupcore\n\n"
            f'manifest = json.loads(Path("{soup.recipe}-{soup.id}.json").read_text())\n'
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


def _fractions(view: View) -> str:
    return "from fractions import Fraction\n\n" if view.soups else ""


def _is_of_files(view: View, soup: Soup) -> bool:
    return view.sweep.ingredients.keys() >= set(soup.ingredients)


def _is_re_estimated(view: View) -> bool:
    return view.statistics == "re-estimated"


def _sweep(view: View) -> str:
    weights = f", weights={view.weights!r}" if view.weights else ""
    return f"soupcore.Sweep.from_folder({view.folder!r}{weights})"
