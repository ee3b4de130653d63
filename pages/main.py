"""The shell: navigation, what is looked at, and the jobs; each page draws inside it."""

import streamlit as st

from pages.components import batchnorm, errors, fit_report, jobs, picker, redraw, state, tray
from soupcore import NothingFitsError, StockpotError

st.set_page_config(page_title="Stockpot", page_icon="🍲", layout="wide")

st.html(
    "<style>.stMainBlockContainer { padding: 3.5rem 3rem; }"
    # Names of tensors are long; our rule has to count for more than Streamlit's.
    ".stTable td [data-testid=stMarkdownContainer] p { overflow-wrap: anywhere; }</style>"
)

state.read_url()
page = st.navigation(
    {
        "Kitchen": [
            st.Page("ingredients.py", title="Ingredients", icon=":material/grocery:", default=True),
            st.Page("soups.py", title="Soups", icon=":material/soup_kitchen:"),
            st.Page("evidence.py", title="Evidence", icon=":material/balance:"),
            st.Page("download.py", title="Download", icon=":material/download:"),
        ],
        "Landscape": [
            st.Page("connectivity.py", title="Connectivity", icon=":material/timeline:"),
            st.Page("from_base.py", title="From the base", icon=":material/conversion_path:"),
            st.Page("plane.py", title="Plane", icon=":material/blur_on:"),
            st.Page("geometry.py", title="Geometry", icon=":material/square_foot:"),
            st.Page("soup_vs_ensemble.py", title="Soup vs ensemble", icon=":material/join_inner:"),
        ],
    },
    expanded=True,
)
redraw.remember_page()

with st.sidebar:
    picker.show()
    choices = st.container()
    tray.show()

if notice := st.session_state.pop("notice", None):
    st.warning(notice, icon=":material/link_off:")

try:
    view = state.view()
except StockpotError as error:
    errors.show(error)
    if isinstance(error, NothingFitsError):
        fit_report.show(error.fit)
    st.caption("Choose another sweep or task in the sidebar.")
else:
    if view is None:
        now = st.session_state
        jobs.open_sweep(now["sweep"], now["weights"], state.sweep_label())
    else:
        st.session_state["view"] = view
        with choices:
            batchnorm.choose(view)
        page.run()
state.write_url()
tray.redraw_if_outdated()
