"""Tasks: the one in use, how to choose another, and what needs one."""

import streamlit as st

from pages.components import settings, state
from pages.components.display import plain
from soupcore import TaskError
from soupcore.task_spec import TaskSpec

HOW = (
    "To give one, restart with `stockpot FOLDER --task FILE.py:NAME` (Python), "
    "`--task hf:FILE.toml` (a Hugging Face network) or `--task command:FILE.toml` (your own "
    "evaluation script)."
)
_NONE = "No task"


def label(spec: str) -> str:
    """Return a short name of a task, for people."""
    if not spec:
        return _NONE
    try:
        return TaskSpec.parse(spec).label
    except TaskError:  # its file is gone
        return spec


def choose(folder: str, current: str) -> str:
    """Let the user choose a task for a sweep, or none; return it."""
    offered = ["", *settings.current().tasks_for(folder)]
    return st.selectbox(
        "Task (how ingredients are evaluated)",
        offered,
        index=offered.index(current) if current in offered else 0,
        format_func=label,
        help="Tasks execute Python code or commands, so only those passed with --task at startup "
        "are listed.",
    )


def show_choice() -> None:
    """Show the task in the sidebar, with a button to choose another."""
    task = st.session_state["task"]
    st.markdown(
        f":material/labs: {plain(label(task))}",
        help=plain(task) if task else "Nothing is evaluated. Recipes that choose need a task.",
    )
    if st.button("Choose a task", width="stretch", icon=":material/labs:", key="change-task"):
        _dialog()


@st.dialog("Choose a task")
def _dialog() -> None:
    folder = st.session_state["sweep"]
    chosen = choose(folder, st.session_state["task"])
    st.caption(HOW)
    if st.button("Use this task" if chosen else "Go without a task", type="primary"):
        state.choose_task(chosen)
        st.rerun()


def show_needed(what: str, *, key: str = "page") -> None:
    """Say that something needs a task, and how to give one.

    Args:
        what: The subject of the sentence, such as "Evidence".
        key: Distinguishes several of these on a page.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(f"{what} needs a task, which says how to evaluate a network. {HOW}",
                icon=":material/labs:")  # fmt: skip
        if len(settings.current().tasks_for(st.session_state["sweep"])) and st.button(
            "Choose a task", key=f"choose-task-{key}"
        ):
            _dialog()
