"""Weight geometry: distances and angles of task vectors, and their relation to scores."""

from collections.abc import Sequence

import streamlit as st

from pages.components import display, exports, jobs, pair_matrix, scores, snippets, tasks
from pages.components.display import plain
from pages.components.state import View
from soupcore import Geometry, figures
from soupcore.analysis import ingredient_grid, pair_grid, varying
from soupcore.calls import IngredientScores, WeightGeometry
from soupcore.display import capitalised, counted
from soupcore.figures.tables import angle_table, grid_table, layers_table
from soupcore.overview import is_learning_rate

_PAIRS = "midpoint gain over better endpoint"


def main(view: View) -> None:
    st.header("Geometry")
    selected = st.session_state["selection"]
    names = selected if len(selected) > 1 else view.sweep.names()
    origin = (
        f"**{plain(view.sweep.base.name)}**" if view.sweep.base else "the mean of the ingredients"
    )
    st.caption(
        f"Task vectors from {origin} to {counted(len(names), 'ingredient')}, excluding BatchNorm "
        "statistics. For the pairwise matrix of angles, see **Connectivity › Angle**."
    )
    found = WeightGeometry().result(view, names)
    if found is None:
        pair_matrix.show_geometry_button(view)
    tabs = st.tabs([*_TABS, "By hyperparameter"], key="geometry-tab", on_change="rerun")
    for tab, show in zip(tabs, _TABS.values(), strict=False):
        if tab.open:
            with tab:
                if found is None:
                    st.info("Not computed yet. Click **Compute angles and distances**.",
                            icon=":material/straighten:")  # fmt: skip
                else:
                    show(view, found)
    if tabs[-1].open:
        with tabs[-1]:
            show_grids(view, names)


def _layers(view: View, found: Geometry) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        grouped = st.toggle("Group by block", value=True,
                            help="One row per block instead of one per tensor.")  # fmt: skip
        against = st.selectbox(
            "Value", [None, *found.names], width=320,
            format_func=lambda name: f"angle to {name}" if name else
            "relative distance from the base",
        )  # fmt: skip
    shown = found.grouped() if grouped else found
    if against is None:
        values, title, unit = shown.moves_by_layer * 100, "distance, % of layer norm", " %"
        decimals = None
    else:
        values, title, unit, decimals = shown.angles_by_layer(against), "angle, °", "°", 0
    figure = figures.layer_heatmap(
        shown.layers, shown.names, values, title=title, unit=unit, decimals=decimals
    )
    code = snippets.layers(view, shown.names, against, grouped=grouped)
    display.show_figure(
        figure,
        "layers",
        layers_table(shown.layers, shown.names, values),
        code,
        title=capitalised(title),
    )


def _distances(view: View, found: Geometry) -> None:
    table = layers_table(["distance"], found.names, found.norms[None, :]).T
    table.index.name = "ingredient"
    code = snippets.norms(view, found.names)
    display.show_figure(
        figures.norm_bars(found, view.colours),
        "distances",
        table,
        code,
        title="Distance from the base",
    )


def _advantage(view: View, found: Geometry) -> None:
    if not view.has_task:
        tasks.show_needed("The gain of midpoints", key="advantage")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        split = st.selectbox(
            "Split", view.task.reported, format_func=view.task.split_title, width=180
        )
        colour = display.colour_by(view, "advantage")
    known = jobs.midpoints(view, found.names, split, key="advantage")
    if known is None:
        return
    table = angle_table(view.sweep, found, known, colour)
    figure = figures.angle_scatter(
        table,
        colour=f"max {colour}" if colour else "",
        score_name=view.task.score_name,
        score_unit=view.task.score_unit,
    )
    code = snippets.angles(view, jobs.midpoint_paths(found.names, split), colour)
    display.show_figure(
        figure,
        "angles",
        table,
        code,
        title="Angle vs. midpoint gain",
        about=exports.sizes(view.task, split),
    )


