"""Building a soup by a recipe: curves over a parameter, progress, the result, its decisions."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    builder,
    comparison,
    display,
    exports,
    jobs,
    scores,
    selection_bias,
    snippets,
    soup_links,
)
from pages.components.display import plain
from pages.components.state import View
from soupcore import Pass, Soup, Step, figures
from soupcore.calls import Call, ParameterCurve, RecipeSoup, SeveralSoups
from soupcore.display import counted
from soupcore.evidence import as_chosen
from soupcore.figures.tables import curve_table, trace_table
from soupcore.jobs import Job, State
from soupcore.plan import seconds
from soupcore.recipes import RECIPES, Number, Recipe
from soupcore.stored_soups import StoredSoup
from soupcore.tasks import NO_LABELS, Labels


def show_curve(view: View, recipe: Recipe, names: list[str], given: Mapping[str, Any]) -> None:
    """Show curves over the parameters whose values the recipe's paper sweeps, if any."""
    numbers = [p for p in recipe.parameters if isinstance(p, Number) and p.curve]
    if not numbers:
        return
    symbols = " or ".join(number.symbol for number in numbers)
    with st.expander(
        f"Tune {symbols}",
        icon=":material/show_chart:",
        key=f"curve-of-{recipe.name}",
    ):
        number = numbers[0]
        if len(numbers) > 1:
            by_name = {number.name: number for number in numbers}
            number = by_name[
                st.segmented_control(
                    "Parameter",
                    list(by_name),
                    default=number.name,
                    format_func=lambda name: by_name[name].label,
                    required=True,
                    key=f"{recipe.name}-over",
                )
            ]
        _curve(view, recipe, number, names, given)


def start(view: View, call: Call) -> None:
    """Add the job that builds soups, and show its progress."""
    st.session_state["building"] = jobs.start(view, call, _title(call))
    st.rerun()


def several(names: Sequence[str], parameters: Mapping[str, Mapping[str, Any]]) -> SeveralSoups:
    """Return the call for the soups of several recipes.

    Args:
        names: The candidates.
        parameters: `{recipe: parameters}`.
    """
    recipes = [{"recipe": name, "parameters": dict(given)} for name, given in parameters.items()]
    return SeveralSoups(tuple(recipes), tuple(names))


def show_result(view: View, recipe: Recipe, job_id: int) -> None:
    """Show the progress of a job that builds a soup by this recipe, and then its result.

    A job that builds several soups is shown with every recipe.
    """
    job = jobs.get(job_id)
    if job is None:
        return
    if job.kind == SeveralSoups.kind:
        _show_several(view, job)
        return
    if job.request.get("recipe") != recipe.name:
        return
    # A separate container, since the fragment's last run may come after the result was drawn.
    with st.container():
        if job.is_unfinished:
            _watch(job_id, recipe, _labels(view, job))
            return
    if job.error:
        st.error(plain(job.error), icon=":material/error:")
    built = job.result or job.partial or {}
    ids = (built.get("soup"), built.get("other"))  # the soup with the chosen statistics is shown
    stored = next((soup for soup in scores.soups(view) if soup.soup.id in ids), None)
    if stored is None:
        if job.state == State.CANCELLED:
            st.info("Cancelled before any soup was found.", icon=":material/stop_circle:")
        return
    if job.result is None:
        _show_cancelled(view, stored)
    _card(view, stored, job.title if job.result is not None else "")
    scores.show_shortfall(view, [stored])
    _decisions(view, stored, job)
    comparison.show_statistics(view, stored, key="build")


def show_decisions(view: View, call: RecipeSoup, soup: Soup) -> None:
    """Draw the decisions or the passes of a recipe that built a soup.

    Args:
        view: The view with the candidates, the metric and the tensors that the recipe used.
        call: The call of the recipe.
        soup: The soup.
    """
    if soup.trace:
        figure = figures.greedy_trace(
            soup.trace, score_name=view.task.score_name, score_unit=view.task.score_unit
        )
        code = snippets.trace(view, call)
        display.show_figure(
            figure,
            "greedy-trace",
            trace_table(soup.trace),
            code,
            about=exports.sizes(view.task, view.task.select),
        )
        _show_savings(view, soup.trace)
    if soup.passes:
        columns = ["number", "loss", "held_back_loss", "best"]
        table = pd.DataFrame(soup.passes)[columns]
        code = snippets.trace(view, call, len(soup.passes))
        display.show_figure(
            figures.learning_curve(soup.passes),
            "learning-curve",
            table,
            code,
            about=exports.sizes(view.task, view.task.select),
        )


