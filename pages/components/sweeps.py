"""Opening a sweep: choose a folder, URLs or an upload; read the checkpoints; watch the folder.

For a remote sweep also the files to which its URLs were resolved, and the cache of these files.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pandas as pd
import streamlit as st

from pages.components import access, jobs, settings, state, streamlit_internals, tasks, uploads
from pages.components.display import plain
from pages.components.state import View
from soupcore import StockpotError
from soupcore.calls import OpenSweep
from soupcore.checkpoints.recognition import INDEX_SUFFIX, TORCH_SUFFIXES
from soupcore.display import counted, in_words
from soupcore.errors import RemoteError
from soupcore.jobs import State
from soupcore.remote import Cache, check_url
from soupcore.remote.urls import HUB_AND_S3, scheme_of
from soupcore.sweeps.folder import Listing, changes, list_checkpoints
from soupcore.sweeps.members import Members
from soupcore.sweeps.remote import RemoteSweep
from soupcore.sweeps.remote_table import remote_of

_UPLOAD_TYPES = [
    ".safetensors", INDEX_SUFFIX, *TORCH_SUFFIXES, ".json", ".jsonl", ".csv", ".yaml", ".txt",
]  # fmt: skip
_MOST_UNSETTLED = 3  # files being written that are listed by name
_WATCH = 2.0  # seconds between two listings of the folder


def show_choice() -> None:
    """Show the session's sweep and task in the sidebar, with buttons to change them."""
    st.subheader("Sweep", divider="gray")
    folder = st.session_state["sweep"]
    st.markdown(f":material/folder: **{plain(state.sweep_label())}**", help=plain(folder))
    if st.button("Open another sweep", width="stretch", icon=":material/swap_horiz:"):
        st.session_state["browsing"] = str(Path(folder).resolve())
        _dialog()
    tasks.show_choice()


@st.fragment
def show_folders() -> None:
    """Let the user choose a sweep below a folder that contains several."""
    st.header("Choose a sweep")
    st.caption("This folder is not a sweep itself. Open one of its folders.")
    st.session_state.setdefault("browsing", st.session_state["sweep"])
    _browse()


def folder_of(lines: Sequence[str]) -> str:
    """Return the folder of the sweep of some URLs, one in a line; it downloads nothing.

    Raises:
        StockpotError: A line is not a URL that pages may open.
    """
    urls = [line.strip() for line in lines if line.strip()]
    for line in urls:
        _, url = check_url(line)
        if scheme_of(url) not in HUB_AND_S3:
            raise RemoteError(
                f"{scheme_of(url)}:// cannot be opened on a page; use hf:// or s3://. The command "
                "line and the library open other URLs too."
            )
    return str(RemoteSweep.of(urls).folder)


def show_remote_files(view: View) -> None:
    """Show the files to which the URLs of a remote sweep were resolved, and let the user check."""
    remote = remote_of(view.folder)
    if remote is None:
        return
    files = pinned_files(remote)
    with st.expander(
        f"Remote files: {counted(len(files), 'checkpoint file')}", icon=":material/cloud:"
    ):
        st.dataframe(files, hide_index=True)
        request = replace(view.opening, refresh=True).request
        is_checking = jobs.unfinished(OpenSweep.kind, **request) is not None
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button(
                "Check the URLs for changes",
                icon=":material/sync:",
                disabled=state.store().is_read_only or is_checking,
            ):
                jobs.submit(OpenSweep.kind, f"Check the URLs of {state.sweep_label()}", request)
                st.rerun()
            st.caption(
                "The sweep keeps these files even if the URLs name others now. In that case, the "
                "check replaces them. Stored results stay."
            )


def pinned_files(remote: RemoteSweep) -> pd.DataFrame:
    """Return the files of weights of a sweep, each with the version to which it is pinned."""
    used = {path for plan in remote.plans.values() for path in plan.weights}
    rows = [
        {
            "file": path,
            "size": in_words(file.size),
            "URL": file.url,
            "pinned to": file.identity,
        }
        for path, file in remote.files.items()
        if path in used
    ]
    return pd.DataFrame(rows)


def show_cache() -> None:
    """Show the size and the budget of the cache of remote files, and let the user clear it."""
    cache = Cache()
    entries = cache.entries()
    total = sum(entry.nbytes for entry in entries)
    count = counted(len(entries), "file")
    title = f"Cache: {in_words(total)} of {in_words(cache.budget)} · {count}"
    with st.expander(title, icon=":material/hard_drive:"):
        st.caption(
            "Remote files are downloaded once. If they exceed the budget (`$STOCKPOT_CACHE_GB`), "
            "those that were not used for longest are removed. They are downloaded again when "
            "needed."
        )
        if not entries:
            return
        rows = [
            {
                "URL": entry.url or entry.key,
                "size": in_words(entry.nbytes) + ("" if entry.is_complete else " (unfinished)"),
                "last used": pd.Timestamp(entry.used, unit="s", tz="UTC"),
            }
            for entry in entries
        ]
        times = st.column_config.DatetimeColumn(format="distance")
        st.dataframe(
            pd.DataFrame(rows), hide_index=True, height=180, column_config={"last used": times}
        )
        kept = _keys_of(st.session_state["sweep"])
        others = {entry.key: entry.nbytes for entry in entries if entry.key not in kept}
        if st.button(
            f"Clear the cache ({in_words(sum(others.values()))})",
            icon=":material/delete:",
            disabled=not others or state.store().is_read_only,
            help="The files of the open sweep stay.",
        ):
            access.note("cleared", "the cache of remote files")
            cache.clear(others)
            st.rerun(scope="fragment")


