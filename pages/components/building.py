"""Building a soup by a recipe: its parameters, a curve over one of them, and the result."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    comparison,
    display,
    jobs,
    scores,
    selection_bias,
    snippets,
    state,
)
from pages.components.display import plain
from pages.components.state import View
from soupcore import Pass, Soup, Step, SweepError, figures
from soupcore.calls import ParameterCurve, RecipeSoup
from soupcore.figures.tables import curve_table, trace_table
from soupcore.jobs import Job, State
from soupcore.recipes import Choice, Number, Parameter, Recipe, Switch
from soupcore.stored_soups import StoredSoup, StoredSoups
from soupcore.sweeps import TensorRule
from soupcore.sweeps.tensor_rule import ALL, BUT_EMBEDDINGS, BUT_HEAD
from soupcore.tasks import NO_LABELS, Labels

_COLUMNS = 3  # of widgets
_PATTERN = "pattern"
_TAKES = {
    ALL: "All",
    BUT_HEAD: "All but the head",
    BUT_EMBEDDINGS: "All but the embeddings",
    _PATTERN: "Pattern",
}


#: How names of choices are written.
_WRITTEN = {"lbfgs": "L-BFGS", "adamw": "AdamW", "cma": "CMA-ES", "ties": "TIES", ">=": "≥"}


def choose_parameters(recipe: Recipe) -> dict[str, Any]:
    """Let the user set the parameters of a recipe; return them all."""
    columns = st.columns(_COLUMNS) if recipe.parameters else []
    chosen = {}
    for index, parameter in enumerate(recipe.parameters):
        with columns[index % _COLUMNS]:
            chosen[parameter.name] = _widget(parameter, _key(recipe, parameter))
    return chosen


def _key(recipe: Recipe, parameter: Parameter) -> str:
    """Return the session's key of a parameter's widget."""
    return f"{recipe.name}-{parameter.name}"


def _widget(parameter: Parameter, key: str) -> Any:
    if isinstance(parameter, Choice):
        return st.segmented_control(
            parameter.label,
            list(parameter.choices),
            default=parameter.default,
            format_func=lambda choice: _WRITTEN.get(choice, choice),
            required=True,
            help=parameter.help,
            key=key,
        )
    if isinstance(parameter, Number):
        kind = int if parameter.is_whole else float
        # Not as an argument: Streamlit warns of a default if a curve has set the value.
        st.session_state.setdefault(key, kind(parameter.default))
        return st.number_input(
            parameter.label,
            kind(parameter.minimum),
            kind(parameter.maximum),
            step=kind(parameter.step),
            help=parameter.help,
            key=key,
        )
    if isinstance(parameter, Switch):
        return st.toggle(parameter.label, parameter.default, help=parameter.help, key=key)
    return st.text_input(parameter.label, parameter.default, help=parameter.help, key=key)


def choose_tensors(view: View, recipe: Recipe, names: Sequence[str]) -> View | None:
    """Let the user choose which tensors take part; return the view with that rule.

    Returns:
        None if the rule makes no sense.
    """
    base = view.sweep.base
    models = [*names, *([base.name] if base is not None else [])]
    rule = TensorRule()
    with st.expander("Tensors that take part", icon=":material/layers:", key="tensors-of-recipe"):
        left, right = st.columns(2)
        with left:
            chosen = st.segmented_control(
                "Tensors",
                list(_TAKES),
                default=ALL,
                format_func=_TAKES.__getitem__,
                required=True,
                help="The other tensors are the same in all ingredients while the recipe runs.",
                key="tensors-taken",
            )
            take = chosen if chosen != _PATTERN else _pattern()
        with right:
            rest = st.multiselect(
                "The other tensors come from",
                models,
                placeholder="Mean of the ingredients",
                help="One ingredient, or the mean of several.",
                key="tensors-rest",
            )
        rule = TensorRule(take, tuple(name for name in models if name in rest))
        try:
            view = view.with_tensors(rule)
            fixed = view.sweep.for_recipe(names, uses_base=recipe.needs_base).fixed
        except SweepError as error:
            st.error(plain(str(error)), icon=":material/error:")
            return None
        for each in fixed:
            st.caption(f"Taking no part: {plain(str(each))}.")
    if recipe.needs_base and view.sweep.new_tensors:
        count = len(view.sweep.new_tensors)
        source = ", ".join(map(plain, rule.rest)) or "the mean of the ingredients"
        st.caption(
            f"The base fits in part. {count} tensor{'s'[: count != 1]} that it lacks, or has in "
            f"other shapes, come from {source}. Choose another source under *Tensors that take "
            "part*."
        )
    return view


def _pattern() -> str:
    return st.text_input(
        "Pattern",
        "!head.",
        help="Beginnings of tensor names, or globs, separated by commas. `!` leaves tensors out: "
        "`backbone., !*.bias`.",
        key="tensors-pattern",
    )


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


def _curve(
    view: View, recipe: Recipe, number: Number, names: list[str], given: Mapping[str, Any]
) -> None:
    others = {name: value for name, value in given.items() if name != number.name}
    checked = recipe.check(others)
    del checked[number.name]
    call = ParameterCurve(recipe.name, number.name, tuple(names), number.curve, checked)
    found = call.known(view.context) or {}
    if "best" not in found:
        k, splits = len(number.curve), len(view.task.reported)
        jobs.call_button(
            view,
            f"Sweep {k} values",
            call,
            f"{recipe.title}: sweep over {number.symbol}",
            key=f"draw-{recipe.name}-{number.name}",
            primary=False,
            help=f"{splits} splits, up to {k * splits:,} evaluations.",
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
        st.session_state[_key(recipe, number)] = float(picked[0][0])

    drawing: dict[str, Any] = {
        "parameter": letter,
        "best": best,
        "score_name": view.task.score_name,
        "score_unit": view.task.score_unit,
    }
    left, right = st.columns(2)
    with left:
        code = snippets.curve(view, call, letter, "recipe_curve")
        display.show_figure(
            figures.recipe_curve(table, **drawing), f"curve-{key}", table, code, on_pick=pick
        )
    if {"report", "mean shift"} <= set(table):
        with right:
            code = snippets.curve(view, call, letter, "trade_off")
            display.show_figure(
                figures.trade_off(table, **drawing), f"trade-off-{key}", table, code, on_pick=pick
            )
    if best is not None:
        bias = selection_bias.of_a_curve(view, number, found)
        st.caption(
            f"Best on {plain(view.task.select)}: {letter} = {best:.3g}. Click a point to set "
            f"{letter} to its value, then build the soup; its evaluation is stored. {bias}"
        )


def show_result(view: View, recipe: Recipe, job_id: int) -> None:
    """Show the progress of a job that builds a soup by this recipe, and then its result."""
    job = jobs.get(job_id)
    if job is None or job.request.get("recipe") != recipe.name:
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
    if job.result is not None:
        st.success(
            f"{plain(job.title)} is ready. "
            f"{'Compare it in the **Compare** tab, or get' if view.has_task else 'Get'} its "
            "weights on the **Download** page.",
            icon=":material/check_circle:",
        )
    else:
        _show_cancelled(view, stored)
    st.markdown(f"**{plain(stored.label)}** = {plain(scores.describe(stored.soup))}")
    scores.metrics(view, stored.soup)
    scores.show_shortfall(view, [stored])
    _decisions(view, stored.soup, job)
    comparison.show_statistics(view, stored, key="build")


def _labels(view: View, job: Job) -> Labels:
    """Return how a job's recipe writes its scores; the view may have another metric by now."""
    if not view.has_task:
        return NO_LABELS
    return view.task.with_primary(job.request.get("primary")).labels


