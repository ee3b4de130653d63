"""Evidence that a soup is better: paired comparisons, selection bias, attribution, calibration."""

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
import streamlit as st

from pages.components import (
    display,
    exports,
    jobs,
    scores,
    selection_bias,
    snippets,
    tasks,
)
from pages.components.display import listed, plain
from pages.components.state import View
from soupcore import RECIPES, Step, figures
from soupcore.analysis import Calibration, points
from soupcore.calls import Attribution, Calibrations, Result
from soupcore.evidence import against_best, why_no_intervals
from soupcore.figures.style import NEUTRAL, SOUP
from soupcore.figures.tables import attribution_table, calibration_table
from soupcore.intervals import Paired
from soupcore.plan import seconds
from soupcore.recipes.parts import follows_recipe
from soupcore.stored_soups import StoredSoup
from soupcore.tasks import SHARE, Unit
from soupcore.tasks.unit import UNKNOWN

_P = "p (McNemar)"
_ENSEMBLE = "ensemble"


def show(view: View, picked: StoredSoup) -> None:
    """Show the evidence that a soup is better than the best ingredient."""
    if not view.has_task:
        tasks.show_needed("Evidence", key="evidence")
        return
    known = scores.of_all(view, [picked])
    best = view.overview.best
    if best is None:
        st.info(
            "Nothing to compare with: no ingredient has been evaluated on the validation split.",
            icon=":material/grocery:",
        )
        scores.offer_ingredients(view, key="evidence")
        return
    _against_best(view, picked, best, known)
    _acceptances(view, picked)
    with st.container(key="two-figures"):
        left, right = st.columns(2)
    with left:
        selection_bias.show(view, picked, best, known)
        selection_bias.show_orders(view, picked)
    with right:
        show_attribution(view, picked)
    show_calibration(view, picked, best, known)
    snippets.show(snippets.evidence(view, picked, best))


def show_attribution(view: View, picked: StoredSoup) -> None:
    """Show the contribution of each ingredient, or a button that computes it."""
    st.subheader("Contribution of each ingredient")
    if len(picked.soup.ingredients) < 2:
        st.caption("Attribution needs at least two ingredients in the soup.")
        return
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    call = Attribution(picked.soup.id, split)
    found = call.shares(view)
    if found is not None:
        shares, without = found
        figure = figures.attribution_bars(
            shares,
            without,
            score_name=f"{view.task.score_name} on {split}",
            score_unit=view.task.score_unit,
        )
        code = snippets.attribution(view, call)
        display.show_figure(
            figure,
            "attribution",
            attribution_table(shares, without),
            code,
            title=f"Contributions to {picked.label}",
            about=exports.sizes(view.task, split),
        )
        return
    count = points(len(picked.soup.ingredients))
    st.caption(
        f"Computes leave-one-out and Shapley values from up to {count:,} sub-soups on "
        f"{plain(split)}. {_rebuilt(picked)} For reporting only; do not choose ingredients by it."
    )
    jobs.call_button(
        view, "Compute contributions", call, f"Attribution of {picked.label}", key="attribution",
        primary=False, price=seconds(view.overview, count * len(view.task.split(split))),
    )  # fmt: skip


