"""Python that reproduces the figures of the analysis pages. Each text runs by itself."""

from collections.abc import Iterable, Sequence

from pages.components.snippets import FIGURES, FRACTION, PANDAS, SCORE, Point, opening
from pages.components.state import STATISTICS, Pair, View

Points = dict[str, Point]
_ADAPTIVE = "adaptive"
_COMBINATIONS = "from itertools import combinations"
_TABLES = "from soupcore.figures import tables"
_NAMES = f"loss_name=task.loss_name, {SCORE}"


_MATRICES = {
    "loss": "loss",
    "error": "error",
    "error (Frankle)": "error_over_mean",
    "midpoint": "midpoint_advantage",
}


def matrix(
    view: View, names: Sequence[str], alphas: int | str, split: str, measure: str, *, tree: bool,
    threshold: float | None = None,
) -> str:  # fmt: skip
    """Return Python that draws the matrix of all pairs, with a threshold across its tree."""
    geometric = measure in ("angle", "distance")
    imports = [FIGURES, *(["from soupcore.connectivity import tree"] if tree else [])]
    code = opening(view, *imports)
    if geometric:
        values = {"angle": "angles", "distance": "distances"}[measure]
        code += f"found = soupcore.geometry(sweep, names={list(names)!r})\n"
    else:
        values = _MATRICES[measure]
        code += (
            f"names = {list(names)!r}\n"
            f"found = soupcore.barriers(sweep, evaluator, names{_alphas(alphas)}, "
            f"split={split!r})\n"
        )
    code += f"values = found.{values}\n"
    apart = "-values" if measure == "midpoint" else "values"
    order = f", tree=tree(found.names, {apart})" if tree else ""
    order += f", threshold={threshold}" if tree and threshold is not None else ""
    return code + (
        f"measure = figures.measures({'task.score_unit' if view.has_task else ''})[{measure!r}]\n"
        f"figures.pair_heatmap(found.names, values, measure{order}).show()\n"
    )


def curves(
    view: View, points: Points, pairs: Iterable[Pair], alphas: int | str,
    splits: Sequence[str], beyond: Sequence[float], *, both_statistics: bool = False,
) -> str:  # fmt: skip
    """Return Python that draws the curves of pairs, with one or both BatchNorm statistics."""
    pairs = list(pairs)
    imports = [FIGURES, *_fractions(points, {name for pair in pairs for name in pair})]
    if both_statistics:
        imports.append("from dataclasses import replace")
    code = opening(view, *imports) + "lines = {\n"
    for a, b in pairs:
        code += f"    ({a!r}, {b!r}): ({points[a].code}, {points[b].code}),\n"
    code += "}\n"
    with_evaluator = f"evaluator{_alphas(alphas)}, split=split"
    with_evaluator += f", beyond={list(beyond)!r}" if beyond else ""
    path = f"        soupcore.linear_path(*ends, {with_evaluator})\n"
    each = f"        for split in {list(splits)!r}\n"
    if both_statistics:
        code += (
            "evaluators = {\n"
            "    kind: evaluator.with_statistics(kind)\n"
            f"    for kind in {list(STATISTICS)!r}\n"
            "}\n"
        )
        path = (
            "        replace(\n"
            f"            soupcore.linear_path(*ends, {with_evaluator}),\n"
            '            split=f"{split}, {kind}",\n'
            "        )\n"
        )
        each += "        for kind, evaluator in evaluators.items()\n"
    return code + (
        "paths = {\n"
        "    pair: [\n"
        f"{path}{each}"
        "    ]\n"
        "    for pair, ends in lines.items()\n"
        "}\n"
        "for pair, (path, *_) in paths.items():\n"
        "    print(pair, path.barrier_bracket, path.error_barrier, path.error_barrier_over_mean)\n"
        f"figures.path_curves(paths, {_NAMES}).show()\n"
    )


