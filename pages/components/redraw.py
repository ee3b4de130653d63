"""Running the whole page again without the user's asking, as when results have come.

`st.rerun` starts the next run from inside the one that calls it, some 0.2 s later where there is
much to collect, and without a look at whether the user has asked for another page meanwhile.
Streamlit runs that page in a thread of its own, the two share one note of which page is wanted,
and the later one writes the older page on it: the click is lost. A run that is requested here
begins only after this one has ended, and not at all where the user asked for something else.
"""

import streamlit as st
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx
from streamlit.runtime.scriptrunner_utils.script_run_context import ScriptRunContext


def remember_page() -> None:
    """Remember which page the user is on; call it once a run, after the navigation."""
    st.session_state["page"] = _context().page_script_hash


def is_late() -> bool:
    """Whether a timer's run was asked for before the user went to another page.

    Its request names the page left behind, and the browser would take that for the current one.
    """
    return bool(_context().page_script_hash != st.session_state["page"])


def after_this_run() -> None:
    """Ask for a run of the whole page; nothing may be drawn after it."""
    context = _context()
    if context.script_requests is not None:
        context.script_requests.request_rerun(
            RerunData(
                query_string=context.query_string,
                page_script_hash=st.session_state["page"],
                cached_message_hashes=context.cached_message_hashes,
                context_info=context.context_info,
            )
        )


def _context() -> ScriptRunContext:
    context = get_script_run_ctx()
    if context is None:
        raise RuntimeError("There is no page to draw outside a run of the app's script.")
    return context
