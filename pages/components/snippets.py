"""Python that reproduces the pages: soups, recipes, scores and their figures.

Each text runs by itself.
"""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from types import MappingProxyType
from typing import Any

import streamlit as st

from pages.components.state import View
from soupcore import RECIPES, Mixture, Soup
from soupcore.recipes import Number, Recipe
from soupcore.recipes.parts import follows_recipe
from soupcore.stored_soups import StoredSoup
from soupcore.sweeps import TensorRule
from soupcore.sweeps.snapshots import snapshots_from_text
from soupcore.writers.forms import Form

FIGURES = "from soupcore import figures"
FRACTION = "from fractions import Fraction"
PANDAS = "import pandas as pd"
SCORE = "score_name=task.score_name, score_unit=task.score_unit"
_ANALYSIS = "from soupcore import analysis, figures"


def show(code: str) -> None:
    """Show the Python that reproduces the page."""
    with st.expander("Reproduce in Python", icon=":material/code:"):
        st.code(code, language="python")


def opening(view: View, *imports: str) -> str:
    """Return Python that opens the view's sweep, task and evaluator, with a blank line at its end.

    Without a task it opens the sweep only.

    Args:
        view: The view.
        imports: Imports in addition to `soupcore`, and to `FRACTION` if the view has soups.
    """
    code = _imports(*imports, *([FRACTION] if view.soups else []))
    code += f"sweep = {_sweep(view)}\n"
    if view.has_task:
        code += (
            f"task = soupcore.load_task({view.task_spec!r})\nevaluator = soupcore.Evaluator(task)\n"
        )
    if _is_re_estimated(view):
        code += 'evaluator = evaluator.with_statistics("re-estimated")\n'
    if view.soups:
        code += f"sweep = {_including(view.soups, indent=4)}\n"
    if view.sweep.rule != TensorRule():
        code += f"sweep = sweep{_with_tensors(view.sweep.rule)}\n"
    return f"{code}\n"


def _imports(*lines: str) -> str:
    """Return sorted imports, including `soupcore`: standard library, third party, `soupcore`."""

    def place(line: str) -> tuple[bool, bool, bool, str]:
        package = line.split()[1].split(".")[0]
        is_pythons = package in sys.stdlib_module_names
        return package == "soupcore", not is_pythons, line.startswith("from"), line

    ordered = sorted({"import soupcore", *lines}, key=place)
    groups = groupby(ordered, key=lambda line: place(line)[:2])
    return "".join("\n".join(group) + "\n\n" for _, group in groups)


def ingredients(view: View) -> str:
    """Return Python that prints the hyperparameters and logged metrics of every ingredient."""
    return opening(view) + (
        "for name, ingredient in sweep.ingredients.items():\n"
        "    print(name, ingredient.hyperparameters, ingredient.logged_metrics)\n"
    )


def logged_overview(
    view: View, names: Sequence[str], metric: str, selected: Collection[str]
) -> str:
    """Return Python that draws a logged metric of ingredients."""
    return opening(view, FIGURES, "from soupcore.figures import tables") + (
        f"metric, names = {metric!r}, {list(names)!r}\n"
        "values = {name: sweep[name].logged_metrics[metric] for name in names}\n"
        "figures.logged_overview(\n"
        "    tables.logged_table(values), figures.colours(sweep.ingredients), metric=metric"
        f"{_selected(selected)},\n"
        ").show()\n"
    )


def evaluate(view: View) -> str:
    """Return Python that evaluates every ingredient."""
    return opening(view) + (
        "for name, ingredient in sweep.ingredients.items():\n"
        "    for split in task.reported:\n"
        "        evaluation = evaluator.evaluate(ingredient.mixture, split)\n"
        "        print(name, split, evaluation.score, evaluation.score_interval)\n"
    )


