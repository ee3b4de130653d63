"""The pairwise matrix: buttons for missing pairs, the figure, and the basins."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from pages.components import display, exports, jobs, snippets, state
from pages.components.display import listed, plain
from pages.components.state import Pair, View
from soupcore import basins, figures
from soupcore.calls import ClickedPath, Paths, WeightGeometry
from soupcore.connectivity import (
    Basin,
    PairSummaries,
    Tree,
    between,
    summaries,
    tight_clusters,
    tree,
)
from soupcore.connectivity.adaptive import EVALUATIONS_PER_LINE
from soupcore.display import capitalised
from soupcore.figures import Measure
from soupcore.figures.tables import pairs_table, summaries_table
from soupcore.inner_products import Floats
from soupcore.plan import seconds, seconds_of_geometry
from soupcore.sweeps.remote_table import remote_of
from soupcore.tasks import NO_LABELS, Labels

_KEY = "heatmap"
GEOMETRIC = ("angle", "distance")
_BASINS = 4  # basins of more than one ingredient
_NAMED = 20  # names; more would push the matrix off the screen, so only the first few are listed
_FIRST = 5
_FOLDED_FROM = 40  # ingredients; fewer have rows of a readable height
_UNFOLDED = "unfolded-clusters"
_FIELDS = {
    "loss": "barrier",
    "error": "error_barrier",
    "error (Frankle)": "over_mean",
    "midpoint": "midpoint_advantage",
}
_HOVERED = ("loss", "error", "midpoint")  # in hover texts, whichever measure is chosen
_BOUNDS = {"loss": "barrier_bound", "error": "error_bound", "error (Frankle)": "over_mean_bound"}


@dataclass(frozen=True)
class Choices:
    """The user's choices for the matrix.

    Attributes:
        names: The ingredients.
        alphas: Number of α values per pair, or "adaptive".
        split: Name of the split.
        measure: A name of `figures.measures`.
        clustered: Whether rows are ordered by single-linkage clustering.
    """

    names: Sequence[str]
    alphas: int | str
    split: str
    measure: str
    clustered: bool

    @property
    def call(self) -> Paths:
        """The lines between all pairs."""
        return Paths(names=tuple(self.names), alphas=self.alphas, splits=(self.split,))


@dataclass(frozen=True)
class Summaries:
    """The summaries of the evaluated pairs.

    Attributes:
        whole: Summaries on the whole split.
        screen: Summaries on a part of the split; None if the split is too small for a screen.
        best: Per pair the more reliable of the two.
    """

    whole: PairSummaries
    screen: PairSummaries | None
    best: PairSummaries


def look_up(view: View, choices: Choices) -> Summaries:
    """Look up the summaries of the pairs."""
    whole = jobs.pairs(view, choices.names, choices.alphas, choices.split)
    if len(view.task.split(choices.split)) < 2 * summaries.SCREEN:
        return Summaries(whole, None, whole)
    screen = jobs.pairs(view, choices.names, choices.alphas, choices.split, part=summaries.SCREEN)
    return Summaries(whole, screen, whole.or_screened(screen))


def show_buttons(view: View, choices: Choices, found: Summaries) -> None:
    """Show the buttons that evaluate missing pairs."""
    if choices.measure in GEOMETRIC:
        show_geometry_button(view)
        return
    call = choices.call
    count = math.comb(len(choices.names), 2)
    left = _evaluations_left(view, choices, found.whole, choices.split)
    if not left:
        return
    screening = 0
    if found.screen is not None:
        part = view.task.part(choices.split, summaries.SCREEN)
        screening = _evaluations_left(view, choices, found.screen, part)
    doubtful = [] if screening else _doubtful(view, choices, found.best)
    size = len(view.task.split(choices.split))
    # The cheapest step comes first: a screen, then the pairs that it leaves open, then the rest.
    with st.container(horizontal=True):
        if screening:
            jobs.call_button(
                view, f"Quick screen ({summaries.SCREEN} examples)",
                replace(call, part=summaries.SCREEN), f"Screen {count:,} pairs on {choices.split}",
                key="screen",
                help=f"Fast estimate on a stratified sample of {summaries.SCREEN} "
                f"{plain(choices.split)} examples. Click a cell to evaluate that pair in full.",
                price=seconds(view.overview, screening * summaries.SCREEN), starts=True,
            )  # fmt: skip
        elif doubtful:
            one = len(doubtful) == 1
            pairs = "the doubtful pair" if one else f"the {len(doubtful):,} doubtful pairs"
            jobs.call_button(
                view, f"Refine {pairs}", replace(call, names=None, pairs=tuple(doubtful)),
                f"Evaluate {pairs} on {choices.split}", key="refine",
                help="Evaluates preliminary pairs with a barrier near the basin threshold on all "
                f"of {plain(choices.split)}: those that may still join or leave a basin.",
                price=seconds(view.overview, EVALUATIONS_PER_LINE * len(doubtful) * size),
            )  # fmt: skip
        jobs.call_button(
            view, f"Run {jobs.evaluations_text(left, about=choices.alphas == 'adaptive')}", call,
            f"Evaluate {count:,} pairs on {choices.split}", key="evaluate-all",
            primary=not (screening or doubtful),
            help=f"Evaluates {count:,} pairs on all of {plain(choices.split)}. Stored results "
            "are reused.",
            price=seconds(view.overview, left * size), starts=found.screen is None,
        )  # fmt: skip


def show_geometry_button(view: View) -> None:
    """Show the button that computes angles and distances, unless they are stored."""
    if WeightGeometry().result(view) is None:
        jobs.call_button(
            view, "Compute angles and distances", WeightGeometry(), "Compute the geometry",
            key="measure", help="Reads each checkpoint once; runs no forward passes.",
            price=seconds_of_geometry(view.sweep) if remote_of(view.folder) is None else None,
            starts=True,
        )  # fmt: skip


def values_of(view: View, choices: Choices, found: Summaries | None) -> Floats | None:
    """Return the matrix of the chosen measure; None if no pair is evaluated."""
    if choices.measure in GEOMETRIC:
        geometry = WeightGeometry().result(view, choices.names)
        if geometry is None:
            return None
        return geometry.angles if choices.measure == "angle" else geometry.distances
    if found is None or not len(found.best):
        return None
    return found.best.matrix(_FIELDS[choices.measure])


def draw(
    view: View,
    choices: Choices,
    found: Summaries | None,
    values: Floats,
    threshold: float | None = None,
    grouped: Sequence[Basin] = (),
) -> None:
    """Draw the matrix. A click on a cell adds its curve, and a job if the pair is not evaluated.

    Tight clusters of a large sweep are folded into one row each, until a click unfolds them.
    Without a task there are no summaries and no curves.
    """
    labels = view.task.labels if view.has_task else NO_LABELS
    unit = labels.score_unit
    measure = figures.measures(unit, labels.score_name)[choices.measure]
    evaluated = found.best if found and choices.measure not in GEOMETRIC else None
    outlined = [basin.names for basin in grouped if len(basin.names) > 1]
    folded = {}
    if threshold is not None:
        folded = _choose_folded(choices, values, threshold / measure.factor)
    groups: dict[str, list[str]] = {}
    if folded:
        home = {name: label for label, names in folded.items() for name in names}
        for name in choices.names:
            groups.setdefault(home.get(name, name), []).append(name)
        outlined = [tuple(dict.fromkeys(home.get(n, n) for n in names)) for names in outlined]
        figure = _folded_heatmap(
            choices, evaluated, values, measure, threshold, groups, home, outlined
        )
    else:
        figure = figures.pair_heatmap(
            choices.names,
            values,
            measure,
            tree=join(choices, values) if choices.clustered else None,
            threshold=threshold,
            preliminary=evaluated.preliminary if evaluated else (),
            details=_details(choices, evaluated, labels) if evaluated else {},
            outlined=outlined,
        )
    code = snippets.matrix(
        view, choices.call, choices.measure, tree=choices.clustered, threshold=threshold,
        outlined=outlined, groups=groups,
    )  # fmt: skip
    table = pairs_table(choices.names, {measure.title: values * measure.factor})
    if evaluated:
        table = summaries_table(evaluated, choices.split, score_unit=unit)

    def pick(cells: list[list[str]]) -> None:
        if found is not None:
            _take_clicks(view, choices, found, cells, [*folded])

    display.show_figure(
        figure,
        _KEY,
        table,
        code,
        on_pick=pick if found is not None else None,
        title=capitalised(measure.title),
        about=exports.sizes(view.task, choices.split) if evaluated else "",
    )


def join(choices: Choices, values: Floats) -> Tree:
    """Return the single-linkage tree of the pairs; a higher midpoint gain joins earlier."""
    return tree(choices.names, -values if choices.measure == "midpoint" else values)


def forget_clicks() -> None:
    """Make every cell clickable again, including the last one clicked."""
    display.renew_clicks(_KEY)


def choose_threshold(
    found: PairSummaries, barriers: Floats, measure: Measure
) -> tuple[float, list[Basin]]:
    """Show which ingredients share a basin at a threshold that the user chooses.

    Args:
        found: The evaluated pairs.
        barriers: Barriers between all pairs, shape [k, k]; NaN if not evaluated or undefined.
        measure: The measure of the barriers.

    Returns:
        The threshold, in the unit of the measure, and the basins.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        limit: float = st.number_input(
            f"Basin threshold ({measure.title}{measure.unit and ','}{measure.unit})",
            min_value=0.0,
            value=float(measure.connected or 0),
            step=0.05 if measure.factor == 1 else 0.5,
            format="%.2f",
            key=_threshold_key(measure),
            width=320,
            help="Two ingredients share a basin if a chain of pairs connects them with every "
            "barrier at or below this threshold (the dotted line in the dendrogram).",
        )
        grouped = basins(found.names, barriers, limit / measure.factor, known=found.known)
        shared = [basin for basin in grouped if len(basin.names) > 1]
        for number, basin in enumerate(shared[:_BASINS]):
            st.button(
                f"Select these {len(basin.names)} ingredients",
                icon=":material/check_box:",
                key=f"select-basin-{number}",
                disabled=list(basin.names) == st.session_state["selection"],
                on_click=_select_basin,
                args=(basin,),
            )
    lines = basin_sentences(grouped, evaluated=len(found), preliminary=len(found.preliminary))
    st.caption("  \n".join(lines))
    return limit, grouped


