"""Calibration of a soup, the ingredients and the ensemble."""

from collections.abc import Mapping

import pandas as pd
import streamlit as st
from torch import Tensor

from pages.components import export, score_snippets, scores
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import TaskError, figures
from soupcore.analysis import Calibration, calibration, ensemble_outputs, fit_temperature
from soupcore.figures.style import NEUTRAL, SOUP
from soupcore.figures.tables import calibration_table

_ENSEMBLE = "ensemble"

Outputs = Mapping[str, Tensor]  # by split


def show(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    """Show how sure the soup, the ingredients and the ensemble are against how right."""
    st.subheader("Calibration")
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    outputs = _outputs(view, picked, known, [view.task.select, split])
    drawn = [name for name in (picked.label, best, _ENSEMBLE) if name in outputs]
    if not drawn:
        st.caption("Shows once the soup and the ingredients are evaluated on select and report.")
        return
    with st.container(horizontal=True):
        after = st.toggle("Divide by a temperature fitted on select", key="calibration-temperature")
        in_table = st.toggle("All ingredients, before and after", key="calibration-table")
    inks = {picked.label: SOUP, _ENSEMBLE: NEUTRAL, **view.colours}
    try:
        found = {name: _calibrated(view, outputs[name], split, after=after) for name in drawn}
    except TaskError:
        st.caption("Only classifiers can be calibrated; this task's outputs are not logits.")
        return
    figure = figures.reliability_diagram(found, inks)
    code = score_snippets.reliability(view, picked, drawn, _ENSEMBLE, split, after=after)
    export.show(figure, "reliability", calibration_table(found), code)
    temperatures = ", ".join(f"{name} {each.temperature:.2f}" for name, each in found.items())
    st.caption(
        f"On {split}, bins of equal mass. ECE: the mean distance from the diagonal. "
        + (f"Temperatures: {temperatures}. " if after else "")
        + "Averaging weights does not make a network know better how sure it is."
    )
    if in_table:
        _table(view, outputs, split)


def _outputs(
    view: View, picked: StoredSoup, known: scores.Known, splits: list[str]
) -> dict[str, Outputs]:
    """Return what is known of those of whom all is known."""
    members = [picked.sweep[name].mixture for name in picked.soup.ingredients]
    found: dict[str, dict[str, Tensor | None]] = {
        name: {
            split: each.outputs if (each := by_split[split]) and each.has_outputs else None
            for split in splits
        }
        for name, by_split in known.items()
    }
    found[_ENSEMBLE] = {split: ensemble_outputs(view.evaluator, members, split) for split in splits}
    return {
        name: {split: output for split, output in by_split.items() if output is not None}
        for name, by_split in found.items()
        if all(output is not None for output in by_split.values())
    }


def _calibrated(view: View, outputs: Outputs, split: str, *, after: bool) -> Calibration:
    select = view.task.select
    temperature = 1.0
    if after:
        temperature = fit_temperature(outputs[select], view.task.split(select).targets.cpu())
    targets = view.task.split(split).targets.cpu()
    return calibration(outputs[split], targets, temperature=temperature)


def _table(view: View, outputs: Mapping[str, Outputs], split: str) -> None:
    rows = {}
    for name, by_split in outputs.items():
        before = _calibrated(view, by_split, split, after=False)
        after = _calibrated(view, by_split, split, after=True)
        rows[name] = {
            "ECE, %": 100 * before.ece,
            "temperature": after.temperature,
            "ECE after, %": 100 * after.ece,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    st.dataframe(table.style.format("{:.2f}"), width=480)