def recipe(view: View, recipe: Recipe, names: list[str], parameters: Mapping[str, Any]) -> str:
    """Return Python that follows a recipe and saves the soup."""
    return opening(view) + (
        f"soup = {followed(recipe, names, parameters)}\n"
        + ("soup.evaluate(evaluator)\n" if view.has_task else "")
        + f'soup.save("{recipe.name}.safetensors")\n'
    )


def followed(
    recipe: Recipe, names: Sequence[str], parameters: Mapping[str, Any], sweep: str = "sweep"
) -> str:
    """Return an expression that follows a recipe, given `sweep` and `evaluator`."""
    evaluator = "evaluator, " if recipe.chooses else ""
    named = [p.name for p in recipe.parameters if p.name in parameters]
    options = "".join(f", {name}={parameters[name]!r}" for name in named)
    return f"soupcore.{recipe.name}({sweep}, {evaluator}{list(names)!r}{options})"


def soup_again(soup: Soup, soups: Mapping[str, StoredSoup] = MappingProxyType({})) -> str:
    """Return an expression that rebuilds a soup, given `sweep`, `evaluator` and `Fraction`.

    Args:
        soup: The soup.
        soups: Soups among its ingredients that are not in `sweep`.
    """
    sweep = _including(soups) if soups else "sweep"
    if soup.fixed and soup.rule != TensorRule():
        sweep += _with_tensors(TensorRule(soup.rule.take, tuple(soup.fixed[0].coefficients)))
    # A manual soup of these coefficients would have other sub-soups (see `soupcore.Parts`).
    if soup.coefficients and not follows_recipe(soup):
        terms = ", ".join(
            f"{name!r}: Fraction({str(c)!r})" for name, c in soup.coefficients.items()
        )
        return f"soupcore.manual({sweep}, {{{terms}}})"
    recipe, parameters = soup.recipe, soup.parameters
    if soup.passes:  # it may have been stopped early; the first pass is the start
        passes = soup.passes[-1].number
        recipe, parameters = recipe if passes else "uniform", parameters | {"passes": passes}
    return followed(RECIPES[recipe], soup.ingredients, parameters, sweep)


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
    view: View,
    recipe: Recipe,
    number: Number,
    names: list[str],
    others: Mapping[str, Any],
    figure: str = "recipe_curve",
) -> str:
    """Return Python that follows a recipe for several values of a parameter and draws the curve.

    Args:
        view: The view.
        recipe: The recipe.
        number: The parameter.
        names: The ingredients.
        others: The other parameters.
        figure: Name of the function of `soupcore.figures` to draw with.
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
        f"    table, parameter={number.symbol!r}, best=best,\n"
        "    score_name=task.score_name, score_unit=task.score_unit,\n"
        ").show()\n"
    )


def manual(view: View, coefficients: Mapping[str, Fraction]) -> str:
    """Return Python that mixes ingredients by given coefficients."""
    terms = "".join(
        f"    {name!r}: Fraction({c.numerator}, {c.denominator}),\n"
        for name, c in coefficients.items()
    )
    # Soups among the ingredients may need an evaluator to rebuild them.
    start = opening(view) if view.soups else f"{_imports(FRACTION)}sweep = {_sweep(view)}\n"
    return f'{start}soup = soupcore.manual(sweep, {{\n{terms}}})\nsoup.save("soup.safetensors")\n'


def rebuild(view: View, soup: Soup, form: Form) -> str:
    """Return Python that rebuilds a soup's weights exactly, without repeating the selection."""
    # `manual` drops ingredients with coefficient 0, but the first ingredient determines the form of
    # the file.
    if (
        soup.coefficients
        and all(soup.coefficients.values())
        and not soup.fixed
        and _is_of_files(view, soup)
    ):
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


def _with_tensors(rule: TensorRule) -> str:
    rest = f", rest={list(rule.rest)!r}" if rule.rest else ""
    return f".with_tensors({rule.take!r}{rest})"


def _is_of_files(view: View, soup: Soup) -> bool:
    return view.sweep.ingredients.keys() >= set(soup.ingredients)


def _is_re_estimated(view: View) -> bool:
    return view.statistics == "re-estimated"


