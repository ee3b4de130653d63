"""The report of the sweep as one HTML file, with a preview: the verdict and the contents."""

from functools import partial

import streamlit as st

from pages.components import scores, snippets, soup_links, state, tasks
from pages.components.display import plain
from pages.components.state import View
from soupcore.calls import Code
from soupcore.report import archive, contents, report
from soupcore.stored_soups import StoredSoup


def main(view: View) -> None:
    st.header("Report")
    picked = _choose_soup(view)
    soup = picked.soup.id if picked is not None else None
    st.caption(
        "One HTML file with the stored results, to send, print or archive. It opens offline and "
        "includes the figures and the Python code. The folder has the same report, its tables as "
        "CSV and LaTeX, the Python and the recipe and model card of the soup. Creating them "
        "computes nothing."
    )
    # Created on a click, since they read all results, and include 5 MB of plotly.js.
    with st.container(horizontal=True):
        st.download_button(
            "Download report (HTML)",
            partial(report, view, soup, title=state.sweep_label()),
            file_name="stockpot-report.html",
            mime="text/html",
            type="primary",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Download folder (ZIP)",
            partial(archive, view, soup, title=state.sweep_label()),
            file_name="stockpot-report.zip",
            mime="application/zip",
            icon=":material/folder_zip:",
            on_click="ignore",
        )
        if picked is not None:
            soup_links.show_name(picked, key="report")
            soup_links.show_section(picked.soup.id, "download", key="report")
    if view.has_task:
        _verdict(view)
    else:
        tasks.show_needed("The verdict")
    st.subheader("Contents")
    st.markdown("\n".join(f"1. {plain(title)}" for title in contents(view, soup)))
    snippets.show(_code(view, soup))


def _choose_soup(view: View) -> StoredSoup | None:
    stored = view.overview.soups if view.has_task else []
    if not stored:
        return None
    return scores.choose_soup(view, stored, "Soup in the Evidence section")


def _verdict(view: View) -> None:
    first, *others = view.overview.verdict.sentences
    with st.container(border=True):
        st.markdown(f"##### {plain(first)}")
        if others:
            st.markdown(" ".join(map(plain, others)))


def _code(view: View, soup: str | None) -> str:
    source = "evaluator" if view.has_task else "Store()"
    context = f"context = Context(sweep, {source}, {view.folder!r}, {view.task_spec!r})\n"
    written = f'Path("report.html").write_text(report(context, {soup!r}), encoding="utf-8")\n'
    imports = (
        "from pathlib import Path",
        "from soupcore.calls import Context",
        "from soupcore.report import report",
        *(() if view.has_task else ("from soupcore import Store",)),
    )
    return view.script(Code(context + written, imports))


if __name__ == "__main__":
    main(st.session_state["view"])
