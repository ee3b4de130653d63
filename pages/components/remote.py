"""Remote sweeps: the URLs to open, the files that they were resolved to, and the cache of files."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from pages.components import access, jobs, state
from pages.components.state import View
from soupcore.calls import OpenSweep
from soupcore.display import in_words
from soupcore.errors import RemoteError
from soupcore.remote import Cache, check_url
from soupcore.remote.urls import HUB_AND_S3, scheme_of
from soupcore.sweeps.remote import RemoteSweep
from soupcore.sweeps.remote_table import remote_of


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


def urls_of(folder: str) -> tuple[str, ...]:
    """Return the URLs of a sweep; empty if it is not remote."""
    remote = remote_of(folder)
    return remote.urls if remote is not None else ()


def show_files(view: View) -> None:
    """Show what the URLs of a remote sweep were resolved to, with a button to resolve them anew."""
    remote = remote_of(view.folder)
    if remote is None:
        return
    files = pinned_files(remote)
    with st.expander(f"Remote files: {len(files)} checkpoint files", icon=":material/cloud:"):
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
    """Return the files of weights of a sweep, with what they are pinned to."""
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
    count = f"{len(entries)} file{'s' if len(entries) != 1 else ''}"
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


def _keys_of(folder: str) -> set[str]:
    """Return the names in the cache of the files of a sweep; none if it is not remote."""
    remote = remote_of(folder)
    return {file.key for file in remote.files.values()} if remote is not None else set()
