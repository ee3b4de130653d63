"""The shell: navigation, what is looked at, and the jobs; each page draws inside it."""

import streamlit as st

from pages.components import errors, jobs, picker, state, tray
from soupcore import StockpotError

st.set_page_config(page_title="Stockpot", page_icon="🍲", layout="wide")

st.html("<style>.stMainBlockContainer { padding: 3.5rem 3rem; }</style>")

state.read_url()
page = st.navigation(
    {
        "Kitchen": [
            st.Page("ingredients.py", title="Ingredients", icon=":material/grocery:", default=True),
            st.Page("soups.py", title="Soups", icon=":material/soup_kitchen:"),
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

with st.sidebar:
    picker.show()
    tray.show()

if notice := st.session_state.pop("notice", None):
    st.warning(notice, icon=":material/link_off:")

try:
    view = state.view()
except StockpotError as error:
    errors.show(error)
    st.caption("Choose another sweep or task in the sidebar.")
else:
    if view is None:
        jobs.open_sweep(st.session_state["sweep"], state.sweep_label())
    else:
        st.session_state["view"] = view
        page.run()
state.write_url()
tray.redraw_if_outdated()
