"""Whether the checkpoints of a sweep can be averaged, for people."""

import pandas as pd
import streamlit as st

from soupcore import FitReport


def show(fit: FitReport) -> None:
    """Show what was found about the checkpoints, where anything was."""
    if not fit.findings:
        return
    warnings = sum(finding.severity == "warning" for finding in fit.findings)
    title = f"Fit report: {len(fit.misfits)} left out, {warnings} to look at"
    with st.expander(title, icon=":material/rule:", expanded=bool(fit.misfits)):
        # A plain table, because it wraps: a way out that is cut off is none.
        st.table(
            pd.DataFrame(
                {
                    "ingredient": finding.ingredient,
                    "": "left out" if finding.severity == "misfit" else "look",
                    "tensor": finding.tensor,
                    "problem": finding.problem,
                    "way out": finding.way_out,
                }
                for finding in fit.findings
            ).set_index("ingredient")
        )
