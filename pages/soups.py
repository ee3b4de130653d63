"""The form that builds soups, and the list of stored soups."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    builder,
    building,
    display,
    jobs,
    scores,
    snippets,
    soup_links,
    state,
    tasks,
)
from pages.components.display import in_a_sentence, plain
from pages.components.soup_links import ALL, TABS
from pages.components.state import View
from soupcore import RECIPES, Evaluation, Mixture, escaping
from soupcore.calls import Call, Code, ManualSoup, Preview, RecipeSoup
from soupcore.display import counted
from soupcore.overview import Overview, members, ranked, title
from soupcore.plan import seconds
from soupcore.recipes import Recipe, manual
from soupcore.store.soups import restore_soup
from soupcore.stored_soups import StoredSoup
from soupcore.tasks.unit import UNKNOWN

_SLIDERS = 12
_SLIDER_COLUMNS = 4


def main(view: View) -> None:
    st.header("Soups")
    st.caption(f"Average several ingredients into one network. {_about_choices(view)}")
    for tab in display.tabs("tab", TABS):
        if tab == ALL:
            _show_all(view, scores.soups(view))
        else:
            _build(view)


def _about_choices(view: View) -> str:
    """Return on which split recipes choose, as Markdown."""
    if not view.has_task:
        return "Without a task, recipes that need no evaluation are available."
    return (
        f"Recipes choose on the validation split (**{plain(view.task.select)}**) only. The test "
        "split and shifted splits are never used for choosing."
    )


def _build(view: View) -> None:
    recipe = builder.choose_recipe(view)
    # The candidates are drawn above the soups among them, but need the choice of soups.
    place = st.container()
    soups = builder.choose_soups(view)
    with place:
        names = builder.choose_candidates(view, soups)
    if not names:
        st.info("Select at least one ingredient.", icon=":material/grocery:")
    elif recipe == builder.MANUAL:
        _manual(view.including(soups), names)
    else:
        _by_recipe(view, soups, RECIPES[recipe], names)


def _by_recipe(
    view: View, soups: Mapping[str, StoredSoup], recipe: Recipe, names: list[str]
) -> None:
    st.markdown(f"{recipe.summary} _{recipe.paper}_")
    if recipe.chooses and not view.has_task:
        tasks.show_needed(recipe.title, key=recipe.name)
        return
    given = builder.choose_parameters(recipe)
    if (missing := builder.why_not(view, recipe, len(names))) is not None:
        st.info(missing, icon=":material/info:")
        return
    with_soups = builder.choose_tensors(view.including(soups), recipe, names)
    if with_soups is None:
        return
    if view.has_task:
        building.show_curve(with_soups, recipe, names, given)
    others = builder.choose_others(with_soups, recipe, names)
    parameters = {recipe.name: given} | others
    if view.has_task:
        st.caption(_cost(with_soups, names, parameters))
    call: Call = RecipeSoup(recipe.name, tuple(names), given)
    label = f"Build {in_a_sentence(recipe.title)} soup from {counted(len(names), 'ingredient')}"
    if others:
        call = building.several(names, parameters)
        label = f"Build {len(parameters)} soups from {counted(len(names), 'ingredient')}"
    if st.button(
        label,
        type="primary",
        icon=":material/soup_kitchen:",
        disabled=jobs.cannot_start(with_soups, call),
    ):
        building.start(with_soups, call)
    if "building" in st.session_state:
        building.show_result(view, recipe, st.session_state["building"])
    snippets.show(snippets.built(with_soups, call))


def _cost(view: View, names: list[str], parameters: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the largest number of evaluations that recipes take, and their time if known."""
    task, points = view.task, view.mixtures(names)
    recipes = [RECIPES[name] for name in parameters]
    alone = 0
    if any(recipe.ranks for recipe in recipes):
        alone = len(view.evaluations.missing(points, task.select))
    trials = sum(RECIPES[name].trials(len(names), given) for name, given in parameters.items())
    final = len(recipes) * len(task.reported)
    size = len(task.split(task.select))
    soups = "final soup" if len(recipes) == 1 else f"{len(recipes)} final soups"
    parts = [
        counted(alone, "single ingredient") if alone else "",
        f"up to {counted(trials, 'trial soup')}" if trials else "",
        f"{soups} on {counted(len(task.reported), 'split')}",
    ]
    summands = " + ".join(part for part in parts if part)
    one = (
        f"one pass over a split ({size:,} examples on {plain(task.select)})"
        if task.has_examples
        else "one run of the command"
    )
    examples = (alone + trials) * size
    examples += len(recipes) * sum(len(task.split(split)) for split in task.reported)
    price = seconds(view.overview, examples)
    about = f", about {display.about(price)}" if price is not None else ""
    total = jobs.evaluations_text(alone + trials + final)
    return f"Cost: up to {total}{about} ({summands}). One evaluation = {one}."