def basin_sentences(found: Sequence[Basin], *, evaluated: int, preliminary: int = 0) -> list[str]:
    """Return sentences about basins that follow from the evaluated pairs.

    Args:
        found: The basins.
        evaluated: Number of evaluated pairs.
        preliminary: Number of these whose barrier may still increase.
    """
    count = sum(len(basin.names) for basin in found)
    pairs = comb(count, 2)
    shared = [basin for basin in found if len(basin.names) > 1]
    lines = []
    if preliminary:
        lines.append(
            f"From {evaluated:,} of {pairs:,} pairs, {preliminary:,} of them preliminary; basins "
            "may still change."
        )
    elif evaluated < pairs:
        more = "; basins may still grow" if len(found) > 1 else ""
        lines.append(f"From {evaluated:,} of {pairs:,} pairs{more}.")
    if not shared:
        if evaluated == pairs:
            return [*lines, "No two ingredients share a basin."]
        lines.append("No evaluated pair shares a basin.")
    for number, basin in enumerate(shared[:_BASINS], start=1):
        k = len(basin.names)
        who = f"All {k} ingredients" if k == count else f"{k} of {count} ingredients"
        lines.append(f"**{who} share a basin (B{number}):** {_named(basin.names)}{_chain(basin)}")
    if len(shared) > _BASINS:
        lines.append(f"… plus {len(shared) - _BASINS} smaller basins.")
    alone = {basin.names[0]: basin.is_closed for basin in found if len(basin.names) == 1}
    isolated = [name for name, is_closed in alone.items() if is_closed]
    waiting = [name for name, is_closed in alone.items() if not is_closed]
    if isolated:
        are = "1 ingredient shares" if len(isolated) == 1 else f"{len(isolated)} ingredients share"
        lines.append(f"**{are} no basin with another:** {_named(isolated)}")
    if waiting and (shared or isolated):
        are = "1 ingredient is" if len(waiting) == 1 else f"{len(waiting)} ingredients are"
        lines.append(f"**{are} not linked yet:** {_named(waiting)}")
    return lines