def open_sweep(opening: OpenSweep, label: str) -> None:
    """Add a job that reads the checkpoints of the sweep once, and show its state.

    A sweep that was only opened by a link is read after a click.

    Args:
        opening: How to open the sweep.
        label: Name of the sweep.
    """
    folder = opening.folder
    if _is_above_sweeps(folder):
        show_folders()
        return
    st.header(plain(label))
    if state.store().is_read_only:
        st.info("This sweep has never been opened, so nothing is stored about its checkpoints.")
        return
    reading = "Reading each checkpoint once to hash it and check for NaN and Inf."
    remote = remote_of(folder)
    if remote is not None:
        reading = (
            "Comparing the headers of the checkpoints, then downloading those that fit. The jobs "
            "panel shows the progress. " + reading
        )
        st.code("\n".join(remote.urls), language=None)
    _read_checkpoints(
        opening,
        label,
        f"This link opens {plain(folder)}. Its checkpoints have not been read yet.",
        f"{reading} Next time, this sweep opens instantly.",
    )


def read_changes(view: View, label: str) -> None:
    """Add a job that reads new and changed checkpoints; the page shows the sweep without them."""
    if state.store().is_read_only:
        return
    _read_checkpoints(
        view.opening,
        label,
        "This folder has new or changed checkpoints, which have not been read yet.",
        "Reading new or changed checkpoints. Until then, the page shows the sweep as it was.",
    )


@st.fragment(run_every=1.0)
def wait_for_task(spec: str) -> None:
    """Show that a task is being described, and run the page again once it is."""
    try:
        is_known = state.descriptions().get(spec, wait_s=0) is not None
    except StockpotError:  # the page shows it
        is_known = True
    if is_known or streamlit_internals.is_late():
        streamlit_internals.rerun_after_this()
    st.info(
        f"Reading the task {plain(spec)}: its file runs in a separate process, which hashes its "
        "data. This may take up to 10 minutes.",
        icon=":material/hourglass_top:",
    )


def watch_folder(folder: str, before: Listing) -> None:
    """Run the page again once new or changed checkpoints are complete; show incomplete ones.

    Args:
        folder: The folder of the sweep.
        before: Its checkpoints when the page began to open it.
    """
    last = [before]

    def look() -> None:
        now = list_checkpoints(folder)
        found = changes(before, last[0], now)
        last[0] = now
        if streamlit_internals.is_late() or (found.settled and not found.unsettled):
            streamlit_internals.rerun_after_this()
            return
        for name, nbytes in islice(found.unsettled.items(), _MOST_UNSETTLED):
            size = in_words(nbytes)
            st.caption(f":material/hourglass_top: Waiting for {plain(name)}: {size} so far.")

    st.fragment(look, run_every=_WATCH)()


def is_root(folder: str) -> bool:
    """Whether a folder is one of those that contain sweeps."""
    return Path(folder) in settings.current().roots


@streamlit_internals.dialog("Open a sweep", width="large")
def _dialog() -> None:
    source = st.segmented_control(
        "Source",
        ["Bundled sample", "Folder on the server", "Hub or S3", "Upload"],
        default="Folder on the server",
        required=True,
    )
    if source == "Bundled sample":
        st.write(
            "A small real sweep: 14 fine-tunes on cluttered handwritten digits and one network "
            "trained from scratch."
        )
        if st.button("Open the sample", type="primary"):
            state.choose_sweep(settings.SAMPLE_SWEEP, settings.SAMPLE_TASK)
            st.rerun()
    elif source == "Folder on the server":
        _browse()
    elif source == "Hub or S3":
        _urls()
    else:
        _upload()


def _browse() -> None:
    allowed = settings.current()
    folder = Path(st.session_state["browsing"])
    if not allowed.allows(folder) or not folder.is_dir():
        folder = allowed.roots[0]
    root = st.selectbox(
        "Root",
        allowed.roots,
        index=next(i for i, root in enumerate(allowed.roots) if folder.is_relative_to(root)),
        format_func=str,
        help="Add folders with --root FOLDER at startup.",
    )
    if not folder.is_relative_to(root):
        folder = root
    st.markdown(f":material/folder_open: {plain(str(folder))}")
    with st.container(height=220):
        if folder != root and st.button(":material/arrow_upward: Parent folder", type="tertiary"):
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
            st.caption("No subfolders.")
    _open_button(folder)


