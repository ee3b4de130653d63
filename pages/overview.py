"""The landing page: the verdict on a sweep, or the button that starts the analysis."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    comparison,
    display,
    download,
    exports,
    fit_report,
    jobs,
    scores,
    snippets,
    soup_links,
    state,
    tasks,
)
from pages.components.display import VERDICT_ICONS, in_a_sentence, plain
from pages.components.state import View
from soupcore import figures
from soupcore.calls import Code
from soupcore.display import counted
from soupcore.jobs import Job
from soupcore.jobs.known_sweeps import remember
from soupcore.overview import Overview, ranked, title
from soupcore.plan import PART, Analysis, Step, TimedPasses, price, steps
from soupcore.stored_soups import StoredSoup
from soupcore.tasks.unit import UNKNOWN

_TOP = 5
_LARGEST_TIMED = 500_000_000  # bytes of a checkpoint; the first job times a larger network
_STATES = {
    "done": ":material/check_circle:",
    "running": ":material/progress_activity:",
    "waiting": ":material/radio_button_unchecked:",
    "failed": ":material/block:",
}


def main(view: View) -> None:
    st.header("Overview")
    if not view.has_task:
        _without_task(view)
        return
    known = view.overview
    _remember(view, known)
    _header(view, known)
    plan = steps(known)
    job = jobs.unfinished(Analysis.kind, **view.request)
    if known.headline is None:
        _introduction()
    if known.evaluated:
        _verdict(view, known)
    if job is not None:
        _progress(job.id)
    else:
        _analyze(view, known, plan)
    fit_report.show(view.sweep.fit)
    if known.evaluated:
        _figures(view, known)
        _top(view, known)
        snippets.show(Analysis().script(view, Code("print(verdict)\n")))


def _remember(view: View, known: Overview) -> None:
    """Store the verdict for the list of sweeps, if the task's default settings are in use."""
    is_default = view.statistics == "averaged" and view.task.primary is None
    if is_default and not view.store.is_read_only:
        remember(known)


def _without_task(view: View) -> None:
    """Show the logged metrics and the fit report, for a sweep without a task."""
    st.caption(f"{_sweep(view)} · no task")
    _introduction()
    tasks.show_needed("The analysis")
    fit_report.show(view.sweep.fit)
    names = list(view.sweep.ingredients)
    metrics = scores.logged_metrics(view.sweep)
    metric = scores.ranking_metric(view.sweep) or next(iter(metrics), None)
    if metric is None:
        return
    st.subheader(f"Top {min(_TOP, len(names))} by {plain(metric)} (logged)")
    top = scores.ranked_by_logged(view.sweep, names, metric)[:_TOP]
    logged = [view.sweep[name].logged_metrics.get(metric) for name in top]
    st.dataframe(
        {"name": top, f"{metric} (logged)": logged}, hide_index=True, width=480, placeholder=UNKNOWN
    )
    st.caption("Logged by the training tool, not measured here.")


def _sweep(view: View) -> str:
    base = view.sweep.base
    return (
        f"**{counted(len(view.sweep), 'ingredient')}** of **{plain(state.sweep_label())}** · "
        f"{f'base: **{plain(base.name)}**' if base else 'no base checkpoint'}"
    )


def _header(view: View, known: Overview) -> None:
    task = view.task
    sizes = [f"validation ({plain(task.select)}) {len(task.split(task.select)):,}"]
    if known.report:
        sizes.append(f"test ({plain(known.report)}) {len(task.split(known.report)):,}")
    if shifts := task.splits_with_role("shift"):
        sizes.append(counted(len(shifts), "shift"))
    examples = f" · examples: {', '.join(sizes)}" if task.has_examples else ""
    st.caption(f"{_sweep(view)} · task **{plain(task.name)}**{examples}{scores.task_notes(task)}")


def _introduction() -> None:
    st.markdown(
        "A model soup averages the weights of several networks that were fine-tuned from the same "
        "initialisation. It has the inference cost of one network and often scores higher than the "
        "best of them, provided that the runs lie in one loss basin."
    )


def _verdict(view: View, known: Overview) -> None:
    verdict = known.verdict
    with st.container(border=True, key="verdict"):
        first, *others = verdict.sentences
        st.markdown(f"##### {VERDICT_ICONS[verdict.outcome]} {plain(first)}")
        if others:
            st.markdown(" ".join(map(plain, others)))
        if known.headline is not None:
            _show_links(view, known.headline)


def _show_links(view: View, headline: StoredSoup) -> None:
    """Show buttons that lead from the verdict to its soup, the evidence and the report."""

    def open_download() -> None:
        download.write_weights(view, headline)
        soup_links.open_soup("", "download")  # the default, which is the soup of the verdict

    with st.container(horizontal=True):
        st.button(
            f"Download {plain(in_a_sentence(title(headline.soup)))} soup",
            type="primary",
            icon=":material/download:",
            help=f"Opens the page of {plain(headline.label)} and writes its weights if they have "
            "not been written yet.",
            on_click=open_download,
        )
        soup_links.show_name(headline, key="verdict")
        soup_links.show_section("", "evidence", key="verdict")
        if st.button("Report", icon=":material/description:"):
            st.session_state["soup"] = ""
            st.switch_page("report.py")