def from_base(view: View, points: Points, names: Sequence[str], alphas: int) -> str:
    """Return Python that draws paths from the base, score on report against score under shift."""
    report, shifts = view.task.splits_with_role("report")[0], view.task.splits_with_role("shift")
    code = opening(view, FIGURES, PANDAS, *_fractions(points, names))
    ends = "".join(f"    {name!r}: {points[name].code},\n" for name in names)
    return code + (
        f"ends = {{\n{ends}}}\n"
        "paths = {}\n"
        "for name, end in ends.items():\n"
        "    found = {\n"
        f"        split: soupcore.linear_path(sweep.base, end, evaluator, {alphas}, split=split)\n"
        f"        for split in {[report, *shifts]!r}\n"
        "    }\n"
        f"    shift = sum(found[split].scores for split in {shifts!r}) / {len(shifts)}\n"
        f"    report = found[{report!r}]\n"
        "    paths[name] = pd.DataFrame(\n"
        '        {"alpha": report.alphas, "report": report.scores, "shift": shift}\n'
        "    )\n"
        f"figures.from_base(paths, figures.colours(sweep.ingredients), {SCORE}).show()\n"
    )


def plane(
    view: View, points: Points, corners: Sequence[str], drawn: Sequence[str], split: str, size: int
) -> str:
    """Return Python that draws a plane with points projected onto it."""
    drawn = list(dict.fromkeys([*corners, *drawn]))
    imports = [FIGURES, "from soupcore.connectivity import point", *_fractions(points, drawn)]
    named = "".join(
        f"    {name!r}: ({points[name].kind!r}, point({points[name].code})),\n" for name in drawn
    )
    ends = ", ".join(points[name].code for name in corners)
    return opening(view, *imports) + (
        f"corners = [{ends}]\n"
        f"points = {{\n{named}}}\n"
        "plane = soupcore.plane(\n"
        f"    sweep, evaluator, corners, {size}, split={split!r},\n"
        "    points=[point for _, point in points.values()],\n"
        ")\n"
        "places = {name: plane.frame.locate(point) for name, (_, point) in points.items()}\n"
        "kinds = {name: kind for name, (kind, _) in points.items()}\n"
        "figures.plane_contours(\n"
        "    plane, places, kinds, figures.colours(sweep.ingredients),\n"
        f"    {_NAMES},\n"
        ").show()\n"
    )


def norms(view: View, names: Sequence[str]) -> str:
    """Return Python that draws the distances from the base."""
    return opening(view, FIGURES) + (
        f"geometry = soupcore.geometry(sweep, names={list(names)!r})\n"
        "figures.norm_bars(geometry, figures.colours(sweep.ingredients)).show()\n"
    )


def layers(view: View, names: Sequence[str], to: str | None, *, grouped: bool) -> str:
    """Return Python that draws the moves by layer, or the angles to an ingredient by layer."""
    values = f"geometry.angles_by_layer({to!r})" if to else "geometry.moves_by_layer * 100"
    title, unit, decimals = ("angle, °", "°", 0) if to else ("distance, % of layer norm", " %", 1)
    return opening(view, FIGURES) + (
        f"geometry = soupcore.geometry(sweep, names={list(names)!r})"
        f"{'.grouped()' if grouped else ''}\n"
        f"values = {values}\n"
        "figures.layer_heatmap(\n"
        "    geometry.layers, geometry.names, values,\n"
        f"    title={title!r}, unit={unit!r}, decimals={decimals},\n"
        ").show()\n"
    )


def angles(view: View, names: Sequence[str], split: str, colour: str | None) -> str:
    """Return Python that draws midpoint gains over the angles between task vectors."""
    return opening(view, FIGURES, _TABLES) + (
        f"names = {list(names)!r}\n"
        "geometry = soupcore.geometry(sweep, names=names)\n"
        f"found = soupcore.barriers(sweep, evaluator, names, 3, split={split!r})\n"
        f"table = tables.angle_table(sweep, geometry, found, {colour!r})\n"
        f"figures.angle_scatter(table{_colour(colour)}, {SCORE}).show()\n"
    )


