"""Streamlit's runtime, which is not part of its public interface; all uses of it are here."""

from collections.abc import Callable
from typing import Literal

import streamlit as st
from streamlit.runtime import get_instance
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx
from streamlit.runtime.scriptrunner_utils.script_run_context import ScriptRunContext
from streamlit.runtime.uploaded_file_manager import UploadedFileRec


def current_session() -> str:
    """Return the id of the session whose page is being drawn; "" outside a page."""
    context = get_script_run_ctx()
    return context.session_id if context else ""


def is_active(session: str) -> bool:
    """Whether a session is active."""
    return get_instance().is_active_session(session)


def register_upload(session: str, file_id: str, name: str) -> None:
    """Register an uploaded file of a session without its content."""
    record = UploadedFileRec(file_id, name, "application/octet-stream", b"")
    manager = get_instance().uploaded_file_mgr
    if not isinstance(manager, MemoryUploadedFileManager):
        raise TypeError("This version of Streamlit does not keep uploads in memory.")
    manager.add_file(session, record)


def remember_page() -> None:
    """Store the user's current page; call it once a run, after the navigation."""
    st.session_state["page"] = _context().page_script_hash


def is_late() -> bool:
    """Whether a timer requested this run before the user opened another page.

    Its request names the previous page, and the browser would show that as the current one.
    """
    return bool(_context().page_script_hash != st.session_state["page"])


def rerun_after_this() -> None:
    """Request a run of the whole page after this run; nothing may be drawn after the call.

    `st.rerun` starts the next run from inside the run that calls it, about 0.2 s later if there is
    much garbage to collect, and does not check whether the user has opened another page meanwhile.
    Streamlit runs that page in another thread. Both threads share one record of the current page,
    and the later one overwrites it with the older page: the click is lost. This request begins only
    after the current run, and not at all if the user has requested something else. While a dialog
    is open, nothing is requested.
    """
    if st.session_state.get("dialog_is_open"):
        return
    context = _context()
    if context.script_requests is not None:
        st.session_state["is_own_run"] = True
        context.script_requests.request_rerun(
            RerunData(
                query_string=context.query_string,
                page_script_hash=st.session_state["page"],
                cached_message_hashes=context.cached_message_hashes,
                context_info=context.context_info,
            )
        )


def dialog(
    title: str, *, width: Literal["medium", "large"]
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Return a decorator for the body of a dialog that stays open until the user closes it.

    A run of the page that does not call the dialog closes it, with everything typed into it.
    Therefore, `rerun_after_this` waits. Closing the dialog runs the page, which then is up to date.
    """

    def decorate(body: Callable[[], None]) -> Callable[[], None]:
        def show() -> None:
            st.session_state["dialog_is_open"] = True  # until the page runs again; see `main.py`
            body()

        return st.dialog(title, width=width, on_dismiss="rerun")(show)

    return decorate


def _context() -> ScriptRunContext:
    context = get_script_run_ctx()
    if context is None:
        raise RuntimeError("Pages can only be drawn in a run of the app's script.")
    return context
