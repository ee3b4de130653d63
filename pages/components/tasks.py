"""The task: a dialog to choose it, and a note on pages that need one."""

import streamlit as st

from pages.components import hugging_face_form, jobs, settings, state
from pages.components.display import plain
from pages.components.state import View
from soupcore import TaskError
from soupcore.calls import MetricIntervals
from soupcore.task_spec import TaskSpec

HOW = (
    "To add one, describe a Hugging Face network under **Choose a task**, or restart with "
    "`stockpot FOLDER --task TASK`, where TASK is `FILE.py:NAME` (Python), `hf:FILE.toml` (Hugging "
    "Face), `imagefolder:FILE.toml`, `ultralytics:data.yaml` or `command:FILE.toml` (your own "
    "evaluation script)."
)
_RESTART = (
    "Tasks from files must be passed at startup, since some of them run code: "
    "`--task FILE.py:NAME`, `--task command:FILE.toml` and others (see `stockpot --help`)."
)
_NONE = "No task"
_FORM = "Describe a Hugging Face network"


def label(spec: str) -> str:
    """Return a short display name of a task."""
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
        "and those described on this page are listed.",
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


def choose_metric(view: View) -> None:
    """Let the user choose the primary metric, if the task has several, and complete its results."""
    if not view.has_task or len(view.task.metrics) < 2:
        return
    known = {metric.name: metric for metric in view.task.metrics}
    key = f"metric-{view.task_spec}"
    st.selectbox(
        "Primary metric",
        list(known),
        index=list(known).index(view.task.metric.name),
        format_func=lambda name: (
            name if known[name].higher_is_better else f"{name} (lower is better)"
        ),
        key=key,
        on_change=_take_metric,
        args=(key, view.task.default_metric.name),
        help="Ranks ingredients and soups; recipes choose by it. Stored evaluations have the "
        "scores of all metrics, so nothing is evaluated again.",
    )
    call = MetricIntervals()
    if view.task.primary is None:
        return
    title = f"Intervals of {view.task.primary}"
    count = len(call.lacking(view.context))
    if count and view.folder in state.opened():
        jobs.derive(view, call, title)
        count = len(call.lacking(view.context))
    if count:
        jobs.call_button(
            view,
            "Compute the intervals",
            call,
            title,
            key="metric-intervals",
            primary=False,
            help=f"For {count:,} stored evaluations, by bootstrap over their examples. Needs no "
            "forward pass. Intervals of differences need them.",
        )


def _take_metric(key: str, default: str) -> None:
    chosen = st.session_state[key]
    st.session_state["metric"] = "" if chosen == default else chosen


@st.dialog("Choose a task", width="large")
def _dialog() -> None:
    source = st.segmented_control(
        "Source", ["Offered tasks", _FORM], default="Offered tasks", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if source == _FORM:
        created = hugging_face_form.show()
        if created is not None:
            state.choose_task(created)
            st.rerun()
        return
    chosen = choose(st.session_state["sweep"], st.session_state["task"])
    st.caption(_RESTART)
    if st.button("Use this task" if chosen else "Continue without a task", type="primary"):
        state.choose_task(chosen)
        st.rerun()


def show_needed(what: str, *, key: str = "page") -> None:
    """Say that something needs a task, and how to add one.

    Args:
        what: The subject of the sentence, such as "Evidence".
        key: Distinguishes several of these on a page.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(f"{what} needs a task, which says how to evaluate a network. {HOW}",
                icon=":material/labs:")  # fmt: skip
        if st.button("Choose a task", key=f"choose-task-{key}"):
            _dialog()