def _manual(view: View, names: Sequence[str]) -> None:
    """Let the user set the weights of the base and the ingredients, and save the soup."""
    models = [*([view.sweep.base.name] if view.sweep.base else []), *names]
    if (rest := len(models) - _SLIDERS) > 0:
        others = f"other {rest} have" if rest > 1 else "other one has"
        st.caption(
            f"Showing sliders for the first {_SLIDERS} models; the {others} weight 0. Select fewer "
            "ingredients to adjust them."
        )
    defaults = {name: 1.0 if name in names else 0.0 for name in models}
    shares = _choose_shares(models[:_SLIDERS], defaults)
    total = sum(Fraction(str(share)) for share in shares.values())
    if total == 0:
        st.warning("Weights sum to 0; the average is undefined. Move a slider.")
        return
    coefficients = {name: Fraction(str(share)) / total for name, share in shares.items() if share}
    st.caption(
        "Normalised weights: "
        + ", ".join(f"{plain(name)} {float(c):.3f}" for name, c in coefficients.items())
    )
    splits = view.task.reported if view.has_task else []
    kept = ManualSoup.of(coefficients, splits, keep=True)
    if view.has_task:
        _evaluate_manual(view, coefficients)
    else:
        _save(view, coefficients, [])
    snippets.show(kept.script(view, Code('soup.save("soup.safetensors")\n')))


def _choose_shares(names: Sequence[str], defaults: Mapping[str, float]) -> dict[str, float]:
    """Let the user set the weights of models by sliders; return them by name.

    Args:
        names: The models.
        defaults: Their weights at first, from -1 to 1.
    """
    current = {}
    for text in st.session_state.get("share", []):
        name, _, value = text.rpartition("=")
        try:
            current[name] = min(max(float(value), -1.0), 1.0)
        except ValueError:
            continue
    columns = st.columns(_SLIDER_COLUMNS)
    shares = {}
    for index, name in enumerate(names):
        with columns[index % _SLIDER_COLUMNS]:
            start = current.get(name, defaults[name])
            shares[name] = st.slider(plain(name), -1.0, 1.0, start, 0.05, key=f"share-{name}")
    st.session_state["share"] = [
        f"{name}={share:g}" for name, share in shares.items() if share != defaults[name]
    ]
    return shares


def _evaluate_manual(view: View, coefficients: Mapping[str, Fraction]) -> None:
    if st.toggle(
        "Fast preview (bfloat16)",
        help="Approximate score while you drag. Not stored and never used for choosing; its error "
        "is estimated on an ingredient already evaluated in float32.",
    ):
        _preview(view, coefficients)
        return
    point = manual(view.sweep, coefficients).mixture
    splits = [view.task.select, *view.task.splits_with_role("report")]
    known = _known(view, point, splits)
    if None in known.values():
        trial = ManualSoup.of(coefficients, splits, keep=False)
        failed = jobs.start_latest(view, trial, "Evaluate manual soup")
        if failed is not None:
            st.error(plain(failed.error or "The evaluation failed."), icon=":material/error:")
        known = _known(view, point, splits)
    with st.container(horizontal=True):
        for split, evaluation in known.items():
            st.metric(
                f"{plain(view.task.score_name)} on {plain(split)}",
                view.task.score_unit.text(evaluation.score) if evaluation else "…",
                width=220,
            )
    _save(view, coefficients, view.task.reported)


def _save(view: View, coefficients: Mapping[str, Fraction], splits: Sequence[str]) -> None:
    """Show a button that saves the soup and evaluates it on splits."""
    kept = ManualSoup.of(coefficients, splits, keep=True)
    disabled = jobs.cannot_start(view, kept)
    if st.button("Save soup", icon=":material/bookmark:", disabled=disabled):
        jobs.start(view, kept, "Save manual soup")
        st.rerun()


def _preview(view: View, coefficients: Mapping[str, Fraction]) -> None:
    splits = [view.task.select, *view.task.splits_with_role("report")]
    call = Preview.of(coefficients, splits)
    done = jobs.last(view, call)
    if done is None:
        failed = jobs.start_latest(view, call, "Preview manual soup")
        if failed is not None:
            st.error(plain(failed.error or "The preview failed."), icon=":material/error:")
        done = jobs.last(view, call)
    found = done.result["previews"] if done is not None and done.result is not None else {}
    unit = view.task.score_unit
    st.badge("bfloat16 preview", icon=":material/visibility:", color="orange")
    with st.container(horizontal=True):
        for split in splits:
            score = f"≈ {unit.text(found[split]['score'])}" if split in found else "…"
            st.metric(f"{plain(view.task.score_name)} on {plain(split)}", score, width=220)
    for split, seen in found.items():
        st.caption(
            f"bfloat16 error on {plain(split)}, measured on {plain(seen['reference'])}: "
            f"{plain(view.task.loss_name)} {seen['loss_effect']:+.1e}, "
            f"{plain(view.task.score_name)} {unit.difference_text(seen['score_effect'])}. Turn off "
            "the preview for exact values."
        )