def show_calibration(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    """Show confidence against accuracy of the soup, the ingredients and the ensemble."""
    st.subheader("Calibration")
    if view.task.why_no_kept_outputs is not None:
        st.caption(f"No calibration. {plain(view.task.why_no_kept_outputs)}")
        return
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    by_name = _calibrations(view, picked, known, split)
    if by_name is None:
        splits = jobs.splits_text([*dict.fromkeys((view.task.select, split))])
        st.caption(
            f"Not computed yet. Needs the soup and the ingredients evaluated on {plain(splits)}."
        )
        return
    drawn = [name for name in (picked.label, best, _ENSEMBLE) if name in by_name]
    without = [by_name[name]["why_none"] for name in drawn if "why_none" in by_name[name]]
    if without:
        st.caption(plain(without[0]))
        return
    with st.container(horizontal=True):
        after = st.toggle(
            f"Apply temperature scaling (fitted on {plain(view.task.select)})",
            key="calibration-temperature",
        )
        in_table = st.toggle("Table for all ingredients", key="calibration-table")
    own = figures.curve_colours(drawn, view.sweep.ingredients)
    inks = {picked.label: SOUP, _ENSEMBLE: NEUTRAL, **own}
    when = "after" if after else "before"
    found = {name: Calibration.from_json(by_name[name][when]) for name in drawn}
    figure = figures.reliability_diagram(found, inks)
    code = snippets.reliability(view, picked, drawn, split, after=after)
    display.show_figure(
        figure,
        "reliability",
        calibration_table(found),
        code,
        title=f"Reliability {when} temperature scaling",
        about=exports.sizes(view.task, split),
    )
    st.caption(
        f"{plain(split)}, equal-mass bins. ECE = expected calibration error. "
        + compared({name: each.ece for name, each in found.items()}, picked.label, best)
    )
    if after:
        temperatures = ", ".join(
            f"{plain(name)} {each.temperature:.2f}" for name, each in found.items()
        )
        st.caption(f"Fitted temperatures: {temperatures}.")
    if in_table:
        _calibration_table(by_name)


def compared(errors: Mapping[str, float], soup: str, best: str) -> str:
    """Return how a soup's calibration compares, as Markdown.

    Args:
        errors: Expected calibration errors, 0 to 1, by name.
        soup: Name of the soup.
        best: Name of the best ingredient.
    """
    if soup not in errors:
        return ""
    others = {f"of {plain(best)}": errors.get(best), "of the ensemble": errors.get(_ENSEMBLE)}
    parts = []
    for network, error in others.items():
        if error is not None:
            text, gap = SHARE.text(error), errors[soup] - error
            if SHARE.number(errors[soup]) == SHARE.number(error):
                parts.append(f"equal to that {network}")
            else:
                side = "above" if gap > 0 else "below"
                parts.append(f"{SHARE.gap(abs(gap))} {side} that {network} ({text})")
    return (
        f"The soup's is {SHARE.text(errors[soup])}"
        + "".join(f"{', ' if index == 0 else ' and '}{each}" for index, each in enumerate(parts))
        + "."
    )


def _against_best(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    st.subheader(f"Soup vs. best single ingredient ({plain(best)})")
    names = view.sweep.names()
    evaluated = [name for name in names if known[name][view.task.select] is not None]
    if len(evaluated) < len(names):
        st.info(
            f"Only {len(evaluated)} of {len(names)} ingredients have been evaluated on "
            f"{plain(view.task.select)}; {plain(best)} is the best of those.",
            icon=":material/grocery:",
        )
        scores.offer_ingredients(view, key="evidence")
    unit = view.task.score_unit
    found = against_best(view.overview, picked)
    rows = [
        {
            "split": view.task.split_title(split),
            unit.label("soup"): compared.soup.score * unit.factor,
            unit.label("best ingredient"): compared.best.score * unit.factor,
            unit.difference_label("Δ"): compared.difference.difference * unit.factor,
            "95% CI": unit.difference_interval(compared.difference.interval),
        }
        | _changes(compared.difference)
        for split, compared in found.items()
        if compared is not None
    ]
    scores.offer_evaluation(view, picked, key="evidence")
    if not rows:
        return
    _table(unit, rows)
    for why, splits in why_no_intervals(found).items():
        st.caption(f"No interval on {listed(splits)}: {plain(why)}")
    scores.show_undefined(view, {name: known[name] for name in (picked.label, best)})
    st.caption(_caption(view, picked, has_changes=_P in rows[0]))


def _caption(view: View, picked: StoredSoup, *, has_changes: bool) -> str:
    """Return a caption that explains the table."""
    chosen_on = picked.soup.parameters.get("split")
    optimistic = (
        f"The soup was selected on {plain(str(chosen_on))}, so its score there is optimistic"
        if chosen_on
        else "If you picked this soup, its ingredients or its parameters by their "
        f"{plain(view.task.select)} score, that score is optimistic"
    )
    what = plain(view.task.score_name)
    remarks = f"{optimistic}. {scores.advice(view.task)}"
    if not view.task.has_examples:
        return f"Comparison of {what}. {remarks}"
    if not view.task.metric.is_mean:
        changes = "The interval is that of the difference over 200 bootstrap resamples."
    elif has_changes:
        changes = "“Newly correct” and “newly wrong” count examples whose correctness flipped."
    elif view.task.is_weighted:
        changes = "Examples have weights, so changed examples are not counted."
    else:
        changes = "Scores of single examples are not 0 or 1, so changed examples are not counted."
    return (
        f"Paired comparison of {what} on the same examples. {remarks} {changes} The interval "
        "reflects sampling of examples, not variation between training runs."
    )


def _changes(found: Paired | Step) -> dict[str, Any]:
    """Return counts of changed examples; empty unless scores are 0 or 1."""
    if found.gained is None or found.lost is None:
        return {}
    # Soups of earlier versions have no p-value.
    p = float("nan") if found.p_value is None else found.p_value
    return {"newly correct": found.gained, "newly wrong": found.lost, _P: p}


def _acceptances(view: View, picked: StoredSoup) -> None:
    steps = [step for step in picked.soup.trace[1:] if step.accepted]
    if not steps:
        return
    labels = picked.soup.chosen_by(view.task).labels
    unit = labels.score_unit
    st.subheader("Gain per accepted ingredient")
    rows = [
        {
            "step": f"{'+' if step.action == 'add' else '−'} {step.candidate}",
            unit.label(f"validation {labels.score_name} after"): step.score * unit.factor,
            f"{unit.difference_label('Δ')} (95% CI)": unit.difference_interval(step.interval),
        }
        | _changes(step)
        for step in steps
    ]
    _table(unit, rows, width=720)
    by_another = labels.score_name != view.task.score_name
    chosen_by = f"Greedy chose by {plain(labels.score_name)}. " if by_another else ""
    st.caption(
        f"{chosen_by}For information only. Individual steps are rarely significant, and dropping "
        "the non-significant ones discards most of the soup's gain."
    )


def _table(
    unit: Unit, rows: list[dict[str, Any]], *, width: int | Literal["stretch"] = "stretch"
) -> None:
    table = pd.DataFrame(rows)
    formats: dict[Any, Any] = {
        column: unit.difference_cell if column == unit.difference_label("Δ") else unit.cell
        for column in table.select_dtypes("float").columns
    }
    formats |= {_P: "{:.3g}"} if _P in table else {}
    st.dataframe(table.style.format(formats, na_rep=UNKNOWN), hide_index=True, width=width)


def _rebuilt(picked: StoredSoup) -> str:
    if not follows_recipe(picked.soup):
        return "Remaining ingredients keep their relative weights."
    return f"Each sub-soup is rebuilt with {RECIPES[picked.soup.recipe].title}."


def _calibrations(
    view: View, picked: StoredSoup, known: scores.Known, split: str
) -> dict[str, Result] | None:
    """Return the calibrations by name; None if they are not computed yet."""
    needed = (view.task.select, split)
    names = [
        name
        for name in [picked.label, *view.sweep.names()]
        if all((found := known[name][each]) and found.has_outputs for each in needed)
    ]
    if picked.label not in names:
        return None
    call = Calibrations(picked.soup.id, tuple(names[1:]), split)
    title = f"Calibration of {picked.label}"
    result = jobs.derived(view, call, title, key="calibration")
    if result is None:
        return None
    return {picked.label: result["soup"], _ENSEMBLE: result["ensemble"], **result["ingredients"]}


def _calibration_table(by_name: Mapping[str, Result]) -> None:
    rows = {}
    for name, both in by_name.items():
        if "why_none" in both:
            continue
        before, after = (Calibration.from_json(both[when]) for when in ("before", "after"))
        rows[name] = {
            "ECE, %": 100 * before.ece,
            "temperature": after.temperature,
            "ECE after scaling, %": 100 * after.ece,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    st.dataframe(table.style.format("{:.2f}"), width=480)
