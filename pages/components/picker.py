"""Choosing the sweep and the task."""

from pathlib import Path

import streamlit as st

from pages.components import settings, state, uploads
from pages.components.text import plain
from soupcore import StockpotError
from soupcore.checkpoints.opening import INDEX_SUFFIX, TORCH_SUFFIXES
from soupcore.sweeps.folder import find_checkpoints

_UPLOAD_TYPES = [".safetensors", INDEX_SUFFIX, *TORCH_SUFFIXES, ".json", ".jsonl", ".csv"]


def show() -> None:
    """Show what is looked at, with a way to change it."""
    st.subheader("Sweep", divider="gray")
    folder, task = st.session_state["sweep"], st.session_state["task"]
    st.markdown(f":material/folder: **{plain(state.sweep_label())}**", help=plain(folder))
    st.markdown(f":material/labs: {_task_label(task)}", help=task)
    if st.button("Change sweep or task", width="stretch", icon=":material/swap_horiz:"):
        st.session_state["browsing"] = str(Path(folder).resolve())
        _dialog()


@st.dialog("Choose a sweep and its task", width="large")
def _dialog() -> None:
    tasks = settings.current().tasks
    task = st.selectbox(
        "Task: how the checkpoints are judged",
        tasks,
        index=tasks.index(st.session_state["task"]),
        format_func=_task_label,
        help="Tasks are Python code, so only those named with --task at the start are offered.",
    )
    source = st.segmented_control(
        "Where the checkpoints are",
        ["Bundled sample", "Folder on the server", "Upload"],
        default="Folder on the server",
        required=True,
    )
    if source == "Bundled sample":
        st.write("A small real sweep: a network fine-tuned on cluttered handwritten digits.")
        if st.button("Open the sample", type="primary"):
            state.choose_sweep(settings.SAMPLE_SWEEP, settings.SAMPLE_TASK)
            st.rerun()
    elif source == "Folder on the server":
        _browse(task)
    else:
        _upload(task)


def _browse(task: str) -> None:
    allowed = settings.current()
    folder = Path(st.session_state["browsing"])
    if not allowed.allows(folder) or not folder.is_dir():
        folder = allowed.roots[0]
    root = st.selectbox(
        "Root",
        allowed.roots,
        index=next(i for i, root in enumerate(allowed.roots) if folder.is_relative_to(root)),
        format_func=str,
        help="Start the server with --root FOLDER to add one.",
    )
    if not folder.is_relative_to(root):
        folder = root
    st.markdown(f":material/folder_open: {plain(str(folder))}")
    with st.container(height=220):
        if folder != root and st.button(":material/arrow_upward: up", type="tertiary"):
            st.session_state["browsing"] = str(folder.parent)
            st.rerun(scope="fragment")
        inner = sorted(
            entry for entry in folder.iterdir()
            if entry.is_dir() and not entry.name.startswith(".") and allowed.allows(entry)
        )  # fmt: skip
        for entry in inner:
            if st.button(f":material/folder: {plain(entry.name)}", key=str(entry), type="tertiary"):
                st.session_state["browsing"] = str(entry)
                st.rerun(scope="fragment")
        if not inner:
            st.caption("No folders in here.")
    _open_button(folder, task)


def _open_button(folder: Path, task: str) -> None:
    try:
        found = find_checkpoints(folder)
    except StockpotError as error:
        st.error(plain(str(error)))
        return
    label = f"Open this folder ({len(found)} checkpoint{'s' if len(found) != 1 else ''})"
    if st.button(label, type="primary", disabled=not found):
        state.choose_sweep(str(folder), task)
        st.rerun()


def _upload(task: str) -> None:
    st.caption(
        f"Up to {st.get_option('server.maxUploadSize')} MB a file. Uploads pass through the "
        "server's memory; put larger sweeps in a folder on the server instead."
    )
    whole_folder = st.toggle("A whole folder")
    uploaded = st.file_uploader(
        "Checkpoints, with sweep.jsonl or sweep.csv if there is one",
        type=_UPLOAD_TYPES,
        accept_multiple_files="directory" if whole_folder else True,
        key=f"upload-{whole_folder}",
    )
    name = st.text_input("Name of the sweep", "uploaded")
    if st.button("Open the uploaded files", type="primary", disabled=not uploaded):
        try:
            folder = uploads.copy(
                [(file.name, file) for file in uploaded], settings.current().uploads, name
            )
        except StockpotError as error:
            st.error(plain(str(error)))
            return
        state.choose_sweep(str(folder), task)
        st.rerun()


def _task_label(spec: str) -> str:
    file, _, attribute = spec.rpartition(":")
    return f"{Path(file).parent.name}/{Path(file).name}: {attribute}"