def _show_cancelled(view: View, stored: StoredSoup) -> None:
    st.info("Cancelled. The best soup so far was saved.", icon=":material/stop_circle:")
    scores.offer_evaluation(view, stored, key="build")


def _decisions(view: View, soup: Soup, job: Job) -> None:
    """Draw the decisions or the passes of a recipe that built a soup."""
    if not soup.trace and not soup.passes:
        return
    offered = StoredSoups(state.store(), view.sweep).by_name(job.request.get("soups", {}))
    # The soup may be shown with other statistics, or by another metric, than the recipe chose with.
    then = view.with_statistics(job.request["batchnorm"]).including(offered)
    then = then.with_primary(soup.chosen_by(view.task).primary)
    then = then.with_tensors(soup.rule)
    call = RecipeSoup.from_request(job.request)
    if soup.trace:
        figure = figures.greedy_trace(
            soup.trace, score_name=then.task.score_name, score_unit=then.task.score_unit
        )
        code = snippets.trace(then, call)
        display.show_figure(figure, "greedy-trace", trace_table(soup.trace), code)
        _saved(view, soup.trace)
    if soup.passes:
        columns = ["number", "loss", "held_back_loss", "best"]
        table = pd.DataFrame(soup.passes)[columns]
        code = snippets.trace(then, call, len(soup.passes))
        display.show_figure(figures.learning_curve(soup.passes), "learning-curve", table, code)


def _saved(view: View, trace: Sequence[Step]) -> None:
    """Show how much evaluation early rejection saved."""
    rejected = [step for step in trace if step.is_bound]
    if not rejected:
        return
    trials = len(trace) - 1  # the first candidate takes no trial
    whole = trials * len(view.task.split(view.task.select))
    seen = sum(step.examples for step in trace[1:])
    st.caption(
        f"{len(rejected)} of {trials} candidates were rejected early, once they could no longer be "
        f"accepted ({1 - seen / whole:.0%} of evaluation skipped). Decisions are identical to a "
        "full pass."
    )


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
