"""Two to six rows side by side: scores, differences, coefficients, and changed examples."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import display, exports, jobs, scores, snippets, soup_links, state
from pages.components.display import plain
from pages.components.state import View
from soupcore import figures
from soupcore.calls import ShownExamples
from soupcore.evaluation.measuring import changed_examples
from soupcore.figures.style import NEUTRAL, SOUP
from soupcore.figures.tables import coefficients_table, differences_table
from soupcore.overview import Overview, best_on_select
from soupcore.stored_soups import StoredSoup
from soupcore.tasks.unit import UNKNOWN

MOST = 6  #: rows
_EXAMPLES = 12  # shown for each of two
_COLUMNS = 6  # of examples


def show(view: View, stored: Sequence[StoredSoup], known: scores.Known) -> None:
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
    _scores(view, chosen, known)
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
    told = [labels.get(name, name) for name in st.session_state["compare"]]
    current = [name for name in told if name in known][:MOST]
    if len(current) < 2:
        current = [*current, *(n for n in _default(view, stored, known) if n not in current)][:3]
    chosen = st.multiselect(
        "Models",
        [*handles, *(name for name in known if name not in handles)],
        default=current,
        max_selections=MOST,
        help=f"Two to {MOST} soups, ingredients, or the base.",
        key=f"compare-rows-{view.folder}-{sorted(handles)}",
    )
    st.session_state["compare"] = [handles.get(name, name) for name in chosen]
    return chosen


def _default(view: View, stored: Sequence[StoredSoup], known: scores.Known) -> list[str]:
    """Return the soup of the verdict, the best other one, and the best ingredient."""
    labels = [soup.label for soup in stored]
    headline = Overview(view.context, stored).headline
    first = headline.label if headline is not None else None
    second = best_on_select(known, view.task.select, [n for n in labels if n != first])
    run = best_on_select(known, view.task.select, view.sweep.ingredients)
    return [name for name in (first, second, run) if name is not None]


def _inks(view: View, chosen: Sequence[str]) -> list[str]:
    """Return distinct colours for the rows: those of ingredients, and other ones for soups."""
    spare = iter(figures.colours(str(place) for place in range(2 * MOST)).values())
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


def _scores(view: View, chosen: Sequence[str], known: scores.Known) -> None:
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
    codes = scores.points(view)
    told = {name: codes[name].code for name in chosen}
    code = snippets.differences(view, told, baseline, colours)
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
    # The select split comes last: looking at its examples is no evidence.
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
    if call.result(view.context) is None and view.folder in state.opened():
        ended = jobs.derive(view, call, f"Show {len(some)} examples of {split}")
    elif call.result(view.context) is None:
        jobs.call_button(
            view, "Show the examples", call, f"Show {len(some)} examples of {split}",
            key=f"show-{key}", primary=False,
        )  # fmt: skip
    found = call.shown(view.context)
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
