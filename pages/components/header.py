"""The logo, the title of the browser's tab, the line above every page, and keyboard shortcuts.

The line is: sweep ▸ task ▸ selection and primary metric ▸ the soup that was opened last, if any ▸
jobs ▸ the help on shortcuts. Its height is fixed and long texts are cut off, so that the page below
never moves.

Streamlit gives shortcuts only to buttons, and none of them can be `?`. So a script of this module
listens for keys. It is a constant: the server's content security policy allows it by its hash.
"""

import json
from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.components import exports, state, streamlit_internals, tasks
from pages.components.display import plain
from pages.components.state import View
from soupcore.display import counted
from soupcore.jobs import Job, State

#: The key after G that opens each page.
PAGES = {
    "o": "Overview",
    "i": "Ingredients",
    "s": "Soups",
    "c": "Connectivity",
    "m": "Compare",
    "r": "Report",
    "p": "Paths",
    "l": "Plane",
    "g": "Geometry",
    "n": "Ensembles",
    "w": "Sweeps",
}

KEY = "header-line"
_HELP = "keyboard-help"
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
    f".st-key-{_HELP} {{ margin-left: auto; }} :has(> .st-key-keys) {{ display: none; }}"
    f"{exports.STYLE}"
    f".st-key-{KEY} p {{ white-space: nowrap; overflow: hidden; text-overflow: ellipsis;"
    " font-size: 0.875rem; }"
)

# It acts before Streamlit's own keys, such as R, and leaves keys in text fields alone.
SCRIPT = f"""<script>(() => {{
  if (window.stockpotKeys) return;
  window.stockpotKeys = true;
  const pages = {json.dumps(PAGES)};
  const open = () => document.querySelector("[role=dialog]");
  let chord = 0;
  document.addEventListener("keydown", (event) => {{
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || at.isContentEditable) return;
    if (["INPUT", "TEXTAREA", "SELECT"].includes(at.tagName) || open()) return;
    const isChord = chord && 5000 > event.timeStamp - chord;
    chord = 0;
    if (event.key === "?") {{
      document.querySelector(".st-key-{_HELP} button")?.click();
    }} else if (isChord && event.key in pages) {{
      const links = [...document.querySelectorAll("[data-testid=stSidebarNavLink]")];
      links.find((link) => link.textContent.trim().endsWith(pages[event.key]))?.click();
    }} else if (event.key === "g") {{
      chord = event.timeStamp;
    }} else {{
      return;
    }}
    event.preventDefault();
    event.stopImmediatePropagation();
  }}, true);
}})();</script>"""

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
    """Return the logo as SVG; with the name beside it if a theme is given, "light" or "dark"."""
    if theme is None:
        return _SVG.format(width=24, inside=_POT.format(pot=_ICON))
    name = (
        f'<text x="32" y="18.5" fill="{_INKS[theme]}" font-size="18" font-weight="600" '
        'textLength="80" lengthAdjust="spacingAndGlyphs" font-family="system-ui, sans-serif">'
        "Stockpot</text>"
    )
    return _SVG.format(width=114, inside=_POT.format(pot=_POTS[theme]) + name)


def configure_page() -> None:
    """Set the icon of the browser's tab, and show the logo."""
    st.set_page_config(page_title=_TITLE, page_icon=mark(), layout="wide")
    theme = st.context.theme.type or "light"
    st.logo(mark(theme), size="large", icon_image=mark())


def show_ended(jobs: Sequence[Job]) -> None:
    """Show in the title of the browser's tab which long jobs ended, such as "✓ Greedy soup"."""
    if jobs:
        sign = "✓" if all(job.state == State.DONE for job in jobs) else "✗"
        title = jobs[0].title if len(jobs) == 1 else f"{len(jobs)} jobs"
        st.set_page_config(page_title=f"{sign} {title} · {_TITLE}")


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
        _keyboard()
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
    chosen = f"{count} of {total} selected" if count else counted(total, "ingredient")
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


def _keyboard() -> None:
    """Show the button of the dialog, and listen for the shortcuts."""
    if st.button("?", key=_HELP, type="tertiary", icon=":material/keyboard:"):
        _keyboard_help()
    with st.container(key="keys"):
        st.html(SCRIPT, unsafe_allow_javascript=True)


@streamlit_internals.dialog("Keyboard", width="medium")
def _keyboard_help() -> None:
    left, right = st.columns(2)
    with left:
        st.markdown("**Open a page**")
        st.markdown(_shortcuts({f"G then {key.upper()}": title for key, title in PAGES.items()}))
    with right:
        st.markdown("**Everywhere**")
        st.markdown(
            _shortcuts(
                {
                    "?": "This help",
                    "Tab": "Next control",
                    "Shift + Tab": "Previous control",
                    "Enter": "Press a button, open a list, follow a link",
                    "Space": "Tick a box",
                    "← →": "Change a choice, move a slider",
                    "Esc": "Close a dialog or a list",
                }
            )
        )
        st.markdown("**In a table**")
        st.markdown(
            _shortcuts(
                {
                    "Arrows": "Move between cells",
                    "Space": "Tick the row, on its box",
                    "Ctrl + C": "Copy cells",
                    "Ctrl + F": "Search",
                }
            )
        )
    st.caption(
        "Every click on a figure has an equivalent for the keyboard. Rows of the run table select "
        "ingredients, *Add curve* on the Connectivity page chooses a pair, and the list on the "
        "page of a soup opens another one. *CSV* below a figure saves its numbers."
    )


def _shortcuts(rows: dict[str, str]) -> str:
    lines = [f"| {' '.join(_keys(keys))} | {text} |" for keys, text in rows.items()]
    return "\n".join(["| Key | Action |", "| --- | --- |", *lines])


def _keys(text: str) -> list[str]:
    words = {"then", "+"}
    return [word if word in words else f"`{word}`" for word in text.split(" ")]
