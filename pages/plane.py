"""Loss and error on the plane through three models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import streamlit as st

from pages.components import display, exports, jobs, scores, snippets, tasks
from pages.components.display import listed, plain
from pages.components.scores import Point
from pages.components.state import View
from soupcore import ConnectivityError, Plane, figures
from soupcore.calls import PlaneGrid
from soupcore.connectivity.plane import SIZES
from soupcore.display import capitalised, counted
from soupcore.figures.tables import plane_table
from soupcore.plan import seconds


def main(view: View) -> None:
    st.header("Plane")
    if not view.has_task:
        tasks.show_needed("This page")
        return
    loss = view.task.loss_name
    what = "error" if view.task.score_unit.counts_errors else plain(view.task.score_name)
    st.caption(
        f"{plain(capitalised(loss))} and {what} on the 2-D plane through three models "
        "(Garipov et al. 2018). Axes are orthonormal, in units of L2 distance between weights. "
        "Other models are projected orthogonally."
    )
    known = scores.points(view)
    if len(known) < 3:
        st.info("A plane needs three models; this sweep has fewer.", icon=":material/info:")
        return
    corners, split, size = _choose(view, known)
    drawn = _drawn(view, known)
    names = [*dict.fromkeys([*corners, *drawn])]
    call = PlaneGrid(
        corners=tuple(known[name].end for name in corners),
        split=split,
        size=size,
        points=tuple(known[name].end for name in names),
    )
    code = snippets.plane(view, call, {name: known[name].kind for name in names})
    try:
        found = call.result(view)
    except ConnectivityError as error:
        st.warning(plain(str(error)), icon=":material/straighten:")
        return
    # Soups that are not mixtures of the sweep's checkpoints must be read before projection.
    aside = [name for name in names if found is None or not found.frame.covers(known[name].mixture)]
    _button(view, known, corners, call, found, aside)
    if found is not None and found.missing < size**2:
        placed = [name for name in names if name not in aside]
        _draw(view, known, placed, found, code)
        if aside:
            st.caption(f"Not projected yet: {listed(aside)}.")
    else:
        st.info(
            "This plane has not been evaluated yet. A coarse "
            f"{SIZES[0]}×{SIZES[0]} picture appears first and is refined as results arrive.",
            icon=":material/blur_on:",
        )
    snippets.show(code)


def _choose(view: View, known: Mapping[str, Point]) -> tuple[list[str], str, int]:
    names = list(known)
    selected = [name for name in st.session_state["selection"] if name in known]
    base = [view.sweep.base.name] if view.sweep.base else []
    proposed = list(dict.fromkeys([*base, *selected, *view.overview.ranked, *names]))[:3]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        corners = [
            st.selectbox(
                f"Model {label}", names, index=names.index(name), key=f"corner-{label}-{proposed}"
            )
            for label, name in zip(("A (origin)", "B", "C"), proposed, strict=True)
        ]
        split = st.selectbox(
            "Split", view.task.reported, format_func=view.task.split_title, width=180
        )
        size = st.selectbox(
            "Grid", SIZES, index=len(SIZES) - 1, width=140,
            format_func=lambda size: f"{size}×{size}",
            help="Grids are nested: refining reuses all coarser points.",
        )  # fmt: skip
    return corners, split, size


def _drawn(view: View, known: Mapping[str, Point]) -> list[str]:
    selected = st.session_state["selection"]
    choice = st.segmented_control(
        "Overlay models", ["selected", "all"], default="selected" if selected else "all",
        required=True, key=f"project-{bool(selected)}",
        format_func=lambda choice: f"{choice} ingredients",
    )  # fmt: skip
    soups = [name for name, point in known.items() if point.kind == "soup"]
    base = [view.sweep.base.name] if view.sweep.base else []
    return [*base, *(selected if choice == "selected" else view.sweep.ingredients), *soups]


def _button(
    view: View, known: Mapping[str, Point], corners: Sequence[str], shown: PlaneGrid,
    found: Plane | None, aside: Sequence[str],
) -> None:  # fmt: skip
    missing = shown.size**2 if found is None else found.missing
    soups = [name for name in aside if known[name].kind == "soup"]
    call = replace(shown, points=tuple(known[name].end for name in soups))
    if missing:
        jobs.call_button(
            view, f"Run {jobs.evaluations_text(missing)}", call,
            f"Plane {', '.join(corners)} on {shown.split}", key="evaluate",
            price=seconds(view.overview, missing * len(view.task.split(shown.split))), starts=True,
        )  # fmt: skip
    elif soups:
        count = counted(len(soups), "soup")
        jobs.call_button(
            view, f"Project {count}", call, f"Project {count} onto the plane", key="project",
            help="Reads their weights once; runs no forward passes.",
        )  # fmt: skip


def _draw(
    view: View, known: Mapping[str, Point], names: Sequence[str], found: Plane, code: str
) -> None:
    places = {name: found.frame.locate(known[name].mixture) for name in names}
    figure = figures.plane_contours(
        found, places, {name: known[name].kind for name in names}, view.colours,
        **view.task.labels.for_figures,
    )  # fmt: skip
    display.show_figure(
        figure,
        "plane",
        plane_table(found, places),
        code,
        title="Plane",
        about=exports.sizes(view.task, found.split),
    )
    side = len(found.xs)
    state = f"{side}×{side} grid on {plain(found.split)}"
    if found.missing:
        state += f"; {jobs.evaluations_text(found.missing)} left for the full grid"
    st.caption(
        f"{state}. Models off the plane are hollow, at their projection, and fade with distance. "
        "Hover over one for its distance."
    )


if __name__ == "__main__":
    main(st.session_state["view"])
