"""Opening a sweep: choose it, read its checkpoints, show its fit report, choose its weights."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

import pandas as pd
import streamlit as st
from natsort import natsorted

from pages.components import (
    access,
    jobs,
    remote,
    settings,
    state,
    streamlit_internals,
    tasks,
    uploads,
)
from pages.components.display import plain
from pages.components.state import View
from soupcore import Finding, FitReport, StockpotError
from soupcore.calls import OpenSweep
from soupcore.checkpoints.recognition import INDEX_SUFFIX, TORCH_SUFFIXES
from soupcore.display import in_words
from soupcore.evaluation import StatisticsChoice
from soupcore.jobs import State
from soupcore.sweeps.findings import Severity, SnapshotChoice
from soupcore.sweeps.folder import Listing, changes, list_checkpoints
from soupcore.sweeps.members import Members
from soupcore.sweeps.snapshots import EVERY, OTHERS, snapshots_from_text, snapshots_to_text

_UPLOAD_TYPES = [
    ".safetensors", INDEX_SUFFIX, *TORCH_SUFFIXES, ".json", ".jsonl", ".csv", ".yaml", ".txt",
]  # fmt: skip
_RULES = {
    "": "each tool's choice",
    "best": "best",
    "last": "last",
    "final": "final",
    EVERY: "every one, as an ingredient each",
}
_MOST_ROWS = 8  # a longer table scrolls
_MOST_UNSETTLED = 3  # files being written that are listed by name
_WATCH = 2.0  # seconds between two listings of the folder
_MOST_OTHERS = 20  # other files of the folder that are listed by name
_HEIGHT = 600  # pixels
_BADGES: dict[Severity, str] = {
    "misfit": ":red-badge[excluded]",
    "warning": ":orange-badge[warning]",
    "note": ":gray-badge[note]",
}


def show_choice() -> None:
    """Show the session's sweep and task in the sidebar, with buttons to change them."""
    st.subheader("Sweep", divider="gray")
    folder = st.session_state["sweep"]
    st.markdown(f":material/folder: **{plain(state.sweep_label())}**", help=plain(folder))
    if st.button("Open another sweep", width="stretch", icon=":material/swap_horiz:"):
        st.session_state["browsing"] = str(Path(folder).resolve())
        _dialog()
    tasks.show_choice()


@st.dialog("Open a sweep", width="large")
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


@st.fragment
def show_folders() -> None:
    """Let the user choose a sweep below a folder that contains several."""
    st.header("Choose a sweep")
    st.caption("This folder is not a sweep itself. Open one of its folders.")
    st.session_state.setdefault("browsing", st.session_state["sweep"])
    _browse()


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
    label = f"{count} checkpoint{'s' if count != 1 else ''}"
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
            folder = remote.folder_of(text.splitlines())
        except StockpotError as error:
            st.error(plain(str(error)))
            return
        state.choose_sweep(folder, task)
        st.rerun()
    remote.show_cache()


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
    if urls := remote.urls_of(folder):
        reading = (
            "Comparing the headers of the checkpoints, then downloading those that fit. The jobs "
            "panel shows the progress. " + reading
        )
        st.code("\n".join(urls), language=None)
    _read_checkpoints(
        opening,
        label,
        f"This link opens {plain(folder)}. Its checkpoints have not been read yet.",
        f"{reading} Next time, this sweep opens instantly.",
    )


def read_changes(view: View, label: str) -> None:
    """Add a job that reads new and changed checkpoints, while the page shows the sweep before."""
    if state.store().is_read_only:
        return
    _read_checkpoints(
        view.opening,
        label,
        "This folder has new or changed checkpoints, which have not been read yet.",
        "Reading new or changed checkpoints. Until then, the page shows the sweep as it was.",
    )


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


