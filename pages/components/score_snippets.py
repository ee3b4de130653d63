"""The figures of what ingredients and soups score, as Python. Each text runs by itself."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pages.components.points import Point
from pages.components.snippets import FIGURES, FRACTION, PANDAS, followed, opening, soup_again
from pages.components.state import View
from soupcore.jobs.stored_soups import StoredSoup
from soupcore.recipes import Recipe

_BOTH = "from soupcore import analysis, figures"
_NAMED = "score_name=task.score_name"


def overview(view: View, names: Sequence[str], selected: Collection[str]) -> str:
    """Return how to draw the scores of ingredients on select."""
    return opening(view, FIGURES, "from soupcore.figures import tables") + (
        "found = {\n"
        "    name: evaluator.evaluate(sweep[name].mixture, task.select)\n"
        f"    for name in {list(names)!r}\n"
        "}\n"
        "figures.accuracy_overview(\n"
        "    tables.scores_table(found), figures.colours(sweep.ingredients),\n"
        f"    {_NAMED}{_selected(selected)},\n"
        ").show()\n"
    )


def shift_scatter(view: View, points: Mapping[str, Point], selected: Collection[str]) -> str:
    """Return how to draw the mean score under shift over that on report."""
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
        f"    {_NAMED}{_selected(selected)},\n"
        ").show()\n"
    )


def evidence(view: View, picked: StoredSoup, best: str) -> str:
    """Return how to compare a soup with the best ingredient, and to see what it owes to which."""
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    return _of_soup(view, picked, "from soupcore import analysis") + (
        "soup.evaluate(evaluator)\n"
        f"alone = evaluator.evaluate(sweep[{best!r}].mixture, {split!r})\n"
        f"print(analysis.paired(soup.evaluations[{split!r}].scores, alone.scores))\n"
        f"outputs, targets = soup.evaluations[{split!r}].outputs, task.split({split!r}).targets\n"
        "print(analysis.calibration(outputs, targets).ece)\n"
        "parts = soupcore.Parts(sweep, soup)\n"
        f"print(analysis.shapley_values(evaluator, parts, {split!r}))\n"
    )


def reliability(
    view: View, picked: StoredSoup, drawn: Iterable[str], ensemble: str, split: str, *, after: bool
) -> str:
    """Return how to draw the calibration of a soup, of ingredients and of the ensemble.

    Args:
        view: What is looked at.
        picked: The soup.
        drawn: Names of what is drawn.
        ensemble: The name of the ensemble.
        split: Where they are calibrated.
        after: Whether their temperatures are fitted on select first.
    """
    members = {
        picked.label: "[soup.mixture]",
        ensemble: "[sweep[name].mixture for name in soup.ingredients]",
    }
    networks = "".join(
        f"    {name!r}: {members.get(name, f'[sweep[{name!r}].mixture]')},\n" for name in drawn
    )
    inks = f"{picked.label!r}: SOUP, {ensemble!r}: NEUTRAL"
    code = _of_soup(view, picked, _BOTH, "from soupcore.figures.style import NEUTRAL, SOUP") + (
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
    """Return how to draw what each ingredient adds to a soup."""
    return _of_soup(view, picked, _BOTH) + (
        "parts = soupcore.Parts(sweep, soup)\n"
        "figures.attribution_bars(\n"
        f"    analysis.shapley_values(evaluator, parts, {split!r}),\n"
        f"    analysis.leave_one_out(evaluator, parts, {split!r}),\n"
        f"    score_name=task.score_name + {f' on {split}'!r},\n"
        ").show()\n"
    )


def greedy_trace(
    view: View, recipe: Recipe, names: Sequence[str], parameters: Mapping[str, Any]
) -> str:
    """Return how to draw the decisions of a recipe."""
    return opening(view, FIGURES) + (
        f"soup = {followed(recipe, names, parameters)}\n"
        f"figures.greedy_trace(soup.trace, {_NAMED}).show()\n"
    )


def learning_curve(
    view: View, recipe: Recipe, names: Sequence[str], parameters: Mapping[str, Any], passes: int
) -> str:
    """Return how to draw the first passes of a recipe, however soon it was stopped."""
    return opening(view, FIGURES) + (
        f"soup = {followed(recipe, names, parameters)}\n"
        f"figures.learning_curve(soup.passes[:{passes}]).show()\n"
    )


def _selected(names: Collection[str]) -> str:
    return f", selected={list(names)!r}" if names else ""


def _of_soup(view: View, picked: StoredSoup, *imports: str) -> str:
    opened = opening(view.including(picked.soups), FRACTION, *imports)
    return f"{opened}soup = {soup_again(picked.soup)}\n"