def _doubtful(view: View, choices: Choices, found: PairSummaries) -> list[Pair]:
    """Return the pairs that may still join or leave a basin."""
    measure = figures.measures(view.task.score_unit, view.task.score_name)[choices.measure]
    limit = _threshold(measure)
    if limit is None or choices.measure not in _BOUNDS or choices.alphas != "adaptive":
        return []
    fields = _FIELDS[choices.measure], _BOUNDS[choices.measure]
    return found.doubtful(*fields, limit / measure.factor)


def _threshold(measure: Measure) -> float | None:
    """Return the basin threshold in displayed units; None if the measure has none."""
    limit: float | None = st.session_state.get(_threshold_key(measure), measure.connected)
    return limit


def _threshold_key(measure: Measure) -> str:
    return f"threshold-{measure.title}"


def _evaluations_left(view: View, choices: Choices, found: PairSummaries, split: str) -> int:
    """Return an estimate of the missing evaluations on a split or part; 0 if none is missing."""
    if not _unsettled(found):
        return 0
    ends = [view.sweep[name].mixture for name in choices.names]
    alone = len(view.evaluations.missing(ends, split))
    if isinstance(choices.alphas, int):
        return alone + (choices.alphas - 2) * _unsettled(found)
    # A line takes its midpoint, and a few more α values if its barrier is low.
    begun = int((found.column("points") > 3).sum())
    unknown = math.comb(len(choices.names), 2) - len(found)
    following = (EVALUATIONS_PER_LINE - 1) * (unknown + len(found) - begun)
    return alone + unknown + max(_unsettled(found), following)


