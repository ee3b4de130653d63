"""A soup while it is made, and what came of it."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from pages.components import batchnorm, export, jobs, score_snippets, scores, services, shares
from pages.components.state import View
from pages.components.text import plain
from soupcore import Pass, Soup, Step, figures
from soupcore.figures.tables import trace_table
from soupcore.jobs import Job, State
from soupcore.jobs.stored_soups import StoredSoups
from soupcore.recipes import Recipe


def follow(view: View, recipe: Recipe, job_id: int) -> None:
    """Show how the making of a soup by this recipe stands, and what came of it."""
    job = jobs.get(job_id)
    if job is None or job.request.get("recipe") != recipe.name:
        return
    # A place of its own: the last run of the fragment may come after what follows was drawn.
    with st.container():
        if job.is_unfinished:
            _watch_trace(job_id, recipe, view.task.score_name)
            return
    if job.error:
        st.error(plain(job.error), icon=":material/error:")
    made = job.result or job.partial or {}
    ids = (made.get("soup"), made.get("other"))  # shown is the one with the statistics chosen
    stored = next((soup for soup in scores.soups(view) if soup.soup.id in ids), None)
    if stored is None:
        if job.state == State.CANCELLED:
            st.info("Stopped before there was a soup to keep.", icon=":material/stop_circle:")
        return
    if job.result is not None:
        st.success(
            f"{job.title} is ready. See it under **Compare**, or take it home from **Download**.",
            icon=":material/check_circle:",
        )
    else:
        _kept(view, stored)
    st.session_state["soup"] = stored.soup.id
    st.markdown(f"**{stored.label}** = {shares.describe(stored.soup)}")
    scores.metrics(view, stored.soup)
    _way(view, stored.soup, recipe, job)
    batchnorm.both(view, stored, key="build")


def _kept(view: View, stored: scores.StoredSoup) -> None:
    st.info("Stopped. The best soup so far is kept.", icon=":material/stop_circle:")
    scores.offer_evaluation(view, stored, key="build")


def _way(view: View, soup: Soup, recipe: Recipe, job: Job) -> None:
    """Draw the decisions or the passes that led to a soup."""
    if not soup.trace and not soup.passes:
        return
    offered = StoredSoups(services.store(), view.sweep).by_name(job.request.get("soups", {}))
    # What is shown may be the soup with the statistics that it was not chosen with.
    then = view.with_statistics(job.request["batchnorm"]).including(offered)
    told = (recipe, job.request["names"], job.request["parameters"])
    if soup.trace:
        figure = figures.greedy_trace(soup.trace, score_name=view.task.score_name)
        code = score_snippets.greedy_trace(then, *told)
        export.show(figure, "greedy-trace", trace_table(soup.trace), code)
        _saved(view, soup.trace)
    if soup.passes:
        columns = ["number", "loss", "held_back_loss", "best"]
        table = pd.DataFrame(soup.passes)[columns]
        code = score_snippets.learning_curve(then, *told, len(soup.passes))
        export.show(figures.learning_curve(soup.passes), "learning-curve", table, code)


def _saved(view: View, trace: Sequence[Step]) -> None:
    """Say what giving up candidates early saved."""
    given_up = [step for step in trace if step.is_bound]
    if not given_up:
        return
    trials = len(trace) - 1  # the first was known alone
    whole = trials * len(view.task.split(view.task.select))
    seen = sum(step.examples for step in trace[1:])
    st.caption(
        f"{len(given_up)} of {trials} candidates were given up as soon as the examples left could "
        f"not save them: {seen:,} examples of {whole:,} were seen ({1 - seen / whole:.0%} saved). "
        "Every decision is that of the full pass."
    )


@st.fragment(run_every=0.5)
def _watch_trace(job_id: int, recipe: Recipe, score_name: str) -> None:
    job = jobs.get(job_id)
    if job is not None and job.is_unfinished:
        _trace(job, recipe, score_name)


def _trace(job: Job, recipe: Recipe, score_name: str) -> None:
    known = job.partial or {}
    if passes := known.get("passes"):
        figure = figures.learning_curve([Pass.from_json(found) for found in passes])
        st.plotly_chart(figure, key="growing-curve", config={"displaylogo": False})
        return
    steps = known.get("trace", [])
    if not steps:
        first = "Evaluating the ingredients alone first." if recipe.ranks else "Under way."
        st.info(first, icon=":material/hourglass_top:")
        return
    figure = figures.greedy_trace(
        [Step.from_json(step) for step in steps],
        candidates=len(job.request["names"]),
        score_name=score_name,
    )
    st.plotly_chart(figure, key="growing-trace", config={"displaylogo": False})