def _known(view: View, point: Mixture, splits: Sequence[str]) -> dict[str, Evaluation | None]:
    return {split: view.evaluations.stored([point], split)[0] for split in splits}


def _show_all(view: View, stored: Sequence[StoredSoup]) -> None:
    """Show the list, and the deleted soups."""
    _undo(view)
    if not stored:
        st.info("No soups yet. Build one in the **Build** tab.", icon=":material/soup_kitchen:")
    else:
        _table(view, stored)
    _deleted(view)


def _table(view: View, stored: Sequence[StoredSoup]) -> None:
    """Show the soups, the best on the select split first."""
    known = scores.overview(view, stored) if view.has_task else None
    ordered = _ordered(view, stored, known)
    st.dataframe(
        pd.DataFrame([_row(view, soup, known) for soup in ordered]),
        hide_index=True,
        height=min(38 + 35 * len(ordered), 560),
        placeholder=UNKNOWN,
        column_config={
            "★": st.column_config.TextColumn(width=30),
            "name": soup_links.names_column(
                "soup-list",
                [soup.label for soup in ordered],
                {soup.label: soup for soup in ordered},
                width=220,
            ),
            "built": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm"),
        },
    )
    text = "Click a name to open the soup: its composition, scores, evidence and download."
    if known is not None:
        best = f", {plain(known.best)}" if known.best else ""
        text = (
            f"Best on validation first. {text} Δ is the paired difference from the best run{best}."
        )
    st.caption(text)


def _ordered(view: View, stored: Sequence[StoredSoup], known: Overview | None) -> list[StoredSoup]:
    if known is None:
        return sorted(stored, key=lambda soup: -soup.created)
    by_id = {soup.soup.id: soup for soup in stored}
    best = ranked(known.of_soups, view.task.select)
    return [by_id[soup_id] for soup_id in dict.fromkeys([*best, *by_id])]


def _row(view: View, stored: StoredSoup, known: Overview | None) -> dict[str, Any]:
    soup = stored.soup
    row: dict[str, Any] = {
        "★": "★" if stored.annotation.starred else "",
        "name": soup_links.cell_text(stored.label),
        "recipe": title(soup),
        "ingredients": len(members(soup)),
    }
    if known is not None:
        unit, by_split = view.task.score_unit, known.of_soups[soup.id]
        for name, split in (("validation", view.task.select), ("test", known.report)):
            if split is not None:
                row[unit.label(name)] = scores.with_interval(unit, by_split[split])
        split = known.report or view.task.select
        gain = known.gain(soup.id, split)
        where = "test" if known.report else "validation"
        row[unit.difference_label(f"Δ {where}")] = unit.difference(
            gain.difference if gain else None
        )
        row["95% CI"] = unit.difference_interval(gain.interval if gain else None)
    row["tags"] = ", ".join(stored.annotation.tags)
    row["built"] = datetime.fromtimestamp(stored.created).astimezone()
    return row


def _restore(soup_id: str) -> None:
    restore_soup(state.store(), soup_id)
    st.session_state["soup"] = soup_id
    st.session_state.pop("deleted", None)


def _undo(view: View) -> None:
    """Offer to undo the last deletion of this session."""
    soup_id, label = st.session_state.get("deleted", ("", ""))
    if soup_id not in view.soups.deleted(view.folder):
        return
    with st.container(horizontal=True, vertical_alignment="center", key="undo-deletion"):
        st.markdown(f":material/delete: **{plain(label)}** was deleted.")
        st.button(
            "Undo", icon=":material/undo:", key="undo", on_click=_restore, args=(soup_id,),
            disabled=state.store().is_read_only,
        )  # fmt: skip


def _deleted(view: View) -> None:
    gone = view.soups.deleted(view.folder)
    if not gone:
        return
    with st.expander(f"Deleted soups ({len(gone)})", icon=":material/delete:"):
        st.caption("Their evaluations are kept.")
        for soup_id, name in gone.items():
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"{plain(name)} · {escaping.code(soup_id)}")
                st.button(
                    "Restore", key=f"restore-{soup_id}", on_click=_restore, args=(soup_id,),
                    type="tertiary", disabled=state.store().is_read_only,
                )  # fmt: skip


if __name__ == "__main__":
    main(st.session_state["view"])