def _unsettled(found: PairSummaries) -> int:
    return math.comb(len(found.names), 2) - int(found.settled.sum())


def _choose_folded(choices: Choices, values: Floats, limit: float) -> dict[str, list[str]]:
    """Return the tight clusters to draw as one row each, by their label."""
    if len(choices.names) < _FOLDED_FROM:
        return {}
    clusters = tight_clusters(choices.names, values, limit)
    foldable = {
        f"Cluster {number} ({len(names)})": list(names)
        for number, names in enumerate(clusters, start=1)
        if len(names) > 2
    }
    if not foldable or len(clusters) == 1:
        return {}
    unfolded = st.pills(
        "Unfold", [*foldable], selection_mode="multi", key=_UNFOLDED,
        help="No pair within a cluster exceeds the threshold. A cluster is drawn as one row with "
        "the highest barrier between its ingredients and the others. Unfold it here or by a click "
        "on one of its cells.",
    )  # fmt: skip
    return {label: names for label, names in foldable.items() if label not in unfolded}


def _folded_heatmap(
    choices: Choices,
    evaluated: PairSummaries | None,
    values: Floats,
    measure: Measure,
    threshold: float | None,
    groups: Mapping[str, Sequence[str]],
    home: Mapping[str, str],
    outlined: Sequence[Sequence[str]],
) -> go.Figure:
    labels = [*groups]
    ranges = between(choices.names, values, [*groups.values()])
    preliminary = {
        (home.get(a, a), home.get(b, b)) for a, b in (evaluated.preliminary if evaluated else ())
    }
    details = {}
    for (i, a), (j, b) in combinations(enumerate(labels), 2):
        count = len(groups[a]) * len(groups[b])
        if count > 1 and np.isfinite(ranges.lowest[i, j]):
            lowest = ranges.lowest[i, j] * measure.factor
            details[a, b] = f"highest of {count:,} pairs · lowest {lowest:.3g}{measure.unit}"
    return figures.pair_heatmap(
        labels,
        ranges.highest,
        measure,
        tree=tree(labels, ranges.lowest) if choices.clustered else None,
        threshold=threshold,
        preliminary=preliminary,
        details=details,
        outlined=outlined,
    )


