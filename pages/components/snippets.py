"""Python that reproduces the pages: the code of a call, and of the figure of its result.

Each snippet is a complete script. The first line of a function's docstring is what its script does.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.components.state import STATISTICS, View
from soupcore.calls import (
    Attribution,
    Calibrations,
    Call,
    Code,
    IngredientScores,
    ParameterCurve,
    Paths,
    PlaneGrid,
    RecipeSoup,
    TwoModelEnsembles,
    TwoModelTheory,
    WeightGeometry,
)
from soupcore.calls.code import soup_again
from soupcore.row_filter import Limits
from soupcore.stored_soups import StoredSoup

_FIGURES = "from soupcore import figures"
_TABLES = "from soupcore.figures import tables"
_SCORE = "score_name=task.score_name, score_unit=task.score_unit"
_CONTEXT = "from soupcore.calls import Context"
_OVERVIEW = "from soupcore.overview import Overview"
_LOSS = f"loss_name=task.loss_name, {_SCORE}"
_MATRICES = {
    "loss": "loss",
    "error": "error",
    "error (Frankle)": "error_over_mean",
    "midpoint": "midpoint_advantage",
}


def show(code: str) -> None:
    """Show the Python that reproduces the page."""
    with st.expander("Reproduce in Python", icon=":material/code:"):
        st.code(code, language="python")


def evaluate(view: View, call: IngredientScores) -> str:
    """Evaluate ingredients."""
    printed = "for split, by_name in found.items():\n    print(split, by_name)\n"
    return call.script(view, Code(printed))


def ingredients(view: View) -> str:
    """Print the hyperparameters and logged metrics of every ingredient."""
    printed = (
        "for name, ingredient in sweep.ingredients.items():\n"
        "    print(name, ingredient.hyperparameters, ingredient.logged_metrics)\n"
    )
    return view.script(Code(printed))


def logged_overview(
    view: View, names: Sequence[str], metric: str, selected: Collection[str], better: int
) -> str:
    """Draw a logged metric of ingredients."""
    named = f"metric={metric!r}{_selected(selected)}, better={better}"
    drawn = f"tables.logged_table(values), {_inks(view)}, {named}"
    return view.script(_logged(names, metric), _figure("logged_overview", drawn, _TABLES))


def basin_map(view: View, best: str, names: Sequence[str], part: int | None) -> str:
    """Draw the barriers between the best ingredient and others.

    Args:
        view: The view.
        best: The best ingredient.
        names: The ingredients of the figure.
        part: Number of examples of the select split to evaluate on; None for all.
    """
    split = f"task.part(task.select, {part})" if part else "task.select"
    lines = Code(
        f"best, names = {best!r}, {list(names)!r}\n"
        "evaluator.evaluate_all([i.mixture for i in sweep.ingredients.values()], task.select)\n"
        "lines = [(sweep[best], sweep[name]) for name in names if name != best]\n"
        f"evaluate_lines(lines, evaluator, split={split})\n"
        "table = Overview(Context(sweep, evaluator), []).basin_table()\n",
        (_CONTEXT, _OVERVIEW, "from soupcore.connectivity import evaluate_lines"),
    )
    return view.script(lines, _figure("basin_map", f"table, {_inks(view)}, best=best, {_LOSS}"))


def overview(view: View, names: Sequence[str], selected: Collection[str]) -> str:
    """Draw the scores of ingredients on the selection split."""
    call = IngredientScores(tuple(names), (view.task.select,))
    table = f"tables.scores_table(found[{view.task.select!r}]), {_inks(view)}"
    drawn = f"{table},\n    {_SCORE}{_selected(selected)},\n"
    return call.script(view, _figure("accuracy_overview", drawn, _TABLES))


def shift_scatter(
    view: View, codes: Mapping[str, tuple[str, str]], selected: Collection[str]
) -> str:
    """Draw the mean score under shift over the score on report.

    Args:
        view: The view.
        codes: Kind of each point, and an expression for it.
        selected: Names of ingredients that are drawn filled.
    """
    named = "".join(f"    {name!r}: point({code}),\n" for name, (_, code) in codes.items())
    kinds = {name: kind for name, (kind, _) in codes.items()}
    made = Code(
        f"points = {{\n{named}}}\n"
        f"kinds = {kinds!r}\n"
        "found = {\n"
        "    name: {split: evaluator.evaluate(at, split) for split in task.reported}\n"
        "    for name, at in points.items()\n"
        "}\n",
        ("from soupcore.connectivity import point",),
    )
    options = f"{_SCORE}{_selected(selected)}"
    drawn = f"tables.shift_table(task, found, kinds), {_inks(view)},\n    {options},\n"
    return view.script(made, _figure("shift_scatter", drawn, _TABLES))


def column_scatter(
    view: View, table: pd.DataFrame, x: str, y: str, colour: str, selected: Collection[str],
    better: Mapping[str, int],
) -> str:  # fmt: skip
    """Draw a column of the run table against another; the code holds the numbers."""
    made = Code(
        f"table = pd.DataFrame(\n    {_columns(table)!r},\n    index={list(table.index)!r},\n)\n",
        ("import pandas as pd",),
    )
    named = f"x={x!r}, y={y!r}, colour={colour!r}, better={dict(better)!r}"
    drawn = f"table, {_inks(view)}, {named}{_selected(selected)}"
    return view.script(made, _figure("column_scatter", drawn))


def parallel(
    view: View, table: pd.DataFrame, columns: Sequence[str], options: Mapping[str, Any]
) -> str:
    """Draw parallel coordinates of columns of the run table; the code holds the numbers."""
    made = Code(
        f"table = pd.DataFrame(\n    {_columns(table)!r},\n    index={list(table.index)!r},\n)\n",
        ("import pandas as pd", "from soupcore.row_filter import Limits"),
    )
    brushed = ", ".join(f"{t!r}: {_limits(each)}" for t, each in options["brushed"].items())
    named = "".join(
        f"    {name}={value!r},\n" for name, value in options.items() if name != "brushed"
    )
    drawn = f"table, {list(columns)!r},\n{named}    brushed={{{brushed}}},\n"
    return view.script(made, _figure("parallel_coordinates", drawn))


def importance(view: View, columns: Mapping[str, Sequence[Any]], scores: Sequence[Any],
               name: str) -> str:  # fmt: skip
    """Draw the importance of hyperparameters for a column; the code holds the numbers."""
    made = Code(
        f"columns = {dict(columns)!r}\nscores = {list(scores)!r}\n"
        "found = marginal_importance(columns, scores)\n",
        ("from soupcore.analysis import marginal_importance",),
    )
    drawn = f"found, score_name={name!r}"
    return view.script(made, _figure("importance_bars", drawn))


def curve(view: View, call: ParameterCurve, symbol: str, figure: str) -> str:
    """Draw the scores of a recipe over a parameter.

    Args:
        view: The view.
        call: The curve.
        symbol: The parameter in the figure.
        figure: `recipe_curve` or `trade_off`.
    """
    drawn = (
        "tables.curve_table(task, curve.values, {s: curve.scores(s) for s in task.reported}),\n"
        f"    parameter={symbol!r}, best=curve.best.parameters[{call.parameter!r}],\n"
        f"    {_SCORE},\n"
    )
    return call.script(view, _figure(figure, drawn, _TABLES))


def built(view: View, call: Call) -> str:
    """Build the soup of a recipe and save it, or those of several."""
    if not isinstance(call, RecipeSoup):
        saved = 'for name, soup in soups.items():\n    soup.save(f"{name}.safetensors")\n'
        return call.script(view, Code(saved))
    return call.script(view, Code(f'soup.save("{call.recipe}.safetensors")\n'))


def trace(view: View, call: RecipeSoup, passes: int | None = None) -> str:
    """Draw the decisions of a recipe, or its first passes."""
    if passes is None:
        return call.script(view, _figure("greedy_trace", f"soup.trace, {_SCORE}"))
    return call.script(view, _figure("learning_curve", f"soup.passes[:{passes}]"))


def evidence(view: View, picked: StoredSoup, best: str) -> str:
    """Compare a soup with the best ingredient, and attribute its score."""
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    compared = (
        "soup.evaluate(evaluator)\n"
        f"alone = evaluator.evaluate(sweep[{best!r}].mixture, {split!r})\n"
        f"print(analysis.compare(task, soup.evaluations[{split!r}], alone))\n"
    )
    if view.task.why_no_kept_outputs is None:  # the task is a classification
        compared += f"print(analysis.calibrate(evaluator, [soup.mixture], {split!r})[0].ece)\n"
    call = Attribution(picked.soup.id, split)
    return call.script(view, Code(f"{compared}print(shapley)\n"))


def attribution(view: View, call: Attribution) -> str:
    """Draw the contribution of each ingredient to a soup."""
    name = f"task.score_name + {f' on {call.split}'!r}"
    drawn = f"shapley, without, score_name={name}, score_unit=task.score_unit"
    return call.script(view, _figure("attribution_bars", drawn))


def differences(view: View, codes: Mapping[str, str], baseline: str, colours: Sequence[str]) -> str:
    """Draw the paired differences of networks from a baseline.

    Args:
        view: The view.
        codes: An expression for each network.
        baseline: Name of one of them.
        colours: Colours of the others.
    """
    named = "".join(f"    {name!r}: point({code}),\n" for name, code in codes.items())
    made = Code(
        f"points = {{\n{named}}}\n"
        "found = {\n"
        "    name: {split: evaluator.evaluate(at, split) for split in task.reported}\n"
        "    for name, at in points.items()\n"
        "}\n"
        f"table = tables.differences_table(task, found, {baseline!r})\n",
        ("from soupcore.connectivity import point", _TABLES),
    )
    drawn = f"table, {list(colours)!r}, baseline={baseline!r}, {_SCORE}"
    return view.script(made, _figure("difference_forest", drawn))


def coefficients(view: View, chosen: StoredSoup) -> str:
    """Draw the coefficients of a soup."""
    made = Code(
        f"soup = {soup_again(chosen.soup)}\ntable = tables.coefficients_table(soup)\n",
        (_TABLES,),
    )
    return view.including(chosen.soups).script(
        made, _figure("coefficient_bars", f"table, {_inks(view)}")
    )


def reliability(
    view: View, picked: StoredSoup, drawn: Sequence[str], split: str, *, after: bool
) -> str:
    """Draw the calibration of a soup, of ingredients and of the ensemble.

    Args:
        view: The view.
        picked: The soup.
        drawn: Names of the curves.
        split: Split of the calibration.
        after: Whether temperatures are fitted on the selection split first.
    """
    names = tuple(name for name in drawn if name in view.sweep.ingredients)
    call = Calibrations(picked.soup.id, names, split)
    made = (
        f"drawn = {{name: found[name][{int(after)}] for name in {list(drawn)!r}}}\n"
        f"inks = {{{picked.label!r}: SOUP, 'ensemble': NEUTRAL, **{_curve_inks(view, drawn)}}}\n"
    )
    style = "from soupcore.figures.style import NEUTRAL, SOUP"
    return call.script(view, Code(made, (style,)), _figure("reliability_diagram", "drawn, inks"))


def matrix(
    view: View, call: Paths, measure: str, *, tree: bool, threshold: float | None = None,
    outlined: Sequence[Sequence[str]] = (), groups: Mapping[str, Sequence[str]] | None = None,
) -> str:  # fmt: skip
    """Draw the matrix of all pairs or of groups of names, with a threshold and outlined basins."""
    names = call.names or ()
    if measure in ("angle", "distance"):
        code, values = WeightGeometry().code(view, names), f"geometry.{measure}s"
    else:
        code, values = call.code(view), f"barriers.{_MATRICES[measure]}"
    score = "task.score_unit, task.score_name" if view.has_task else ""
    rows = "groups, ranges.highest" if groups else "names, values"
    drawn = f"{rows}, figures.measures({score})[{measure!r}]"
    near = "-values" if measure == "midpoint" else "values"
    joined = "tree(list(groups), ranges.lowest)" if groups else f"tree(names, {near})"
    drawn += f", tree={joined}" if tree else ""
    drawn += f", threshold={threshold}" if threshold is not None else ""
    drawn += f", outlined={[list(names) for names in outlined]!r}" if outlined else ""
    made = Code(f"names = {list(names)!r}\nvalues = {values}\n")
    more = ["from soupcore.connectivity import tree"] if tree else []
    if groups:
        made += Code(f"groups = {({label: [*names] for label, names in groups.items()})!r}\n"
                     "ranges = between(names, values, list(groups.values()))\n")  # fmt: skip
        more.append("from soupcore.connectivity import between")
    return view.script(code, made, _figure("pair_heatmap", drawn, *more))


def curves(view: View, call: Paths, *, both_statistics: bool = False) -> str:
    """Draw the curves of pairs, with one or both BatchNorm statistics."""
    code = call.code(view)
    if both_statistics:
        looped = "".join(f"    {line}\n" for line in code.body.splitlines())
        code = Code(
            f"both, kinds = {{}}, {list(STATISTICS)!r}\n"
            "for kind in kinds:\n"
            "    evaluator = evaluator.with_statistics(kind)\n"
            f"{looped}"
            "    for pair, many in paths.items():\n"
            "        for path in many:\n"
            '            named = replace(path, split=f"{path.split}, {kind}")\n'
            "            both.setdefault(pair, {})[path.split, kind] = named\n"
            "paths = {\n"
            f"    pair: [many[split, kind] for split in {list(call.splits)!r} for kind in kinds]\n"
            "    for pair, many in both.items()\n"
            "}\n",
            ("from dataclasses import replace",),
        )
    printed = Code(
        "for pair, (path, *_) in paths.items():\n"
        "    print(pair, path.barrier_bracket, path.error_barrier, path.error_barrier_over_mean)\n"
    )
    return view.script(code, printed, _figure("path_curves", f"paths, {_LOSS}"))


def from_base(view: View, call: Paths, names: Sequence[str]) -> str:
    """Draw paths from the base, score on report against score under shift."""
    drawn = f"tables.robustness_tables(paths), {_curve_inks(view, names)}, {_SCORE}"
    return call.script(view, _figure("from_base", drawn, _TABLES))


def plane(view: View, call: PlaneGrid, kinds: Mapping[str, str]) -> str:
    """Draw a plane with points projected onto it, `{name: kind}`."""
    placed = "places = {name: plane.frame.locate(at) for name, at in points.items()}\n"
    drawn = f"plane, places, {dict(kinds)!r},\n    {_inks(view)}, {_LOSS},\n"
    return call.script(view, Code(placed), _figure("plane_contours", drawn))


def norms(view: View, names: Sequence[str]) -> str:
    """Draw the distances from the base."""
    return _geometry(view, names, _figure("norm_bars", f"geometry, {_inks(view)}"))


def layers(view: View, names: Sequence[str], to: str | None, *, grouped: bool) -> str:
    """Draw the moves by layer, or the angles to an ingredient by layer."""
    values = f"geometry.angles_by_layer({to!r})" if to else "geometry.moves_by_layer * 100"
    title, unit, decimals = (
        ("angle, °", "°", 0) if to else ("distance, % of layer norm", " %", None)
    )
    drawn = (
        f"geometry.layers, geometry.names, {values},\n"
        f"    title={title!r}, unit={unit!r}, decimals={decimals},\n"
    )
    blocks = Code("geometry = geometry.grouped()\n" if grouped else "")
    return _geometry(view, names, blocks, _figure("layer_heatmap", drawn))


def angles(view: View, call: Paths, colour: str | None) -> str:
    """Draw midpoint gains over the angles between task vectors."""
    drawn = f"tables.angle_table(sweep, geometry, barriers, {colour!r}){_colour(colour)}, {_SCORE}"
    figure = _figure("angle_scatter", drawn, _TABLES)
    return _geometry(view, call.names or (), call.code(view), figure)


def pair_grid(view: View, call: Paths, key: str) -> str:
    """Draw gains of midpoints over the better ends, by a hyperparameter."""
    made = (
        "unit = task.score_unit\n"
        "gains = {pair: path.midpoint_gain * unit.scale for pair, path in barriers.paths.items()}\n"
    )
    drawn = (
        f"pair_grid(sweep, gains, {key!r}),\n"
        "    title=unit.difference_label('midpoint gain over better endpoint'),\n"
        "    unit=unit.difference_symbol, decimals=unit.decimals, diverges=True,\n"
    )
    figure = _figure("grid_heatmap", drawn, "from soupcore.analysis import pair_grid")
    return call.script(view, Code(made), figure)


def logged_grid(view: View, names: Sequence[str], metric: str, row: str, column: str) -> str:
    """Draw the mean of a logged metric by two hyperparameters."""
    drawn = (
        f"ingredient_grid(sweep, values, {row!r}, {column!r}),\n"
        f"    title={f'{metric} (logged)'!r}, decimals=None,\n"
    )
    figure = _figure("grid_heatmap", drawn, "from soupcore.analysis import ingredient_grid")
    return view.script(_logged(names, metric), figure)


def ingredient_grid(view: View, call: IngredientScores, row: str, column: str) -> str:
    """Draw the mean score by two hyperparameters."""
    (split,) = call.splits
    made = (
        "unit = task.score_unit\n"
        f"scores = {{name: each.score * unit.factor for name, each in found[{split!r}].items()}}\n"
    )
    drawn = (
        f"ingredient_grid(sweep, scores, {row!r}, {column!r}),\n"
        "    title=unit.label(task.score_name), unit=unit.symbol, decimals=unit.decimals,\n"
    )
    figure = _figure("grid_heatmap", drawn, "from soupcore.analysis import ingredient_grid")
    return call.script(view, Code(made), figure)


def soups_and_ensembles(
    view: View, call: TwoModelEnsembles, midpoints: Paths, colour: str | None
) -> str:
    """Draw two-model soups against two-model ensembles."""
    made = (
        "scores = {\n"
        '    pair: {"soup": path.scores[path.alphas == 0.5][0], "ensemble": ensembles[pair]}\n'
        "    for pair, path in barriers.paths.items()\n"
        "    if pair in ensembles\n"
        "}\n"
    )
    drawn = f"tables.pairs_with(sweep, scores, {colour!r}){_colour(colour)}, {_SCORE}"
    figure = _figure("soup_ensemble_scatter", drawn, _TABLES)
    return call.script(view, midpoints.code(view), Code(made), figure)


def theory(view: View, call: TwoModelTheory, colour: str | None) -> str:
    """Draw measured gaps over those that the theory predicts."""
    made = (
        "gaps = {\n"
        '    pair: {"predicted": found.predicted_gap, "gap": found.gap}\n'
        "    for pair, found in terms.items()\n"
        "}\n"
    )
    drawn = f"tables.pairs_with(sweep, gaps, {colour!r}){_colour(colour)}"
    return call.script(view, Code(made), _figure("theory_scatter", drawn, _TABLES))


def _limits(each: Limits | Sequence[str]) -> str:
    if not isinstance(each, Limits):
        return repr(tuple(each))
    low, high = (repr(end) if math.isfinite(end) else f"float({str(end)!r})" for end in each)
    return f"Limits({low}, {high})"


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        column: [None if pd.isna(value) else value for value in table[column].tolist()]
        for column in table.columns
    }


def _figure(name: str, arguments: str, *imports: str) -> Code:
    """Return code that draws a figure of `soupcore.figures`."""
    lines = f"\n    {arguments}" if arguments.endswith("\n") else arguments
    return Code(f"figures.{name}({lines}).show()\n", (_FIGURES, *imports))


def _logged(names: Sequence[str], metric: str) -> Code:
    return Code(
        f"logged = {{name: sweep[name].logged_metrics for name in {list(names)!r}}}\n"
        f"values = {{n: each[{metric!r}] for n, each in logged.items() if {metric!r} in each}}\n"
    )


def _geometry(view: View, names: Sequence[str], *more: Code) -> str:
    return view.script(WeightGeometry().code(view, names), *more)


def _inks(view: View) -> str:
    """Return an expression for the colours of the ingredients, those of `View.colours`."""
    more = ""
    if view.colours.titles:
        numbers = [view.basin_numbers.get(name) for name in view.sweep.ingredients]
        selected = st.session_state.get("selection", ())
        if view.basin_numbers:
            more = f", basins=dict(zip(sweep.ingredients, {numbers!r}))"
        elif selected:
            more = f", selected={list(selected)!r}"
    return f"figures.ingredient_colours(sweep.ingredients{more})"


def _curve_inks(view: View, drawn: Sequence[str]) -> str:
    return f"figures.curve_colours({list(drawn)!r}, sweep.ingredients)"


def _selected(names: Collection[str]) -> str:
    return f", selected={list(names)!r}" if names else ""


def _colour(colour: str | None) -> str:
    return f", colour={f'max {colour}'!r}" if colour else ""
