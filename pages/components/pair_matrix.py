"""The matrix of all pairs: what is known of it, asking for the rest, and drawing it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from pages.components import asking, connectivity_snippets, export, jobs, picking
from pages.components.state import Pair, View
from soupcore import Barriers, LinearPath, figures
from soupcore.connectivity import Tree, stored_barriers, stored_geometry, tree
from soupcore.connectivity.barriers import pairs
from soupcore.connectivity.bracket import Floats
from soupcore.figures.tables import barriers_table, pairs_table
from soupcore.jobs.connectivity_kinds import alphas_of

KEY = "heatmap"
SCREEN = 200  # examples of a first look
GEOMETRIC = ("angle", "distance")


@dataclass(frozen=True)
class Asked:
    """What is to be shown of the pairs.

    Attributes:
        names: The ingredients.
        alphas: How many points a line, or "adaptive".
        split: Which split.
        measure: A name of `figures.MEASURES`.
        clustered: Whether those that join early stand beside each other.
    """

    names: Sequence[str]
    alphas: int | str
    split: str
    measure: str
    clustered: bool


@dataclass(frozen=True)
class Found:
    """What is known of the pairs.

    Attributes:
        whole: On the whole split.
        screen: On a part of it, None where the split is too small for that.
        best: Of each pair the better of the two; `open` are those that may still change.
    """

    whole: Barriers
    screen: Barriers | None
    best: Barriers


def find(view: View, asked: Asked) -> Found:
    """Look up what is known of the pairs."""
    whole = _stored(view, asked, asked.split)
    if len(view.task.split(asked.split)) < 2 * SCREEN:
        return Found(whole, None, whole)
    screen = _stored(view, asked, view.task.part(asked.split, SCREEN))
    paths = {
        pair: path
        for pair in pairs(asked.names)
        if (path := _better(pair, whole, screen)) is not None
    }
    settled = whole.paths.keys() - whole.open
    best = Barriers(whole.names, paths, whole.missing, frozenset(paths.keys() - settled))
    return Found(whole, screen, best)


def ask(view: View, asked: Asked, found: Found) -> None:
    """Show the buttons that ask for what is missing."""
    if asked.measure in GEOMETRIC:
        if stored_geometry(view.sweep, view.evaluator.store) is None:
            asking.button(
                "Measure angles and distances", "geometry", "Measure the geometry", view.request,
                key="measure", help="Reads every checkpoint once; no forward pass.",
            )  # fmt: skip
        return
    request = view.request | {
        "names": list(asked.names),
        "alphas": asked.alphas,
        "splits": [asked.split],
    }
    count = len(list(pairs(asked.names)))
    adaptive = asked.alphas == "adaptive"
    with st.container(horizontal=True):
        if found.whole.missing:
            # Of a line of which no more than ends and middle are known, most is not asked for yet.
            begun = sum(len(path.alphas) > 3 for path in found.whole.paths.values())
            points = max(found.whole.missing, 4 * (count - begun)) if adaptive else (
                found.whole.missing)  # fmt: skip
            asking.button(
                f"Evaluate {asking.points(points, about=adaptive)}",
                "paths", f"Evaluate {count} lines on {asked.split}", request, key="evaluate-all",
                help=f"{count} lines on all {len(view.task.split(asked.split))} examples of "
                f"{asked.split}, less what is known.",
            )  # fmt: skip
        if found.screen is not None and found.screen.missing and found.whole.missing:
            asking.button(
                f"Screen on {SCREEN} examples", "paths",
                f"Screen {count} lines on {asked.split}", request | {"part": SCREEN},
                key="screen", primary=False,
                help=f"A cheap first look: {SCREEN} examples of {asked.split}, each class in "
                "proportion. Click a cell to have its line evaluated on all of them.",
            )  # fmt: skip


def values_of(view: View, asked: Asked, found: Found) -> Floats | None:
    """Return what is measured between the pairs, None where nothing is known."""
    if asked.measure in GEOMETRIC:
        geometry = stored_geometry(view.sweep, view.evaluator.store, asked.names)
        if geometry is None:
            return None
        return geometry.angles if asked.measure == "angle" else geometry.distances
    best = found.best
    if not best.paths:
        return None
    if asked.measure == "midpoint":
        return best.midpoint_advantage
    return best.loss if asked.measure == "loss" else best.error


def draw(view: View, asked: Asked, found: Found, values: Floats, threshold: float | None) -> None:
    """Draw the matrix; a click on a cell adds its curve, and has it evaluated where it is not."""
    measure = figures.MEASURES[asked.measure]
    geometric = asked.measure in GEOMETRIC
    figure = figures.pair_heatmap(
        asked.names,
        values,
        measure,
        tree=join(asked, values) if asked.clustered else None,
        threshold=threshold,
        preliminary=() if geometric else found.best.open,
        details={} if geometric else _details(found),
    )
    code = connectivity_snippets.matrix(
        view, asked.names, asked.alphas, asked.split, asked.measure, tree=asked.clustered,
        threshold=threshold,
    )  # fmt: skip
    table = pairs_table(asked.names, {measure.title: values * measure.factor})
    if not geometric:
        table = barriers_table({pair: [path] for pair, path in found.best.paths.items()})
    export.show(figure, KEY, table, code, on_pick=lambda cells: _take(view, asked, found, cells))


def join(asked: Asked, values: Floats) -> Tree:
    """Return the tree of what is measured; a better middle joins as if nothing were between."""
    return tree(asked.names, -values if asked.measure == "midpoint" else values)


def _stored(view: View, asked: Asked, split: str) -> Barriers:
    # What is complete stays so; looking thousands of pairs up takes longer than drawing them.
    memory = st.session_state.setdefault("complete-barriers", {})
    key = (view.folder, view.task.key, view.statistics, view.task.split(split).digest, asked.alphas,
           tuple(view.sweep[name].digest for name in asked.names))  # fmt: skip
    if key not in memory:
        found = stored_barriers(
            view.sweep, view.evaluator, asked.names, alphas_of(asked.alphas), split=split
        )
        if found.missing:
            return found
        memory[key] = found
    complete: Barriers = memory[key]
    return complete


def _better(pair: Pair, whole: Barriers, screen: Barriers) -> LinearPath | None:
    # A screen that is under way knows less than the whole as far as that is known.
    if pair in whole.paths and (pair not in whole.open or pair in screen.open):
        return whole.paths[pair]
    return screen.paths.get(pair) or whole.paths.get(pair)


def _details(found: Found) -> dict[Pair, str]:
    texts = {}
    for pair, path in found.best.paths.items():
        high = path.barrier_bracket[1]
        text = f"{path.split} · {len(path.alphas)} points"
        if path is not found.whole.paths.get(pair):
            text += " · a screen"
        elif pair in found.whole.open:
            text += " · not refined yet"
        texts[pair] = text + (f"<br>loss barrier at most about {high:.3f}" if np.isfinite(high)
                              else "")  # fmt: skip
    return texts


def _take(view: View, asked: Asked, found: Found, cells: list[list[str]]) -> None:
    for a, b, *_ in cells:
        pair = (a, b) if list(asked.names).index(a) < list(asked.names).index(b) else (b, a)
        chosen = st.session_state["pairs"]
        if pair not in chosen:
            st.session_state["pairs"] = [*chosen, pair]
        if pair not in found.whole.paths or pair in found.whole.open:
            request = view.request | {
                "pairs": [list(pair)], "alphas": asked.alphas, "splits": [asked.split]
            }  # fmt: skip
            jobs.submit("line", f"Evaluate {a} → {b} on {asked.split}", request)


def forget_clicks() -> None:
    """Have every cell ready to be clicked, the one clicked last too."""
    picking.renew(KEY)