def show_grids(view: View, names: Sequence[str]) -> None:
    """Let the user choose a quantity and hyperparameters, and draw its mean over them."""
    keys = varying(view.sweep)
    if not keys:
        st.info(
            "No hyperparameters vary across ingredients. Add sweep.jsonl or sweep.csv to the sweep "
            "folder.",
            icon=":material/tune:",
        )
        return
    if not view.has_task:
        _logged(view, names, keys)
        return
    score = f"{plain(view.task.score_name)} of ingredients"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        what = st.segmented_control("Quantity", [_PAIRS, score], default=_PAIRS, required=True)
        split = st.selectbox(
            "Split",
            view.task.reported,
            format_func=view.task.split_title,
            width=180,
            key="grid-split",
        )
        first = next(filter(is_learning_rate, keys), keys[0])
        row = st.selectbox("Hyperparameter", keys, index=keys.index(first), width=200)
        others = [key for key in keys if key != row]
        column = None
        if what == score and others:
            column = st.selectbox("Second hyperparameter", others, width=200)
    if what == _PAIRS:
        _pairs(view, names, split, row)
    elif column is None:
        st.info("Only one hyperparameter varies.", icon=":material/tune:")
    else:
        _ingredients(view, names, split, row, column)


def _logged(view: View, names: Sequence[str], keys: Sequence[str]) -> None:
    """Let the user choose a logged metric and two hyperparameters, and draw its mean over them."""
    metrics = scores.logged_metrics(view.sweep)
    if not metrics or len(keys) < 2:
        tasks.show_needed("This figure, for sweeps without logged metrics or hyperparameters,",
                          key="grids")  # fmt: skip
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = metrics.index(scores.ranking_metric(view.sweep) or metrics[0])
        metric = st.selectbox("Logged metric", metrics, index=first, width=240)
        row = st.selectbox("Hyperparameter", keys, width=200)
        column = st.selectbox("Second hyperparameter", [k for k in keys if k != row], width=200)
    values = scores.logged_values(view.sweep, metric)
    grid = ingredient_grid(
        view.sweep, {name: values[name] for name in names if name in values}, row, column
    )
    figure = figures.grid_heatmap(grid, title=f"{metric} (logged)", unit="", decimals=None)
    code = snippets.logged_grid(view, names, metric, row, column)
    display.show_figure(figure, "logged-grid", grid_table(grid), code, title=f"{metric} (logged)")
    tasks.show_needed("The gain of midpoints by hyperparameter", key="grids")


def _pairs(view: View, names: Sequence[str], split: str, key: str) -> None:
    known = jobs.midpoints(view, names, split, key="grid")
    if known is None:
        return
    unit = view.task.score_unit
    gains = {pair: gain * unit.scale for pair, gain in known.by_pair("midpoint_gain").items()}
    grid = pair_grid(view.sweep, gains, key)
    figure = figures.grid_heatmap(
        grid,
        title=unit.difference_label(_PAIRS),
        unit=unit.difference_symbol,
        decimals=unit.decimals,
        diverges=True,
    )
    code = snippets.pair_grid(view, jobs.midpoint_paths(names, split), key)
    display.show_figure(
        figure,
        "pair-grid",
        grid_table(grid),
        code,
        title="Midpoint gain of pairs",
        about=exports.sizes(view.task, split),
    )
    st.caption(
        f"Mean, over pairs, of midpoint {plain(view.task.score_name)} minus the better endpoint's "
        "(Model Soups, App. F.1). Blue = gain."
    )


def _ingredients(view: View, names: Sequence[str], split: str, row: str, column: str) -> None:
    call = IngredientScores(tuple(names), (split,))
    known = call.result(view)[split]
    unit = view.task.score_unit
    means = {name: found.score * unit.factor for name, found in known.items() if found}
    if not means:
        st.info(
            f"No ingredients evaluated on {plain(split)} yet. Evaluate them on the **Ingredients** "
            "page.",
            icon=":material/grocery:",
        )
        return
    grid = ingredient_grid(view.sweep, means, row, column)
    figure = figures.grid_heatmap(
        grid,
        title=unit.label(view.task.score_name),
        unit=unit.symbol,
        decimals=unit.decimals,
    )
    code = snippets.ingredient_grid(view, call, row, column)
    display.show_figure(
        figure,
        "ingredient-grid",
        grid_table(grid),
        code,
        title=f"{capitalised(view.task.score_name)} by hyperparameter",
        about=exports.sizes(view.task, split),
    )


_TABS = {
    "By layer": _layers,
    "Distance from base": _distances,
    "Angle vs. midpoint gain": _advantage,
}

if __name__ == "__main__":
    main(st.session_state["view"])
