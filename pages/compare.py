"""Soups, ingredients and ensembles compared: two to six side by side, and all in a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    comparison,
    display,
    exports,
    jobs,
    scores,
    snippets,
    soup_links,
    state,
    tasks,
)
from pages.components.display import plain
from pages.components.soup_links import MOST_COMPARED
from pages.components.state import View
from soupcore import Evaluation, figures
from soupcore.calls import EnsembleScores, GreedyEnsembleScores, Result, ShownExamples
from soupcore.display import counted
from soupcore.evaluation.measuring import changed_examples
from soupcore.figures.style import NEUTRAL, SOUP
from soupcore.figures.tables import coefficients_table, differences_table
from soupcore.overview import best_on_select
from soupcore.plan import seconds
from soupcore.stored_soups import StoredSoup
from soupcore.tasks.unit import UNKNOWN

_CHOSEN = "selection"
_REPORTED = "held out"
_EXAMPLES = 12  # shown for each of two
_COLUMNS = 6  # of examples


def main(view: View) -> None:
    st.header("Compare")
    if not view.has_task:
        tasks.show_needed("Comparing scores")
        return
    stored = view.overview.soups
    if not stored:
        soup_links.offer_build()
    points = scores.ingredients(view)
    base = {view.sweep.base.name: view.sweep.base.mixture} if view.sweep.base else {}
    known = scores.of_all(view, stored)
    _side_by_side(view, stored, known)
    if not stored:
        return
    st.subheader("All soups and ingredients")
    can_average = view.task.why_no_ensemble is None
    label = "Show the ensemble for" if can_average else "Soup"
    picked = scores.choose_soup(view, stored, label)
    scores.offer_evaluation(view, picked, key="compare")
    rows = [_row(view, soup.label, "soup", known[soup.label]) for soup in stored]
    if can_average:
        rows.append(_ensemble_row(view, picked))
        rows += _greedy_ensemble_rows(view, known, list(points))
    best = best_on_select(known, view.task.select, points)
    if best is not None:
        rows.append(_row(view, best, "best ingredient", known[best]))
    rows += [_row(view, name, "base", known[name]) for name in base]
    rows += [_row(view, name, "ingredient", known[name]) for name in points if name != best]
    _table(view, rows)
    scores.show_undefined(view, known)
    scores.show_shortfall(view, stored)
    comparison.show_statistics(view, picked, key="compare")
    comparison.show_scatter(
        view,
        known,
        "comparison-scatter",
        stored,
        selected=st.session_state["selection"],
        on_pick=soup_links.pick(view, stored),
    )


def _side_by_side(view: View, stored: Sequence[StoredSoup], known: scores.Known) -> None:
    """Let the user choose rows, and compare them.

    Args:
        view: The view, with a task.
        stored: The soups.
        known: `{name: {split: evaluation}}` of the ingredients, the base and the soups.
    """
    chosen = _choose(view, stored, known)
    if len(chosen) < 2:
        st.info("Choose at least two models.", icon=":material/compare_arrows:")
        return
    best = best_on_select(known, view.task.select, view.sweep.ingredients)
    start = best if best in chosen else chosen[-1]
    baseline = st.segmented_control(
        "Differences from",
        chosen,
        default=start,
        format_func=plain,
        required=True,
        key=f"compare-baseline-{chosen}",
    )
    inks = _inks(view, chosen)
    _scores_by_split(view, chosen, known)
    with st.container(horizontal=True):
        for soup in stored:
            if soup.label in chosen:
                soup_links.show_name(soup, key="compared")
    with st.container(key="side-by-side"):
        left, right = st.columns([3, 2])
    with left:
        _forest(view, chosen, known, baseline, inks)
    with right:
        _coefficients(stored, chosen)
    if view.task.has_examples:
        _changes(view, chosen, known, baseline)


def _choose(view: View, stored: Sequence[StoredSoup], known: scores.Known) -> list[str]:
    """Let the user choose the rows; the URL holds soups by their handles."""
    handles = {soup.label: soup.handle for soup in stored}
    labels = {handle: label for label, handle in handles.items()}
    requested = [labels.get(name, name) for name in st.session_state["compare"]]
    current = [name for name in requested if name in known][:MOST_COMPARED]
    if len(current) < 2:
        current = [*current, *(n for n in _default(view, stored, known) if n not in current)][:3]
    chosen = st.multiselect(
        "Models",
        [*handles, *(name for name in known if name not in handles)],
        default=current,
        max_selections=MOST_COMPARED,
        help=f"Two to {MOST_COMPARED} soups, ingredients, or the base.",
        key=f"compare-rows-{view.folder}-{sorted(handles)}",
    )
    st.session_state["compare"] = [handles.get(name, name) for name in chosen]
    return chosen


def _default(view: View, stored: Sequence[StoredSoup], known: scores.Known) -> list[str]:
    """Return the soup of the verdict, the best other one, and the best ingredient."""
    labels = [soup.label for soup in stored]
    headline = view.overview.headline
    first = headline.label if headline is not None else None
    second = best_on_select(known, view.task.select, [n for n in labels if n != first])
    run = best_on_select(known, view.task.select, view.sweep.ingredients)
    return [name for name in (first, second, run) if name is not None]


def _inks(view: View, chosen: Sequence[str]) -> list[str]:
    """Return distinct colours for the rows: those of ingredients, and other ones for soups."""
    spare = iter(figures.colours(str(place) for place in range(2 * MOST_COMPARED)).values())
    own = figures.curve_colours(chosen, view.sweep.ingredients)
    taken = {own[name] for name in chosen if name in own}
    made = []
    is_first = True
    for name in chosen:
        if name in own:
            made.append(own[name])
        elif view.sweep.base is not None and name == view.sweep.base.name:
            made.append(NEUTRAL)
        elif is_first:
            made.append(SOUP)
            is_first = False
        else:
            made.append(next(ink for ink in spare if ink not in taken and ink not in made))
    return made


def _scores_by_split(view: View, chosen: Sequence[str], known: scores.Known) -> None:
    unit = view.task.score_unit
    rows: list[dict[str, Any]] = []
    for split in view.task.reported:
        row = {
            "split": view.task.split_title(split),
            "n": next((e.n for n in chosen if (e := known[n][split])), None),
        }
        row |= {name: scores.with_interval(unit, known[name][split]) for name in chosen}
        rows.append(row)
    if view.task.splits_with_role("shift"):
        shifts = {name: scores.shift_mean(view, known[name]) for name in chosen}
        rows.append(
            {"split": "mean shift", "n": None}
            | {name: unit.number(shift) for name, shift in shifts.items()}
        )
    st.dataframe(pd.DataFrame(rows).astype({"n": "Int64"}), hide_index=True, placeholder=UNKNOWN)
    st.caption(
        f"Scores: {plain(unit.label(view.task.score_name))} ± half of the 95 % interval. The split "
        f"{plain(view.task.select)} was used for choosing, so its scores are optimistic."
    )


def _forest(
    view: View,
    chosen: Sequence[str],
    known: scores.Known,
    baseline: str,
    inks: Sequence[str],
) -> None:
    st.markdown("##### Differences")
    shown = {name: known[name] for name in chosen}
    table = differences_table(view.task, shown, baseline)
    if table.empty:
        st.caption("Not evaluated yet.")
        return
    named = dict(zip(chosen, inks, strict=True))
    colours = [named[name] for name in table["name"].unique()]
    figure = figures.difference_forest(
        table,
        colours,
        baseline=baseline,
        score_name=view.task.score_name,
        score_unit=view.task.score_unit,
    )
    points = scores.points(view)
    codes = {name: points[name].code for name in chosen}
    code = snippets.differences(view, codes, baseline, colours)
    display.show_figure(
        figure,
        "differences",
        table,
        code,
        title=f"Differences from {baseline}",
        about=exports.sizes(view.task, *view.task.reported),
    )
    st.caption("Paired on the same examples, with 95 % intervals.")


def _coefficients(stored: Sequence[StoredSoup], chosen: Sequence[str]) -> None:
    st.markdown("##### Coefficients")
    by_label = {soup.label: soup for soup in stored}
    soups = {name: by_label[name] for name in chosen if name in by_label}
    columns = {label: coefficients_table(soup.soup)["coefficient"] for label, soup in soups.items()}
    table = pd.DataFrame({label: column for label, column in columns.items() if len(column)})
    without = [label for label, column in columns.items() if not len(column)]
    if not table.empty:
        table = table.rename_axis("ingredient")
        st.dataframe(
            table.style.format("{:.3g}", na_rep=UNKNOWN),
            height=min(38 + 35 * len(table), 460),
            placeholder=UNKNOWN,
        )
    if without:
        st.caption(f"No single coefficient per ingredient: {display.listed(without)}.")
    if not soups:
        st.caption("None of the models is a soup.")


def _changes(view: View, chosen: Sequence[str], known: scores.Known, baseline: str) -> None:
    """Show the examples that one row gets right and another one wrong."""
    st.markdown("##### Examples that differ")
    others = [name for name in chosen if name != baseline]
    splits = [split for split in view.task.reported if all(known[name][split] for name in chosen)]
    if not splits:
        st.caption("Not evaluated yet.")
        return
    # The select split comes last: soups and runs were chosen on its examples.
    splits = [*splits[1:], splits[0]] if splits[0] == view.task.select else splits
    with st.container(horizontal=True):
        name = st.selectbox("Model", others, width=240, key=f"changes-of-{others}")
        split = st.selectbox(
            "Split", splits, format_func=view.task.split_title, width=240, key="changes-on"
        )
    one, other = known[name][split], known[baseline][split]
    if one is None or other is None:
        return
    gained, lost = changed_examples(one, other)
    left, right = st.columns(2)
    with left:
        _examples(view, split, gained, f"**{len(gained):,}** better with {plain(name)}", "gained")
    with right:
        _examples(view, split, lost, f"**{len(lost):,}** better with {plain(baseline)}", "lost")
    if not view.task.shows_examples:
        st.caption(
            "Numbers are indices of examples in the split, from 0. A task with a method "
            "`show(split, index)` shows them as text or pictures."
        )


def _examples(view: View, split: str, indices: Sequence[int], title: str, key: str) -> None:
    st.markdown(title)
    some = indices[:_EXAMPLES]
    if len(indices) > len(some):
        st.caption(f"The {len(some)} with the largest differences:")
    if not view.task.shows_examples:
        st.caption(", ".join(map(str, some)) or "None")
        return
    if not some:
        return
    call = ShownExamples(split, tuple(some))
    ended = None
    if call.result(view) is None and view.folder in state.opened():
        ended = jobs.derive(view, call, f"Show {len(some)} examples of {split}")
    elif call.result(view) is None:
        jobs.call_button(
            view, "Show the examples", call, f"Show {len(some)} examples of {split}",
            key=f"show-{key}", primary=False,
        )  # fmt: skip
    found = call.shown(view)
    if ended is not None:
        st.caption(plain(ended.error or ended.state))
    for start in range(0, len(found or []), _COLUMNS):
        columns = st.columns(_COLUMNS)
        for place, shown in enumerate((found or [])[start : start + _COLUMNS]):
            with columns[place]:
                caption = f"{plain(shown.text)} · {some[start + place]}"
                if shown.image is not None:
                    st.image(shown.image.numpy(), caption, width="stretch", alt=shown.text)
                else:
                    st.caption(caption)


def _row(
    view: View, name: str, kind: str, known: Mapping[str, Evaluation | None]
) -> dict[tuple[str, str], Any]:
    by_split = {split: found.score if found else None for split, found in known.items()}
    return _scores_row(view, name, kind, by_split, cost=1)


def _ensemble_row(view: View, picked: StoredSoup) -> dict[tuple[str, str], Any]:
    names, seen = tuple(picked.soup.ingredients), view.including(picked.soups)
    by_split = dict.fromkeys(view.task.reported)
    members = {name: seen.sweep[name].mixture for name in names}
    if view.task.averages == "outputs":
        found = _ensemble_by_passes(seen, EnsembleScores(names), picked)
        by_split |= found["scores"] if found else {}
    elif _have_outputs(scores.evaluations(seen, members), names):
        title = f"Ensemble of {picked.label}"
        found = jobs.derived(seen, EnsembleScores(names), title, key="ensemble")
        by_split |= found["scores"] if found else {}
    name = f"ensemble of {picked.label}'s {len(names)} ingredients"
    return _scores_row(view, name, "ensemble", by_split, cost=len(names))


def _ensemble_by_passes(view: View, call: EnsembleScores, picked: StoredSoup) -> Result | None:
    """Return the scores of an ensemble whose outputs are not kept, or show a button for them."""
    found = call.result(view)
    if found is None:
        sizes = [len(view.task.split(split)) for split in view.task.reported]
        jobs.call_button(
            view, "Evaluate the ensemble", call, f"Ensemble of {picked.label}", key="ensemble",
            primary=False,
            help=f"Runs {len(call.names)} ingredients on {counted(len(sizes), 'split')} and "
            "averages their outputs batch by batch.",
            price=seconds(view.overview, len(call.names) * sum(sizes)),
        )  # fmt: skip
    return found


def _greedy_ensemble_rows(
    view: View, known: scores.Known, names: Sequence[str]
) -> list[dict[tuple[str, str], Any]]:
    if view.task.why_no_kept_outputs is not None or not _have_outputs(known, names):
        return []
    call = GreedyEnsembleScores(tuple(names))
    found = jobs.derived(view, call, "Greedy ensemble", key="greedy-ensemble")
    if found is None or "why_none" in found:  # `show_undefined` names the undefined scores
        return []
    cost = len(found["members"])
    name = f"greedy ensemble ({cost} members)"
    return [_scores_row(view, name, "ensemble", found["scores"], cost=cost)]


def _have_outputs(known: scores.Known, names: Sequence[str]) -> bool:
    return all(found and found.has_outputs for name in names for found in known[name].values())


def _scores_row(
    view: View, name: str, kind: str, by_split: Mapping[str, float | None], *, cost: int
) -> dict[tuple[str, str], Any]:
    factor = view.task.score_unit.factor
    row: dict[tuple[str, str], Any] = {
        ("", "name"): name,
        ("", "kind"): kind,
        ("", "forward passes"): cost,
    }
    for split in view.task.reported:
        group = _CHOSEN if split == view.task.select else _REPORTED
        score = by_split[split]
        row[(group, split)] = None if score is None else score * factor
    if view.task.splits_with_role("shift"):
        shift = view.task.mean_shift(by_split)
        row[(_REPORTED, "mean shift")] = None if shift is None else shift * factor
    return row


def _table(view: View, rows: list[dict[tuple[str, str], Any]]) -> None:
    table = pd.DataFrame(
        [list(row.values()) for row in rows], columns=pd.MultiIndex.from_tuples(rows[0])
    )
    numbers = [column for column in rows[0] if column[0] in (_CHOSEN, _REPORTED)]
    table = table.astype(dict.fromkeys(numbers, float))
    chosen = [column for column in numbers if column[0] == _CHOSEN]
    unit = view.task.score_unit
    styled = (
        table.style.format(unit.cell, subset=pd.Index(numbers))
        .set_properties(subset=pd.Index(chosen), **{"background-color": "rgba(224, 161, 0, 0.14)"})
        .apply(_bold_best, subset=pd.Index(numbers), sign=unit.sign)
    )
    st.dataframe(styled, hide_index=True, height=min(74 + 35 * len(rows), 620), placeholder=UNKNOWN)
    named = {
        column: unit.label(f"{view.task.score_name} on {column[1]}")
        if column in numbers
        else column[1]
        for column in rows[0]
    }
    exports.show_rows(
        table.set_axis(list(named.values()), axis=1),
        "compare",
        decimals={named[c]: unit.decimals for c in numbers if unit.decimals is not None},
    )
    st.caption(
        f"Scores: {plain(unit.label(view.task.score_name))}; {UNKNOWN} = not evaluated, bold "
        "= best in the column. The shaded column was used for choosing and is optimistic; compare "
        "on the held-out columns. Forward passes = inference cost per example. "
        + (
            "The greedy ensemble adds members while its own score on "
            f"{plain(view.task.select)} does not drop."
            if view.task.why_no_kept_outputs is None
            else f"No greedy ensemble: {plain(view.task.why_no_kept_outputs)}"
        )
    )


def _bold_best(column: "pd.Series[float]", sign: int) -> list[str]:
    best = sign * (sign * column).max()  # NaN is never the best
    return ["font-weight: bold" if value == best else "" for value in column]


if __name__ == "__main__":
    main(st.session_state["view"])