def _curve(
    view: View, recipe: Recipe, number: Number, names: list[str], given: Mapping[str, Any]
) -> None:
    others = {name: value for name, value in given.items() if name != number.name}
    checked = recipe.check(others)
    del checked[number.name]
    call = ParameterCurve(recipe.name, number.name, tuple(names), number.curve, checked)
    found = call.known(view) or {}
    if "best" not in found:
        k, splits = len(number.curve), len(view.task.reported)
        examples = k * sum(len(view.task.split(split)) for split in view.task.reported)
        jobs.call_button(
            view,
            f"Sweep {k} values",
            call,
            f"{recipe.title}: sweep over {number.symbol}",
            key=f"draw-{recipe.name}-{number.name}",
            primary=False,
            help=f"{splits} splits, up to {k * splits:,} evaluations.",
            price=seconds(view.overview, examples),
        )
    if not found.get("points"):
        st.caption(
            f"Sweeps {number.label} from {min(number.curve):g} to {max(number.curve):g} with the "
            f"other parameters fixed as above. Choose on {plain(view.task.select)}; other splits "
            "are for reporting."
        )
        return
    points, best = found["points"], found.get("best")
    scores_of = {s: [p["scores"][s]["score"] for p in points] for s in view.task.reported}
    table = curve_table(view.task, [point["value"] for point in points], scores_of)
    letter, key = number.symbol, f"{recipe.name}-{number.name}"

    def pick(picked: list[Any]) -> None:
        st.session_state[builder.key_of(recipe, number)] = float(picked[0][0])

    drawing: dict[str, Any] = {
        "parameter": letter,
        "best": best,
        "score_name": view.task.score_name,
        "score_unit": view.task.score_unit,
    }
    with st.container(key=f"two-figures-{key}"):
        left, right = st.columns(2)
    with left:
        code = snippets.curve(view, call, letter, "recipe_curve")
        display.show_figure(
            figures.recipe_curve(table, **drawing),
            f"curve-{key}",
            table,
            code,
            on_pick=pick,
            title=f"{recipe.title} by {letter}",
            about=exports.sizes(view.task, *view.task.reported),
        )
    if {"report", "mean shift"} <= set(table):
        with right:
            code = snippets.curve(view, call, letter, "trade_off")
            display.show_figure(
                figures.trade_off(table, **drawing),
                f"trade-off-{key}",
                table,
                code,
                on_pick=pick,
                title=f"{recipe.title} by {letter}: test vs. shifts",
                about=exports.sizes(view.task, "report", "shift"),
            )
    if best is not None:
        bias = selection_bias.of_a_curve(view, number, found)
        st.caption(
            f"Best on {plain(view.task.select)}: {letter} = {best:.3g}. Click a point to set "
            f"{letter} to its value, then build the soup; its evaluation is stored. {bias}"
        )
        parameters = dict(given) | {number.name: best}
        with_best = RecipeSoup(recipe.name, tuple(names), parameters)
        if st.button(
            f"Build with {letter} = {best:.3g}",
            icon=":material/soup_kitchen:",
            key=f"build-best-{key}",
            disabled=jobs.cannot_start(view, with_best),
        ):
            start(view, with_best)


def _title(call: Call) -> str:
    if isinstance(call, RecipeSoup):
        return f"{RECIPES[call.recipe].title} soup from {counted(len(call.names), 'candidate')}"
    if isinstance(call, SeveralSoups):
        titles = ", ".join(RECIPES[each.recipe].title for each in call.calls)
        return f"{len(call.recipes)} soups from {counted(len(call.names), 'candidate')} ({titles})"
    raise TypeError(f"{call} builds no soup.")


def _show_several(view: View, job: Job) -> None:
    """Show a card for each soup that a job has built so far, and the progress of the others."""
    with st.container():
        if job.is_unfinished:
            _watch_several(job.id)
    if job.error:
        st.error(plain(job.error), icon=":material/error:")
    known = (job.result or job.partial or {}).get("soups", [])
    stored = {soup.soup.id: soup for soup in scores.soups(view)}
    for number, each in enumerate(known):
        title = RECIPES[each["recipe"]].title if each["recipe"] in RECIPES else each["recipe"]
        if "failure" in each:
            st.warning(f"{plain(title)}: {plain(each['failure'])}", icon=":material/block:")
            continue
        ids = (each.get("soup"), each.get("other"))
        if (soup := next((stored[i] for i in ids if i in stored), None)) is not None:
            _card(view, soup, f"{title} soup", key=f"card-{number}")
    if job.state == State.CANCELLED:
        st.info("Cancelled. The soups that were built are kept.", icon=":material/stop_circle:")


