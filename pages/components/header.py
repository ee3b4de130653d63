"""The mark, the title of the browser's tab, and the line above every page: where the user is.

The line is: sweep ▸ task ▸ selection and primary metric ▸ the soup that was opened last, if any ▸
jobs. Its height is fixed and long texts are cut off, so that the page below never moves.
"""

from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.components import exports, keyboard, state, tasks
from pages.components.display import plain
from pages.components.state import View
from soupcore.jobs import Job, State

KEY = "header-line"
STYLE = (
    f".st-key-{KEY} {{ height: 1.75rem !important; overflow: hidden; flex-wrap: nowrap !important;"
    " align-items: center; gap: 0.4rem; margin-bottom: -0.5rem; }"
    f".st-key-{KEY} > * {{ flex: 0 1 auto; min-width: 0; }}"
    # That of the jobs is never cut off.
    f".st-key-{KEY} > :has(> .st-key-job-counts) {{ flex-shrink: 0; }}"
    # Without a selection, nothing separates it from the jobs.
    f".st-key-{KEY} > :has(+ * > [data-testid=stEmpty]) {{ display: none; }}"
    f".st-key-{KEY} button {{ min-height: 0; padding: 0; line-height: 1.4; }}"
    f".st-key-{KEY} .stButton {{ display: flex; }}"
    f"{keyboard.STYLE}{exports.STYLE}"
    f".st-key-{KEY} p {{ white-space: nowrap; overflow: hidden; text-overflow: ellipsis;"
    " font-size: 0.875rem; }"
)

_TITLE = "Stockpot"
_ICON = "#2560b3"
_INKS = {"light": "#0d1117", "dark": "#fafafa"}
_POTS = {"light": "#2560b3", "dark": "#8ab4f8"}
# Three points of weight space, and the pot in which they become one.
_POT = (
    '<g fill="none" stroke="{pot}" stroke-width="2" stroke-linecap="round">'
    '<path d="M5 6 L11 11 M12 3 V11 M19 6 L13 11"/></g>'
    '<g fill="{pot}"><circle cx="5" cy="5.5" r="2"/><circle cx="12" cy="2.5" r="2"/>'
    '<circle cx="19" cy="5.5" r="2"/>'
    '<path d="M3.5 11.5 h17 v6.5 a4 4 0 0 1 -4 4 h-9 a4 4 0 0 1 -4 -4 z"/>'
    '<rect x="0.5" y="13" width="3.5" height="2.6" rx="1.3"/>'
    '<rect x="20" y="13" width="3.5" height="2.6" rx="1.3"/></g>'
)
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 24">{inside}</svg>'


def mark(theme: str | None = None) -> str:
    """Return the mark as SVG; with the name beside it if a theme is given, "light" or "dark"."""
    if theme is None:
        return _SVG.format(width=24, inside=_POT.format(pot=_ICON))
    name = (
        f'<text x="32" y="18.5" fill="{_INKS[theme]}" font-size="18" font-weight="600" '
        'textLength="80" lengthAdjust="spacingAndGlyphs" font-family="system-ui, sans-serif">'
        "Stockpot</text>"
    )
    return _SVG.format(width=114, inside=_POT.format(pot=_POTS[theme]) + name)


def configure_page() -> None:
    """Set the icon of the browser's tab, and show the mark."""
    st.set_page_config(page_title=_TITLE, page_icon=mark(), layout="wide")
    theme = st.context.theme.type or "light"
    st.logo(mark(theme), size="large", icon_image=mark())


def show_ended(jobs: Sequence[Job]) -> None:
    """Show in the title of the browser's tab which long jobs ended, such as "✓ Greedy soup"."""
    if jobs:
        sign = "✓" if all(job.state == State.DONE for job in jobs) else "✗"
        what = jobs[0].title if len(jobs) == 1 else f"{len(jobs)} jobs"
        st.set_page_config(page_title=f"{sign} {what} · {_TITLE}")


def show() -> tuple[DeltaGenerator, DeltaGenerator]:
    """Show the line, and return the places for `show_selection`, which needs the view."""
    with st.container(horizontal=True, key=KEY, vertical_alignment="center"):
        name = f"**{plain(state.sweep_label())}**"
        if st.button(name, key="to-sweeps", type="tertiary", icon=":material/folder:"):
            st.switch_page("all_sweeps.py")
        _next()
        task = tasks.label(st.session_state["task"])
        st.markdown(f":material/labs: {plain(task)}", width="content")
        _next()
        selection = st.empty()
        _next()
        soup = st.empty()
        _next()
        # Without a timer of its own: the jobs panel has the page drawn again as jobs go on.
        _jobs()
        exports.listen()
        keyboard.show()
    return selection, soup


def show_selection(places: tuple[DeltaGenerator, DeltaGenerator], view: View) -> None:
    """Show the number of selected ingredients and the primary metric, and the soup."""
    selection, soup = places
    label, icon = _selection(view), ":material/checklist:"
    if selection.button(label, key="to-ingredients", type="tertiary", icon=icon):
        st.switch_page("ingredients.py")
    if label := st.session_state["soup-label"]:
        icon = ":material/soup_kitchen:"
        if soup.button(plain(label), key="to-soup", type="tertiary", icon=icon):
            st.switch_page("soup.py")


def _next() -> None:
    st.markdown("▸", width="content")


def _selection(view: View) -> str:
    count, total = len(st.session_state["selection"]), len(view.sweep)
    chosen = f"{count} of {total} selected" if count else f"{total} ingredients"
    return f"{chosen} · {plain(view.task.metric.name)}" if view.has_task else chosen


def _jobs() -> None:
    counts = state.supervisor().queue.counts()
    parts = [
        f"{count} {name}"
        for name, count in (
            ("running", counts.running), ("queued", counts.queued), ("failed", counts.failed)
        )
        if count
    ]  # fmt: skip
    icon = ":material/progress_activity:" if counts.active else ":material/task_alt:"
    if counts.failed:
        icon = ":material/error:"
    with st.container(key="job-counts", width="content"):
        st.markdown(f"{icon} {' · '.join(parts) or 'no jobs'}", width="content")