def pair_grid(view: View, names: Sequence[str], split: str, key: str) -> str:
    """Return Python that draws gains of midpoints over the better ends, by a hyperparameter."""
    return opening(view, FIGURES, "from soupcore.analysis import pair_grid") + (
        f"names = {list(names)!r}\n"
        f"found = soupcore.barriers(sweep, evaluator, names, 3, split={split!r})\n"
        "unit = task.score_unit\n"
        "gains = {pair: path.midpoint_gain * unit.scale for pair, path in found.paths.items()}\n"
        f"grid = pair_grid(sweep, gains, {key!r})\n"
        "figures.grid_heatmap(\n"
        "    grid,\n"
        "    title=unit.difference_label('midpoint gain over better endpoint'),\n"
        "    unit=unit.difference_symbol,\n"
        "    decimals=unit.decimals,\n"
        "    diverges=True,\n"
        ").show()\n"
    )


def logged_grid(view: View, names: Sequence[str], metric: str, row: str, column: str) -> str:
    """Return Python that draws the mean of a logged metric by two hyperparameters."""
    return opening(view, FIGURES, "from soupcore.analysis import ingredient_grid") + (
        f"metric, names = {metric!r}, {list(names)!r}\n"
        "logged = {name: sweep[name].logged_metrics for name in names}\n"
        "values = {name: found[metric] for name, found in logged.items() if metric in found}\n"
        f"grid = ingredient_grid(sweep, values, {row!r}, {column!r})\n"
        f"figures.grid_heatmap(grid, title={f'{metric} (logged)'!r}, decimals=None).show()\n"
    )


def ingredient_grid(view: View, names: Sequence[str], split: str, row: str, column: str) -> str:
    """Return Python that draws the mean score by two hyperparameters."""
    return opening(view, FIGURES, "from soupcore.analysis import ingredient_grid") + (
        "unit = task.score_unit\n"
        "scores = {\n"
        f"    name: evaluator.evaluate(sweep[name].mixture, {split!r}).score * unit.factor\n"
        f"    for name in {list(names)!r}\n"
        "}\n"
        f"grid = ingredient_grid(sweep, scores, {row!r}, {column!r})\n"
        "figures.grid_heatmap(\n"
        "    grid,\n"
        "    title=unit.label(task.score_name),\n"
        "    unit=unit.symbol,\n"
        "    decimals=unit.decimals,\n"
        ").show()\n"
    )


def soups_and_ensembles(view: View, names: Sequence[str], split: str, colour: str | None) -> str:
    """Return Python that draws two-model soups against two-model ensembles."""
    return opening(view, FIGURES, _TABLES, _COMBINATIONS) + (
        "scores = {}\n"
        f"for a, b in combinations({list(names)!r}, 2):\n"
        "    ends = [sweep[a].mixture, sweep[b].mixture]\n"
        f"    evaluator.evaluate_all(ends, {split!r})\n"
        f"    soup = evaluator.evaluate(soupcore.mean(ends), {split!r})\n"
        f"    both = soupcore.ensemble(evaluator, ends, {split!r})\n"
        '    scores[a, b] = {"soup": soup.score, "ensemble": both.score}\n'
        f"table = tables.pairs_with(sweep, scores, {colour!r})\n"
        f"figures.soup_ensemble_scatter(table{_colour(colour)}, {SCORE}).show()\n"
    )


def theory(view: View, names: Sequence[str], split: str, colour: str | None) -> str:
    """Return Python that draws measured gaps over those that the theory predicts."""
    return opening(view, FIGURES, _TABLES, _COMBINATIONS) + (
        "gaps = {}\n"
        f"for a, b in combinations({list(names)!r}, 2):\n"
        "    ends = sweep[a].mixture, sweep[b].mixture\n"
        f"    found = soupcore.soup_vs_ensemble(evaluator, *ends, split={split!r})\n"
        '    gaps[a, b] = {"predicted": found.predicted_gap, "gap": found.gap}\n'
        f"table = tables.pairs_with(sweep, gaps, {colour!r})\n"
        f"figures.theory_scatter(table{_colour(colour)}).show()\n"
    )


def _alphas(alphas: int | str) -> str:
    return "" if alphas == _ADAPTIVE else f", {alphas}"


def _colour(colour: str | None) -> str:
    return f", colour={f'max {colour}'!r}" if colour else ""


def _fractions(points: Points, names: Iterable[str]) -> list[str]:
    """Return the imports that the code of these points needs."""
    return [FRACTION] if any(points[name].kind == "soup" for name in names) else []
