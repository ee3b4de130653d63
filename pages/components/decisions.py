"""The decisions of a recipe that built a soup: its trace, or its passes."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from pages.components import display, exports, snippets
from pages.components.state import View
from soupcore import Soup, Step, figures
from soupcore.calls import RecipeSoup
from soupcore.figures.tables import trace_table


def show(view: View, call: RecipeSoup, soup: Soup) -> None:
    """Draw the decisions or the passes of a recipe that built a soup.

    Args:
        view: The view as the recipe saw it: its candidates, its metric and its tensors.
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
        _saved(view, soup.trace)
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
        f"accepted ({1 - seen / whole:.0%} of evaluation skipped). The decisions are those of "
        "full evaluations."
    )