def _analyze(view: View, known: Overview, plan: list[Step]) -> None:
    """Show the missing steps with their estimated time, and the button that runs them."""
    missing = [step for step in plan if not step.is_done]
    for step in plan:
        if step.failure:
            st.caption(f"{plain(step.title)}: not possible. {plain(step.failure)}")
    if not missing:
        return
    cost = price(known, missing)
    if cost is None:
        _time_a_pass(view)
        cost = price(known, missing)
    job_title = f"Analyze {state.sweep_label()}"
    started = jobs.start_if_short(view, Analysis(), job_title, cost)
    if started is not None:
        _progress(started)
        return
    if (first := missing[0]).name == "evaluate":  # at least the scores of the ingredients
        evaluating = f"Evaluate {counted(len(known.runs), 'checkpoint')}"
        jobs.start_if_short(view, first.call, evaluating, price(known, [first]))
    is_new = len(missing) == len(plan)
    st.markdown("**The analysis:**" if is_new else "**Not done yet:**")
    st.markdown("\n".join(f"- {plain(step.title)}{_price(known, step)}" for step in missing))
    label = "Analyze this sweep" if is_new else "Finish the analysis"
    jobs.call_button(
        view,
        label,
        Analysis(),
        job_title,
        key="analyze",
        help="Results are stored as they come, so a step runs only once. You can cancel at any "
        "time. Soups are chosen on the validation split only.",
        price=cost,
    )


def _price(known: Overview, step: Step) -> str:
    cost = price(known, [step])
    return f" (about {display.about(cost)})" if cost is not None and cost >= 1 else ""


def _time_a_pass(view: View) -> None:
    """Time one pass of a small network, in a sweep that was not opened by a link."""
    first = next(iter(view.sweep.ingredients.values())).checkpoint
    nbytes = sum(info.nbytes for info in first.tensors.values())
    if view.folder in state.opened() and view.task.has_examples and nbytes <= _LARGEST_TIMED:
        jobs.derive(view, TimedPasses(), f"Time passes over {PART} examples")


@st.fragment(run_every=0.5)
def _progress(job_id: int) -> None:
    job = jobs.get(job_id)
    if job is not None and job.is_unfinished:
        _show_steps(job)


def _show_steps(job: Job) -> None:
    with st.container(border=True, key="analysis-steps"):
        plan: list[dict[str, Any]] = (job.partial or {}).get("steps", [])
        st.progress(job.fraction, text=f"{plain(job.title)} · {job.fraction:.0%}")
        icons = [_STATES["failed" if step["failure"] else step["state"]] for step in plan]
        lines = [f"{icon} {plain(step['title'])}" for icon, step in zip(icons, plan, strict=True)]
        st.markdown("  \n".join(lines))
        st.button(
            "Cancel",
            key="cancel-analysis",
            on_click=jobs.cancel,
            args=(job,),
            disabled=state.store().is_read_only,
            help="Finished steps are kept.",
        )


def _figures(view: View, known: Overview) -> None:
    with st.container(key="two-figures"):
        left, right = st.columns(2)
    with left:
        comparison.show_scatter(
            view,
            scores.of_all(view, known.soups),
            "overview-scatter",
            known.soups,
            selected=st.session_state["selection"],
            on_pick=soup_links.pick(view, known.soups),
        )
    with right:
        _basin_map(view, known)


def _basin_map(view: View, known: Overview) -> None:
    st.subheader("Basins")
    table = known.basin_table()
    if table.empty or known.best is None:
        st.caption(
            "Not available until the lines between ingredients are screened for barriers."
            if len(known.names) > 1
            else "Needs at least two ingredients."
        )
        return
    labels = view.task.labels.for_figures
    figure = figures.basin_map(table, view.colours, best=known.best, **labels)
    display.show_figure(
        figure,
        "basin-map",
        table,
        _basin_map_code(view, known, table),
        title="Basins",
        about=exports.sizes(view.task, view.task.select),
    )


def _basin_map_code(view: View, known: Overview, table: pd.DataFrame) -> str:
    basins = known.facts.basins
    screened = basins.screened if basins is not None else None
    return snippets.basin_map(view, str(known.best), list(table.index), screened)


def _top(view: View, known: Overview) -> None:
    """Show the best soups and ingredients on the select split."""
    task, unit = view.task, view.task.score_unit
    rows = []
    soups = {soup.label: soup for soup in known.soups}
    found = scores.of_all(view, known.soups)
    names = ranked(found, task.select, [*soups, *known.names])[:_TOP]
    for name in names:
        by_split, is_soup = found[name], name in soups
        on_select = by_split[task.select]
        gain = known.gain(soups[name].soup.id, known.report) if is_soup and known.report else None
        kind = "best ingredient" if name == known.best else "ingredient"
        row = {
            "name": soup_links.cell_text(name),
            "kind": "soup" if is_soup else kind,
            unit.label(f"validation {task.score_name}"): scores.with_interval(unit, on_select),
        }
        if known.report:
            on_report = by_split[known.report]
            row[unit.label(f"test {task.score_name}")] = scores.with_interval(unit, on_report)
        if task.splits_with_role("shift"):
            shift = scores.shift_mean(view, by_split)
            row[unit.label(f"mean shift {task.score_name}")] = unit.number(shift)
        if known.report:
            row["Δ test vs. best run"] = unit.difference_text(gain.difference) if gain else UNKNOWN
            row["interval"] = unit.difference_interval(gain.interval if gain else None)
        rows.append(row)
    if not rows:
        return
    st.subheader(f"Top {len(rows)} on validation")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        placeholder=UNKNOWN,
        column_config={"name": soup_links.names_column("top", names, soups, width=220)},
    )
    st.caption(
        "Click a name to open it. Ranked by validation score. Soups and runs are chosen on this "
        f"split, so its scores are optimistic. {scores.advice(task)} ± and intervals are 95 %."
    )


if __name__ == "__main__":
    main(st.session_state["view"])
