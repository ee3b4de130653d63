"""Calibration of a soup, the best ingredient and the ensemble."""

from typing import Any

import streamlit as st

from pages.components import scores
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import TaskError, figures
from soupcore.analysis import calibration, fit_temperature
from soupcore.analysis.ensemble import ensemble_outputs
from soupcore.figures.style import NEUTRAL, SOUP


def show(view: View, picked: StoredSoup, best: str, known: scores.Known) -> None:
    """Show how sure the soup, the best ingredient and the ensemble are against how right."""
    st.subheader("Calibration")
    split = next(iter(view.task.splits_with_role("report")), view.task.select)
    members = [view.sweep[name].mixture for name in picked.soup.coefficients]
    networks: dict[str, dict[str, Any]] = {picked.label: {}, best: {}, "ensemble": {}}
    for where in {view.task.select, split}:
        for name in (picked.label, best):
            found = known[name][where]
            networks[name][where] = found.outputs if found and found.has_outputs else None
        networks["ensemble"][where] = ensemble_outputs(view.evaluator, members, where)
    complete = {
        name: outputs
        for name, outputs in networks.items()
        if all(output is not None for output in outputs.values())
    }
    if not complete:
        st.caption("Shows once the soup and the ingredients are evaluated on select and report.")
        return
    after = st.toggle("Divide by a temperature fitted on select", key="calibration-temperature")
    inks = {picked.label: SOUP, best: view.colours[best], "ensemble": NEUTRAL}
    targets = {where: view.task.split(where).targets for where in {view.task.select, split}}
    try:
        found_by_name = {}
        for name, outputs in complete.items():
            chosen_on = outputs[view.task.select], targets[view.task.select]
            temperature = fit_temperature(*chosen_on) if after else 1.0
            found_by_name[name] = calibration(
                outputs[split], targets[split], temperature=temperature
            )
    except TaskError:
        st.caption("Only classifiers can be calibrated; this task's outputs are not logits.")
        return
    figure = figures.reliability_diagram(found_by_name, inks)
    st.plotly_chart(figure, key="reliability", config={"displaylogo": False})
    temperatures = ", ".join(f"{n} {c.temperature:.2f}" for n, c in found_by_name.items())
    st.caption(
        f"On {split}, bins of equal mass. ECE: the mean distance from the diagonal. "
        + (f"Temperatures: {temperatures}. " if after else "")
        + "Averaging weights does not make a network know better how sure it is."
    )