def _sweep(view: View) -> str:
    weights = f", weights={view.weights!r}" if view.weights else ""
    snapshot = f", snapshot={snapshots_from_text(view.snapshot)!r}" if view.snapshot else ""
    return f"soupcore.Sweep.from_folder({view.folder!r}{weights}{snapshot})"


@dataclass(frozen=True)
class Point:
    """A base, an ingredient or a soup, as an end of lines and a corner of planes.

    Attributes:
        mixture: Its mixture.
        kind: `base`, `ingredient` or `soup`.
        end: Its identity in a job's request.
        code: Python expression for it, given `sweep`.
    """

    mixture: Mixture
    kind: str
    end: str | dict[str, str]
    code: str


def points_of_files(view: View) -> dict[str, Point]:
    """Return the base, if there is one, and the ingredients, by name."""
    found = {}
    for name in [*([view.sweep.base.name] if view.sweep.base else []), *view.sweep.ingredients]:
        kind = "ingredient" if name in view.sweep.ingredients else "base"
        found[name] = Point(view.sweep[name].mixture, kind, name, f"sweep[{name!r}]")
    return found


def points_of_soups(soups: Iterable[StoredSoup]) -> dict[str, Point]:
    """Return soups by label."""
    found = {}
    for stored in soups:
        code = f"{soup_again(stored.soup, stored.soups)}.mixture"
        found[stored.label] = Point(stored.soup.mixture, "soup", {"soup": stored.soup.id}, code)
    return found


def overview(view: View, names: Sequence[str], selected: Collection[str]) -> str:
    """Return Python that draws the scores of ingredients on the selection split."""
    return opening(view, FIGURES, "from soupcore.figures import tables") + (
        "found = {\n"
        "    name: evaluator.evaluate(sweep[name].mixture, task.select)\n"
        f"    for name in {list(names)!r}\n"
        "}\n"
        "figures.accuracy_overview(\n"
        "    tables.scores_table(found), figures.colours(sweep.ingredients),\n"
        f"    {SCORE}{_selected(selected)},\n"
        ").show()\n"
    )


def shift_scatter(view: View, points: Mapping[str, Point], selected: Collection[str]) -> str:
    """Return Python that draws the mean score under shift over the score on report."""
    imports = [FIGURES, PANDAS, "from statistics import mean"]
    imports.append("from soupcore.connectivity import point")
    if any(each.kind == "soup" for each in points.values()):
        imports.append(FRACTION)
    named = "".join(
        f"    {name!r}: ({each.kind!r}, point({each.code})),\n" for name, each in points.items()
    )
    return opening(view, *imports) + (
        f"points = {{\n{named}}}\n"
        "rows = {}\n"
        "for name, (kind, at) in points.items():\n"
        f"    report = evaluator.evaluate(at, {view.task.splits_with_role('report')[0]!r})\n"
        f"    shifts = [evaluator.evaluate(at, split) for split in "
        f"{view.task.splits_with_role('shift')!r}]\n"
        "    shift = mean(found.score for found in shifts)\n"
        '    rows[name] = {"report": report.score, "shift": shift, "kind": kind}\n'
        "figures.shift_scatter(\n"
        '    pd.DataFrame.from_dict(rows, orient="index"), figures.colours(sweep.ingredients),\n'
        f"    {SCORE}{_selected(selected)},\n"
        ").show()\n"
    )


def evidence(view: View, picked: StoredSoup, best: str) -> str:
    """Return Python that compares a soup with the best ingredient, and attributes its score."""
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    calibration = ""
    if view.task.why_no_ensemble is None:  # the task is a classification
        calibration = (
            f"outputs = soup.evaluations[{split!r}].outputs\n"
            f"targets = task.split({split!r}).targets\n"
            "print(analysis.calibration(outputs, targets).ece)\n"
        )
    return _of_soup(view, picked, "from soupcore import analysis") + (
        "soup.evaluate(evaluator)\n"
        f"alone = evaluator.evaluate(sweep[{best!r}].mixture, {split!r})\n"
        f"print(analysis.paired(soup.evaluations[{split!r}].scores, alone.scores))\n"
        f"{calibration}"
        "parts = soupcore.Parts(sweep, soup)\n"
        f"print(analysis.shapley_values(evaluator, parts, {split!r}))\n"
    )