def watch_folder(folder: str, before: Listing) -> None:
    """Run the page again once new or changed checkpoints are complete, and show those in work.

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


def _is_above_sweeps(folder: str) -> bool:
    """Whether a root has no checkpoints of its own, and not those of one sweep below it."""
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


def _open(opening: OpenSweep, label: str) -> None:
    state.opened().add(opening.folder)
    access.note("opened", opening.folder)
    jobs.submit(OpenSweep.kind, f"Open {label}", opening.request)
    st.rerun()


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


def show_fit(fit: FitReport) -> None:
    """Show the fit report, if it has any content."""
    if not fit.findings and not fit.ignored and not fit.others:
        return
    with st.expander(_fit_title(fit), icon=":material/rule:", expanded=bool(fit.misfits)):
        if fit.findings:
            _fit_table(fit)
        st.caption(" ".join([*_compared_with(fit), *_ignored(fit), *_others(fit)]))


def _fit_title(fit: FitReport) -> str:
    looks = {f.ingredient for f in fit.findings if f.severity == "warning"} - fit.misfits
    if not fit.misfits and not looks:
        return "Fit report: all checkpoints compatible"
    warnings = f"{len(looks)} warning{'s' if len(looks) != 1 else ''}"
    return f"Fit report: {len(fit.misfits)} excluded, {warnings}"


def _fit_table(fit: FitReport) -> None:
    rows = sorted(fit.grouped, key=lambda row: [*_BADGES].index(row[1].severity))
    # `st.table` wraps its cells; `st.dataframe` would cut off the instructions.
    st.table(
        pd.DataFrame(
            {
                "": _BADGES[finding.severity],
                "checkpoint": ", ".join(f"**{plain(name)}**" for name in names),
                "problem": plain(_sentence(finding)),
                "how to fix": plain(finding.way_out),
            }
            for names, finding in rows
        ),
        border="horizontal",
        hide_index=True,
        height=_HEIGHT if len(rows) > _MOST_ROWS else "content",
    )


def _sentence(finding: Finding) -> str:
    if finding.tensor and finding.tensor not in finding.problem:
        return f"{finding.tensor}: {finding.problem}"
    first, _, _ = finding.problem.partition(" ")
    if "." in first or "_" in first:  # the name of a file or a tensor keeps its case
        return finding.problem
    return finding.problem[:1].upper() + finding.problem[1:]


def _compared_with(fit: FitReport) -> list[str]:
    return [f"All tensors compared with {plain(fit.reference)}."] if fit.reference else []


def _ignored(fit: FitReport) -> list[str]:
    names = Counter(PurePosixPath(path).name for path in fit.ignored)
    shown = [plain(name) + (f" ({n} times)" if n > 1 else "") for name, n in names.items()]
    if not shown:
        return []
    return [f"Ignored trainer files: {', '.join(shown)}."]


def _others(fit: FitReport) -> list[str]:
    if not fit.others:
        return []
    shown = ", ".join(plain(name) for name in fit.others[:_MOST_OTHERS])
    rest = len(fit.others) - _MOST_OTHERS
    more = f" and {rest:,} more" if rest > 0 else ""
    return [f"Not checkpoints, by name and first bytes: {shown}{more}."]


def choose_weights(view: View) -> None:
    """Let the user choose the weight set, if checkpoints hold several, such as EMA weights."""
    titles = [found.title for found in view.sweep.weight_sets]
    if len(titles) < 2:
        return
    taken = _weights_in_use(view)
    default = next(iter(set(taken))) if len(set(taken)) == 1 else None
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = st.segmented_control(
            "Weights",
            titles,
            default=default,
            format_func=plain,
            key=f"weights-{view.folder}-{view.weights}",
            label_visibility="collapsed",
        )
        why = "your choice" if view.weights else "the writing framework's default"
        st.caption(
            f"{len(taken)} of {len(view.sweep)} checkpoints contain {plain(' and '.join(titles))}. "
            f"Using {plain(', '.join(dict.fromkeys(taken)))} ({why})."
        )
    if chosen and chosen != default:
        state.choose_weights(chosen)
        st.rerun()


def _weights_in_use(view: View) -> list[str]:
    """Return the title of the weight set in use, for each checkpoint that holds several."""
    return [
        next(found.title for found in checkpoint.weight_sets if found.name == checkpoint.weights)
        for checkpoint in (i.checkpoint for i in view.sweep.ingredients.values())
        if checkpoint.weight_sets
    ]


def choose_snapshots(fit: FitReport) -> None:
    """Show which snapshots of runs are used, with a way to choose others; nothing without any."""
    if not fit.snapshots:
        return
    text = st.session_state["snapshot"]
    wanted = snapshots_from_text(text)
    each = dict(wanted) if not isinstance(wanted, str) else {OTHERS: wanted} if wanted else {}
    names = {name for run in fit.snapshots for name in run.names}
    options = [*_RULES, *(name for name in natsorted(names) if name not in _RULES)]
    current = each.get(OTHERS, "")
    options += [current] if current not in options else []
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen: str | None = st.selectbox(
            "Snapshot of each run",
            options,
            index=options.index(current),
            format_func=_option,
            key=f"snapshot-{st.session_state['sweep']}-{text}",
            width=280,
        )
        with st.popover("One run", help="Choose another snapshot of one run."):
            of_one = _of_one_run(fit.snapshots, each)
        st.caption(_used(fit.snapshots))
    if of_one is not None:
        each = of_one
    elif chosen is not None and chosen != current:
        each = each | {OTHERS: chosen}
    else:
        return
    each = {run: name for run, name in each.items() if name}
    only = each.get(OTHERS, "") if each.keys() <= {OTHERS} else None
    state.choose_snapshot(snapshots_to_text(each if only is None else only))
    st.rerun()


def _option(name: str) -> str:
    return _RULES.get(name, name)


def _of_one_run(runs: Sequence[SnapshotChoice], each: dict[str, str]) -> dict[str, str] | None:
    """Return the choices with another one for a run; None before a click."""
    by_name = {run.run: run for run in runs}
    run: str = st.selectbox("Run", [*by_name])
    options = ["", *by_name[run].names, EVERY]
    current = each.get(run, "")
    snapshot = st.selectbox(
        "Snapshot",
        options,
        index=options.index(current) if current in options else 0,
        format_func=lambda name: _option(name) if name else "like the others",
        key=f"snapshot-of-{run}",
    )
    return each | {run: snapshot} if st.button("Use it", type="primary") else None


def _used(runs: Sequence[SnapshotChoice]) -> str:
    counts = Counter(", ".join(run.taken) or "none, as it is unclear which" for run in runs)
    used = "; ".join(f"{plain(names)} ({count})" for names, count in counts.most_common(3))
    more = "; …" if len(counts) > 3 else ""
    tools = ", ".join(dict.fromkeys(run.tool for run in runs if run.tool))
    of_tools = f" of {plain(tools)}" if tools else ""
    plural = "run has" if len(runs) == 1 else "runs have"
    return f"{len(runs)} {plural} several snapshots{of_tools}. Used: {used}{more}."


def choose_statistics(view: View) -> None:
    """Let the user choose the BatchNorm statistics, if the network has any."""
    if not view.offers_statistics:
        return
    st.segmented_control(
        "BatchNorm statistics",
        [*state.STATISTICS],
        default=view.statistics,
        required=True,
        key=f"batchnorm-{view.task_spec}",
        on_change=_take_statistics,
        args=(f"batchnorm-{view.task_spec}",),
        help="Averaged: running means and variances are averaged like weights. Re-estimated: "
        "recomputed for each mixture on the train split (arXiv:1802.10026). Re-estimation usually "
        "helps far from the ingredients and can hurt near them. Results are stored separately.",
    )


def use_statistics(view: View, statistics: StatisticsChoice) -> None:
    """Switch the session to other BatchNorm statistics; call it before the page is drawn."""
    widget = f"batchnorm-{view.task_spec}"
    st.session_state[widget] = statistics
    _take_statistics(widget)


def _take_statistics(key: str) -> None:
    st.session_state["batchnorm"] = st.session_state[key]
    st.session_state["soup"] = ""
