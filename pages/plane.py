"""The loss on the plane through three points."""

from collections.abc import Mapping, Sequence

import streamlit as st

from pages.components import asking, connectivity_snippets, export, points, snippets
from pages.components.points import Point
from pages.components.state import View
from soupcore import ConnectivityError, Plane, figures
from soupcore.connectivity import stored_plane
from soupcore.connectivity.plane import SIZES
from soupcore.figures.tables import plane_table


def main(view: View) -> None:
    st.header("Plane")
    st.caption(
        "Loss and error on the plane through three points, its axes at right angles and in units "
        "of distance between weights; other points are projected onto it."
    )
    known = points.of(view)
    if len(known) < 3:
        st.info("A plane takes three points, and there are fewer.", icon=":material/info:")
        return
    corners, split, size = _ask(view, known)
    drawn = _drawn(view, known)
    code = connectivity_snippets.plane(view, known, corners, drawn, split, size)
    ends = [known[name].mixture for name in corners]
    try:
        found = stored_plane(view.sweep, view.evaluator, ends, size, split=split)
    except ConnectivityError as error:
        st.warning(str(error), icon=":material/straighten:")
        return
    _button(view, known, corners, split, size, found)
    if found is not None and found.missing < size**2:
        _draw(view, known, [*dict.fromkeys([*corners, *drawn])], found, code)
    else:
        st.info(
            f"Nothing is known of this plane yet. The first picture takes {SIZES[0]}×{SIZES[0]} "
            "points; it gets finer as more come.",
            icon=":material/blur_on:",
        )
    snippets.show(code)


def _ask(view: View, known: Mapping[str, Point]) -> tuple[list[str], str, int]:
    names = list(known)
    selected = [name for name in st.session_state["selection"] if name in known]
    base = [view.sweep.base.name] if view.sweep.base else []
    proposed = list(dict.fromkeys([*base, *selected, *names]))[:3]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        corners = [
            st.selectbox(
                f"{label} corner", names, index=names.index(name), key=f"corner-{label}-{proposed}"
            )
            for label, name in zip(("First", "Second", "Third"), proposed, strict=True)
        ]
        split = st.selectbox("Split", view.task.reported, width=180)
        size = st.selectbox(
            "Points a side", SIZES, index=len(SIZES) - 1, width=140,
            help="Each grid holds the one before it, so a finer one costs only what is new.",
        )  # fmt: skip
    return corners, split, size


def _drawn(view: View, known: Mapping[str, Point]) -> list[str]:
    selected = st.session_state["selection"]
    choice = st.segmented_control(
        "Project", ["selected", "all"], default="selected" if selected else "all", required=True,
        key=f"project-{bool(selected)}",
    )  # fmt: skip
    soups = [name for name, point in known.items() if point.kind == "soup"]
    base = [view.sweep.base.name] if view.sweep.base else []
    return [*base, *(selected if choice == "selected" else view.sweep.ingredients), *soups]


def _button(
    view: View, known: Mapping[str, Point], corners: Sequence[str], split: str, size: int,
    found: Plane | None,
) -> None:  # fmt: skip
    missing = size**2 if found is None else found.missing
    if missing:
        request = view.request | {
            "corners": [known[name].end for name in corners],
            "split": split,
            "size": size,
        }
        asking.button(
            f"Evaluate {asking.points(missing)}", "plane",
            f"Evaluate the plane of {', '.join(corners)} on {split}", request, key="evaluate",
        )  # fmt: skip


def _draw(
    view: View, known: Mapping[str, Point], names: Sequence[str], found: Plane, code: str
) -> None:
    places = {name: found.frame.locate(known[name].mixture) for name in names}
    figure = figures.plane_contours(
        found, places, {name: known[name].kind for name in names}, view.colours,
        loss_name=view.task.loss_name, score_name=view.task.score_name,
    )  # fmt: skip
    export.show(figure, "plane", plane_table(found, places), code)
    side = len(found.xs)
    state = f"{side}×{side} points on {found.split}"
    if found.missing:
        state += f"; {found.missing} still missing for the finest grid"
    st.caption(
        f"{state}. Points off the plane are drawn the fainter the farther from it they lie: what "
        "the plane shows at their place is not what they score. Hover for the distance."
    )


main(st.session_state["view"])