def reliability(
    view: View, picked: StoredSoup, drawn: Iterable[str], ensemble: str, split: str, *, after: bool
) -> str:
    """Return Python that draws the calibration of a soup, of ingredients and of the ensemble.

    Args:
        view: The view.
        picked: The soup.
        drawn: Names of the curves.
        ensemble: Name of the ensemble.
        split: Split of the calibration.
        after: Whether temperatures are fitted on the selection split first.
    """
    members = {
        picked.label: "[soup.mixture]",
        ensemble: "[sweep[name].mixture for name in soup.ingredients]",
    }
    networks = "".join(
        f"    {name!r}: {members.get(name, f'[sweep[{name!r}].mixture]')},\n" for name in drawn
    )
    inks = f"{picked.label!r}: SOUP, {ensemble!r}: NEUTRAL"
    code = _of_soup(view, picked, _ANALYSIS, "from soupcore.figures.style import NEUTRAL, SOUP") + (
        f"networks = {{\n{networks}}}\n\n\n"
        "def outputs(members, split):\n"
        "    evaluator.evaluate_all(members, split)\n"
        "    return analysis.ensemble_outputs(evaluator, members, split)\n\n\n"
        f"targets = task.split({split!r}).targets.cpu()\n"
        "found = {}\n"
        "for name, members in networks.items():\n"
    )
    temperature = ""
    if after:
        code += (
            "    temperature = analysis.fit_temperature(\n"
            "        outputs(members, task.select), task.split(task.select).targets.cpu()\n"
            "    )\n"
        )
        temperature = ", temperature=temperature"
    return code + (
        f"    found[name] = analysis.calibration(outputs(members, {split!r}), targets"
        f"{temperature})\n"
        f"colours = {{{inks}, **figures.colours(sweep.ingredients)}}\n"
        "figures.reliability_diagram(found, colours).show()\n"
    )


def attribution(view: View, picked: StoredSoup, split: str) -> str:
    """Return Python that draws the contribution of each ingredient to a soup."""
    return _of_soup(view, picked, _ANALYSIS) + (
        "parts = soupcore.Parts(sweep, soup)\n"
        "figures.attribution_bars(\n"
        f"    analysis.shapley_values(evaluator, parts, {split!r}),\n"
        f"    analysis.leave_one_out(evaluator, parts, {split!r}),\n"
        f"    score_name=task.score_name + {f' on {split}'!r},\n"
        "    score_unit=task.score_unit,\n"
        ").show()\n"
    )


def greedy_trace(
    view: View, recipe: Recipe, names: Sequence[str], parameters: Mapping[str, Any]
) -> str:
    """Return Python that draws the decisions of a recipe."""
    return opening(view, FIGURES) + (
        f"soup = {followed(recipe, names, parameters)}\n"
        f"figures.greedy_trace(soup.trace, {SCORE}).show()\n"
    )


def learning_curve(
    view: View, recipe: Recipe, names: Sequence[str], parameters: Mapping[str, Any], passes: int
) -> str:
    """Return Python that draws the first passes of a recipe."""
    return opening(view, FIGURES) + (
        f"soup = {followed(recipe, names, parameters)}\n"
        f"figures.learning_curve(soup.passes[:{passes}]).show()\n"
    )


def _selected(names: Collection[str]) -> str:
    return f", selected={list(names)!r}" if names else ""


def _of_soup(view: View, picked: StoredSoup, *imports: str) -> str:
    opened = opening(view.including(picked.soups), FRACTION, *imports)
    return f"{opened}soup = {soup_again(picked.soup)}\n"
