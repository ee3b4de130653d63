"""The frame of all pages: navigation, sidebar and jobs."""

import shutil
from pathlib import Path

import streamlit as st

from pages.components import (
    display,
    fit_report,
    header,
    jobs_panel,
    soup_links,
    state,
    streamlit_internals,
    sweeps,
    tasks,
)
from soupcore import StockpotError, escaping
from soupcore.display import in_words
from soupcore.maintenance import Size, sizes
from soupcore.sweeps import UnusableSweepError
from soupcore.sweeps.folder import list_checkpoints

_SIZES_AGE = 60.0  # seconds; measuring ten thousand files takes 0.1 s


def _show_workspace() -> None:
    """Show the size of the workspace by kind of file, and how to maintain it."""
    store = state.store()
    found = _sizes(store.folder)
    total = in_words(sum(size.nbytes for size in found.values()))
    with st.expander(f"Workspace · {total}", icon=":material/hard_drive:"):
        lines = [f"**{in_words(size.nbytes)}** {kind}" for kind, size in found.items()]
        free = in_words(shutil.disk_usage(store.folder).free)
        st.markdown("  \n".join([*lines, f"{free} free on this disk"]))
        st.caption(escaping.code(str(store.folder)))
        for note in store.notes:
            st.warning(escaping.markdown(note), icon=":material/healing:")
        st.caption("To check it, back it up or free space:")
        st.code("python -m soupcore.maintenance --help", language="shell")


@st.cache_data(ttl=_SIZES_AGE, show_spinner=False)
def _sizes(folder: Path) -> dict[str, Size]:
    return sizes(folder)


header.configure_page()

st.html(
    "<style>.stMainBlockContainer { padding: 3.5rem 3rem; }"
    f"{header.STYLE}"
    # Tensor names are long. The selector is specific enough to override Streamlit's rule.
    ".stTable td [data-testid=stMarkdownContainer] p { overflow-wrap: anywhere; }"
    # White on the light blue of the dark theme would have too little contrast.
    "[data-testid=stBaseButton-primary]:enabled p, [data-testid=stBaseButton-primary]:enabled span,"
    "[data-testid=stBaseLinkButton-primary] p, [data-testid=stBaseLinkButton-primary] span"
    ", .stMultiSelect span[title] { color: light-dark(#fff, #0d1117); }"
    # Dialogs are outside the element that has the colour scheme.
    f"[role=dialog] {{ color-scheme: {st.context.theme.type or 'light'}; }}"
    ".st-key-jobs [data-testid=stBaseButton-tertiary] { min-height: 0; padding: 0; }"
    # Pills that have no room in a line would be cut off.
    "[data-testid=stButtonGroup] > div { flex-wrap: wrap; }"
    ".stMarkdown h3 { text-wrap: pretty; }"
    # Beside each other, figures would have no room in a narrow window.
    "@media (max-width: 1400px) { .st-key-connectivity .stColumn { min-width: 100%; } }"
    "@media (max-width: 1280px) { .st-key-soup-summary .stColumn, .st-key-side-by-side .stColumn"
    " { min-width: 100%; } }"
    "@media (max-width: 1100px) { [class*=st-key-two-figures] .stColumn { min-width: 100%; } }"
    "</style>"
)

st.session_state["dialog_is_open"] = False  # a run of the page closes it
state.read_url()
every_sweep = st.Page("all_sweeps.py", title="Sweeps", icon=":material/folder_copy:")
page = st.navigation(
    {
        "Sweep": [
            st.Page("overview.py", title="Overview", icon=":material/home:", default=True),
            st.Page("ingredients.py", title="Ingredients", icon=":material/grocery:"),
            st.Page("soups.py", title="Soups", icon=":material/soup_kitchen:"),
            st.Page("connectivity.py", title="Connectivity", icon=":material/timeline:"),
            st.Page("compare.py", title="Compare", icon=":material/compare_arrows:"),
            st.Page("report.py", title="Report", icon=":material/description:"),
            st.Page("soup.py", title="Soup", icon=":material/soup_kitchen:", visibility="hidden"),
            *soup_links.earlier_addresses(),
        ],
        "Analysis": [
            st.Page("from_base.py", title="Paths", icon=":material/conversion_path:"),
            st.Page("plane.py", title="Plane", icon=":material/blur_on:"),
            st.Page("geometry.py", title="Geometry", icon=":material/square_foot:"),
            st.Page("soup_vs_ensemble.py", title="Ensembles", icon=":material/join_inner:"),
        ],
        "Workspace": [every_sweep],
    },
    expanded=True,
)
soup_links.follow(page)
streamlit_internals.remember_page()

try:
    is_read_only = state.supervisor().queue.store.is_read_only
except StockpotError as error:  # a damaged database, or one of a newer version
    display.show_error(error)
    st.stop()

with st.sidebar:
    sweeps.show_choice()
    watched = st.container()
    choices = st.container()
    jobs_panel.show()
    _show_workspace()

places = header.show()
if is_read_only:
    st.info(
        "This workspace is read-only: stored results are shown, but you cannot compute, upload or "
        "create files to download.",
        icon=":material/lock:",
    )
notice = st.session_state.get("notice")
# It stays until the user opens another page, since results that arrive run this page again.
first_page = st.session_state.setdefault("first_page", st.session_state["page"])
if notice and st.session_state["page"] == first_page:
    st.warning(notice, icon=":material/link_off:")

if page == every_sweep:  # it is shown even if this sweep cannot be opened
    page.run()
    state.write_url()
    jobs_panel.redraw_if_outdated()
    st.stop()

before = list_checkpoints(st.session_state["sweep"])
try:
    view = state.view()
except state.UndescribedError:
    sweeps.wait_for_task(st.session_state["task"])
except StockpotError as error:
    is_root = isinstance(error, UnusableSweepError) and sweeps.is_root(st.session_state["sweep"])
    if is_root:  # it may hold sweeps
        sweeps.show_folders()
    else:
        display.show_error(error)
    if isinstance(error, UnusableSweepError):
        fit_report.show(error.fit)
        fit_report.choose_snapshots(error.fit)
        if not is_root:
            with watched:
                sweeps.watch_folder(st.session_state["sweep"], before)
    if st.session_state["snapshot"] and st.button("Open the default snapshots"):
        state.choose_snapshot("")
        st.rerun()
    if not is_root:
        st.caption("Open another sweep or task from the sidebar.")
else:
    if view is None:
        sweeps.open_sweep(state.opening(), state.sweep_label())
    else:
        st.session_state["view"] = view
        header.show_selection(places, view)
        with choices:
            tasks.choose_metric(view)
            tasks.choose_statistics(view)
        if view.is_outdated:
            sweeps.read_changes(view, state.sweep_label())
        with watched:
            sweeps.watch_folder(view.folder, before)
        page.run()
state.write_url()
jobs_panel.redraw_if_outdated()
