"""Where the ingredients lie, and what follows from it."""

import streamlit as st

from pages.components import asking, connectivity_snippets, export, geometry_grids, middles
from pages.components.state import View
from soupcore import Geometry, figures
from soupcore.connectivity import stored_geometry
from soupcore.figures.tables import angle_table, layers_table


def main(view: View) -> None:
    st.header("Geometry")
    selected = st.session_state["selection"]
    names = selected if len(selected) > 1 else view.sweep.names()
    origin = f"**{view.sweep.base.name}**" if view.sweep.base else "the mean of the ingredients"
    st.caption(
        f"Task vectors lead from {origin} to {len(names)} ingredients; BatchNorm's statistics are "
        "no part of them. The matrix of their angles is on the page Connectivity."
    )
    found = stored_geometry(view.sweep, view.evaluator.store, names)
    if found is None:
        asking.button(
            "Measure angles and distances", "geometry", "Measure the geometry", view.request,
            key="measure", help="Reads every checkpoint once; no forward pass.",
        )  # fmt: skip
    tabs = st.tabs([*_TABS, "Hyperparameters"], key="geometry-tab", on_change="rerun")
    for tab, show in zip(tabs, _TABS.values(), strict=False):
        if tab.open:
            with tab:
                if found is None:
                    st.info("Not measured yet: press the button above.",
                            icon=":material/straighten:")  # fmt: skip
                else:
                    show(view, found)
    if tabs[-1].open:
        with tabs[-1]:
            geometry_grids.show(view, names)


def _layers(view: View, found: Geometry) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        grouped = st.toggle("Blocks", value=True, help="Tensors of a block together in one row.")
        against = st.selectbox(
            "Show", [None, *found.names], width=320,
            format_func=lambda name: f"angle to {name}" if name else "distance from the base",
        )  # fmt: skip
    shown = found.grouped() if grouped else found
    if against is None:
        values, title, unit, decimals = shown.moves_by_layer * 100, "% of the layer's norm", " %", 1
    else:
        values, title, unit, decimals = shown.angles_by_layer(against), "angle, °", "°", 0
    figure = figures.layer_heatmap(
        shown.layers, shown.names, values, title=title, unit=unit, decimals=decimals
    )
    code = connectivity_snippets.layers(view, shown.names, against, grouped=grouped)
    export.show(figure, "layers", layers_table(shown.layers, shown.names, values), code)


def _distances(view: View, found: Geometry) -> None:
    table = layers_table(["distance"], found.names, found.norms[None, :]).T
    table.index.name = "ingredient"
    code = connectivity_snippets.norms(view, found.names)
    export.show(figures.norm_bars(found, view.colours), "distances", table, code)


def _advantage(view: View, found: Geometry) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        split = st.selectbox("Split", view.task.reported, width=180)
        colour = middles.colour_by(view, "advantage")
    known = middles.ask(view, found.names, split, key="advantage")
    if known is None:
        return
    table = angle_table(view.sweep, found, known, colour)
    figure = figures.angle_scatter(
        table, colour=f"max {colour}" if colour else "", score_name=view.task.score_name
    )
    code = connectivity_snippets.angles(view, found.names, split, colour)
    export.show(figure, "angles", table, code)


_TABS = {"Layers": _layers, "Distances": _distances, "Angle and advantage": _advantage}

main(st.session_state["view"])