def _open_button(folder: Path) -> None:
    try:
        found = Members.find(folder, settings.current().roots)
    except StockpotError as error:
        st.error(plain(str(error)))
        return
    task = _choose_task(str(folder))
    remotes = len(found.named.urls)
    count = len(found.local) + remotes
    label = counted(count, "checkpoint")
    if remotes:
        label += f", {remotes} remote"
    if st.button(f"Open ({label})", type="primary", disabled=not count):
        state.choose_sweep(str(folder), task)
        st.rerun()


def _choose_task(folder: str) -> str:
    known, current = settings.current(), st.session_state["task"]
    keeps = current in known.tasks_for(folder) and not settings.is_sample(folder)
    return tasks.choose(folder, current if keeps else known.task_of(folder))


def _urls() -> None:
    text = st.text_area(
        "URLs, one per line",
        placeholder="hf://org/repo@revision\nhf://org/run@step-*\n"
        "s3://bucket/runs/*/best.pt\nbase=hf://org/base-model",
        height=130,
        help="A URL names a repository, a folder or a file. Wildcards name several, and NAME=URL "
        "names an ingredient. Private ones are read with the credentials of the user who started "
        "the server.",
    )
    st.caption(
        "A job first reads the headers, which show which checkpoints fit, and then downloads these."
    )
    task = _choose_task(str(settings.current().uploads))
    disabled = not text.strip() or state.store().is_read_only
    if st.button("Open URLs", type="primary", disabled=disabled):
        try:
            folder = folder_of(text.splitlines())
        except StockpotError as error:
            st.error(plain(str(error)))
            return
        state.choose_sweep(folder, task)
        st.rerun()
    show_cache()


def _keys_of(folder: str) -> set[str]:
    """Return the names in the cache of the files of a sweep; none if it is not remote."""
    remote = remote_of(folder)
    return {file.key for file in remote.files.values()} if remote is not None else set()


def _upload() -> None:
    room = state.incoming().room(streamlit_internals.current_session())
    st.caption(
        f"Uploads may take {room / 1e6:,.0f} MB more. For larger sweeps, use a folder on the "
        "server."
    )
    whole_folder = st.toggle("Upload a folder")
    uploaded = st.file_uploader(
        "Checkpoints (and sweep.jsonl or sweep.csv, optional)",
        type=_UPLOAD_TYPES,
        accept_multiple_files="directory" if whole_folder else True,
        key=f"upload-{whole_folder}",
    )
    name = st.text_input("Sweep name", "uploaded")
    task = _choose_task(str(settings.current().uploads))
    disabled = not uploaded or state.store().is_read_only
    if st.button("Open upload", type="primary", disabled=disabled):
        try:
            received = state.incoming().take([file.file_id for file in uploaded])
            sent = [(file.name, file.path) for file in received]
            folder = uploads.keep(sent, settings.current().uploads, name)
        except StockpotError as error:
            st.error(plain(str(error)))
            return
        state.choose_sweep(str(folder), task)
        st.rerun()


def _read_checkpoints(opening: OpenSweep, label: str, unread: str, reading: str) -> None:
    """Show the state of the job that reads the checkpoints of a folder, and add it.

    Args:
        opening: See `open_sweep`.
        label: Name of the sweep.
        unread: Sentences if the checkpoints are only read after a click.
        reading: Sentences while they are read.
    """
    request = opening.request
    recent = state.supervisor().queue.recent()
    last = next(
        (job for job in recent if job.kind == OpenSweep.kind and job.request == request), None
    )
    if last is not None and last.state in (State.FAILED, State.CANCELLED):
        st.error(plain(last.error or "Reading cancelled."), icon=":material/error:")
        if st.button("Retry"):
            _open(opening, label)
        return
    is_reading = last is not None and last.is_unfinished
    if not is_reading and opening.folder not in state.opened():
        st.info(unread, icon=":material/link:")
        if st.button("Read the checkpoints", type="primary", icon=":material/play_arrow:"):
            _open(opening, label)
        return
    st.info(reading, icon=":material/hourglass_top:")
    if not is_reading:
        jobs.submit(OpenSweep.kind, f"Open {label}", request)


def _open(opening: OpenSweep, label: str) -> None:
    state.opened().add(opening.folder)
    access.note("opened", opening.folder)
    jobs.submit(OpenSweep.kind, f"Open {label}", opening.request)
    st.rerun()


def _is_above_sweeps(folder: str) -> bool:
    """Whether a folder is a root without checkpoints of its own, and not of one sweep below it."""
    if not is_root(folder):
        return False
    try:
        found = Members.find(Path(folder), settings.current().roots)
    except StockpotError:  # opening it gives the reason
        return False
    if found.named.urls:
        return False
    runs = found.local
    return not runs or len({name.partition("/")[0] for name in runs if "/" in name}) > 1