@st.fragment(run_every=0.5)
def _watch_several(job_id: int) -> None:
    job = jobs.get(job_id)
    if job is None or not job.is_unfinished:
        return
    running = (job.partial or {}).get("running", 0)
    recipe = job.request["recipes"][running]["recipe"]
    count = len(job.request["recipes"])
    text = f"Soup {running + 1} of {count}: {RECIPES[recipe].title} · {job.fraction:.0%}"
    st.progress(job.fraction, text=text)


def _card(view: View, stored: StoredSoup, ready: str, key: str = "card") -> None:
    """Show a soup that was built: its scores, its name, and links to its pages.

    Args:
        view: The view.
        stored: The soup.
        ready: Name of the finished work, such as the title of a job; "" if it was cancelled.
        key: Distinguishes several cards on a page.
    """
    with st.container(border=True, key=f"result-{key}"):
        if ready:
            st.markdown(f":material/check_circle: {plain(ready)} is ready.")
        first, *details = comparison.sentences(view, stored)
        st.markdown(f"##### {plain(first)}")
        for line in details:
            st.markdown(plain(line))
        st.caption(f"= {plain(scores.describe(stored.soup))}")
        scores.metrics(view, stored.soup)
        with st.container(width=480):
            name = stored.annotation.name
            soup_links.show_name_field(stored.soup.id, stored.label, name, key=key)
        with st.container(horizontal=True):
            soup_links.show_name(stored, key=key)
            if view.has_task:
                soup_links.show_compare(stored, key=key)
                soup_links.show_section(stored.soup.id, "evidence", key=key)
            soup_links.show_section(stored.soup.id, "download", key=key)


def _labels(view: View, job: Job) -> Labels:
    """Return the names and the unit of a job's scores; the view may have another metric by now."""
    if not view.has_task:
        return NO_LABELS
    return view.task.with_primary(job.request.get("primary")).labels


def _show_cancelled(view: View, stored: StoredSoup) -> None:
    st.info("Cancelled. The best soup so far was saved.", icon=":material/stop_circle:")
    scores.offer_evaluation(view, stored, key="build")


def _decisions(view: View, stored: StoredSoup, job: Job) -> None:
    """Draw the decisions or the passes of a recipe that built a soup."""
    if not stored.soup.trace and not stored.soup.passes:
        return
    offered = view.soups.by_name(job.request.get("soups", {}))
    # The soup may be shown with other statistics, or by another metric, than the recipe chose with.
    then = as_chosen(view.with_statistics(job.request["batchnorm"]), stored, offered)
    show_decisions(then, RecipeSoup.from_request(job.request), stored.soup)


@st.fragment(run_every=0.5)
def _watch(job_id: int, recipe: Recipe, labels: Labels) -> None:
    job = jobs.get(job_id)
    if job is not None and job.is_unfinished:
        _show_progress(job, recipe, labels)


def _show_progress(job: Job, recipe: Recipe, labels: Labels) -> None:
    known = job.partial or {}
    if passes := known.get("passes"):
        figure = figures.learning_curve([Pass.from_json(found) for found in passes])
        st.plotly_chart(figure, key="growing-curve", config={"displaylogo": False})
        return
    steps = known.get("trace", [])
    if not steps:
        first = "Evaluating single ingredients first…" if recipe.ranks else "Running…"
        st.info(first, icon=":material/hourglass_top:")
        return
    figure = figures.greedy_trace(
        [Step.from_json(step) for step in steps],
        candidates=len(job.request["names"]),
        score_name=labels.score_name,
        score_unit=labels.score_unit,
    )
    st.plotly_chart(figure, key="growing-trace", config={"displaylogo": False})


def _show_savings(view: View, trace: Sequence[Step]) -> None:
    """Show the share of evaluation that early rejection saved."""
    rejected = [step for step in trace if step.is_bound]
    if not rejected:
        return
    trials = len(trace) - 1  # the first candidate takes no trial
    whole = trials * len(view.task.split(view.task.select))
    seen = sum(step.examples for step in trace[1:])
    st.caption(
        f"{len(rejected)} of {trials} candidates were rejected early, once they could no longer be "
        f"accepted ({1 - seen / whole:.0%} of evaluation skipped). The decisions are those of "
        "full evaluations."
    )