def _take_clicks(
    view: View, choices: Choices, found: Summaries, cells: list[list[str]], folded: list[str]
) -> None:
    """Unfold the clusters of clicked cells, and add the curves of the other cells."""
    labels = [label for label in folded if any(label in cell[:2] for cell in cells)]
    if labels:
        st.session_state[_UNFOLDED] = [*st.session_state.get(_UNFOLDED, []), *labels]
    else:
        _add_curves(view, choices, found, cells)


def _details(choices: Choices, best: PairSummaries, labels: Labels) -> dict[Pair, str]:
    """Return the hover text of each pair, which follows the chosen measure."""
    unit = labels.score_unit
    known = figures.measures(unit, labels.score_name)
    others = [
        (known[name], (best.column(_FIELDS[name]) * known[name].factor).tolist())
        for name in _HOVERED
        if name != choices.measure
    ]
    points, sizes = best.column("points").tolist(), best.column("n").tolist()
    bounds = None
    if choices.measure in _BOUNDS:
        bounds = best.column(_BOUNDS[choices.measure]).tolist()
    texts = {}
    for row, (a, b) in enumerate(best.pairs.tolist()):
        text = f"{choices.split} · {points[row]:.0f} α values"
        if best.screened[row]:
            text += f" · screened ({sizes[row]:.0f} examples)"
        elif not best.settled[row]:
            text += " · not yet converged"
        if bounds is not None and math.isfinite(bound := bounds[row]):
            high = f"{bound:.3f}" if choices.measure == "loss" else unit.gap(bound)
            text += f" · upper bound ≈ {high}"
        for measure, values in others:
            if math.isfinite(value := values[row]):
                number = f"{value:+.3g}" if measure.diverges else f"{value:.3g}"
                text += f" · {measure.title} {number}{measure.unit}"
        texts[best.names[a], best.names[b]] = text
    return texts


def _add_curves(view: View, choices: Choices, found: Summaries, cells: list[list[str]]) -> None:
    for a, b, *_ in cells:
        pair = (a, b) if list(choices.names).index(a) < list(choices.names).index(b) else (b, a)
        chosen = st.session_state["pairs"]
        if pair not in chosen:
            st.session_state["pairs"] = [*chosen, pair]
        if not found.whole.is_settled(pair) and not state.store().is_read_only:
            call = ClickedPath(pairs=(pair,), alphas=choices.alphas, splits=(choices.split,))
            jobs.start(view, call, f"Evaluate {a} → {b} on {choices.split}")


def _chain(basin: Basin) -> str:
    """Return the pairs of a basin that are connected through others only, as text."""
    parts = []
    if apart := len(basin.apart):
        exceed = "1 pair exceeds" if apart == 1 else f"{apart:,} pairs exceed"
        parts.append(
            f"{exceed} the threshold and {'is' if apart == 1 else 'are'} connected only through "
            f"other ingredients: {_pairs(basin.apart)}"
        )
    if unknown := len(basin.unknown):
        parts.append(f"{unknown:,} pair{'' if unknown == 1 else 's'} not evaluated yet")
    return f" ({'; '.join(parts)})" if parts else ""


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(f"{plain(a)} – {plain(b)}" for a, b in pairs[:3])
    return f"{shown}, …" if len(pairs) > 3 else shown


def _named(names: Sequence[str]) -> str:
    if len(names) <= _NAMED:
        return listed(names)
    return f"{listed(names[:_FIRST])} … and {len(names) - _FIRST} more"


def _select_basin(basin: Basin) -> None:
    st.session_state["selection"] = list(basin.names)
