"""Writing a soup's weights in the form of the user's choice, and the links to take them home."""

from collections.abc import Sequence

import streamlit as st

from pages.components import jobs, services
from pages.components.scores import StoredSoup
from pages.components.state import View
from pages.components.text import plain
from soupcore.checkpoints.dtypes import OUTPUT_DTYPES
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.database import SoupFileRow
from soupcore.jobs.forms import Form
from soupcore.recipes import Soup

_ONE_FILE = "safetensors"
_SHARDS = "safetensors in shards"
_PATHS_SHOWN = 5


def show(view: View, picked: StoredSoup) -> Form:
    """Let the user choose a form, have it written, and take it home; return the form."""
    st.subheader("Weights")
    form = _choose_form(picked.soup)
    files = services.store().soup_files(picked.soup.id, form.key)
    if files:
        _links(picked.soup, form, files)
    else:
        _prepare(view, picked, form)
    return form


def _choose_form(soup: Soup) -> Form:
    first, why_no_pt = soup.form.name, soup.output.why_no_pt
    copy = f"{soup.output.pt_suffix} as {first}"
    chosen = st.segmented_control(
        "Format",
        [_ONE_FILE, _SHARDS, *([] if why_no_pt else [copy])],
        default=_ONE_FILE,
        required=True,
        key=f"format-{soup.id}",
    )
    if chosen == copy:
        _explain_copy(soup)
        return Form(as_ingredient=True)
    dtypes = {_dtypes_of(soup): None} | {name: name for name in OUTPUT_DTYPES}
    with st.container(horizontal=True):
        dtype = st.selectbox("Floats", list(dtypes), width=240, key=f"dtype-{soup.id}")
        shard_size = None
        if chosen == _SHARDS:
            megabytes = st.number_input(
                "Largest shard, MB", 0.01, 1e6, 5000.0, 500.0, format="%g", width=200,
                key=f"shard-{soup.id}",
            )  # fmt: skip
            shard_size = round(megabytes * 1e6)
    st.caption(
        f"Names, order and metadata are those of {plain(first)}. "
        + (f"There is no .pt of this soup. {plain(why_no_pt)}" if why_no_pt else "")
    )
    return Form(dtype=dtypes[dtype], shard_size=shard_size)


def _dtypes_of(soup: Soup) -> str:
    written = [info.dtype for info in soup.output.tensors().values()]
    floats = {str(dtype).removeprefix("torch.") for dtype in written if dtype.is_floating_point}
    return f"as in {soup.form.name} ({floats.pop() if len(floats) == 1 else 'several dtypes'})"


def _explain_copy(soup: Soup) -> None:
    source = soup.output.file
    if not isinstance(source, TorchCheckpoint):
        return
    titles = {found.name: found.title for found in source.weight_sets}
    replaced = titles.get(source.weights, "weights")
    others = [f"its {title}" for name, title in titles.items() if name != source.weights]
    rest = ", ".join([*others, "the optimizer's state, epoch and arguments"])
    st.caption(
        plain(
            f"A copy of {source.path.name} in which the {replaced} are the soup's. torch.load and "
            f"your own code open it as they open {source.path.name}. All else in it is still that "
            f"of {soup.form.name}: {rest}, where it has them."
        )
    )
    paths = source.contents.local_paths
    if paths:
        more = f"\n- … and {len(paths) - _PATHS_SHOWN} more" if len(paths) > _PATHS_SHOWN else ""
        st.warning(
            "The copy holds paths of the machine where it was trained. Whoever gets it can read "
            "them:\n\n"
            + "\n".join(f"- {plain(path)} ({plain(place)})" for place, path in paths[:_PATHS_SHOWN])
            + more,
            icon=":material/visibility:",
        )


def _prepare(view: View, picked: StoredSoup, form: Form) -> None:
    request = view.request | {"soup": picked.soup.id, "form": form.to_json()}
    running = jobs.unfinished("weights", **request)
    if st.button(
        f"Prepare the weights ({_size(form.nbytes(picked.soup))})",
        type="primary",
        icon=":material/blender:",
        disabled=running is not None,
        help="They are mixed from the ingredients' files piece by piece.",
    ):
        jobs.submit("weights", f"Write {picked.label}", request)
        st.rerun()


def _links(soup: Soup, form: Form, files: Sequence[SoupFileRow]) -> None:
    urls = [f"/download/{soup.id}/{form.key}/{file.name}" for file in files]
    if len(files) == 1:
        st.link_button(
            f"Download {files[0].name} ({_size(files[0].nbytes)})",
            urls[0],
            on_click="ignore",
            type="primary",
            icon=":material/download:",
        )
        st.markdown("SHA-256")
        st.code(files[0].sha256, language=None)
        return
    if form.shard_size:
        st.caption("Put all of them into one folder; from_pretrained takes the folder.")
    rows = [
        f"| [{file.name}]({url}) | {_size(file.nbytes)} | `{file.sha256}` |"
        for file, url in zip(files, urls, strict=True)
    ]
    with st.container(height=420 if len(files) > 10 else "content", border=False):
        st.markdown("\n".join(["| File | Size | SHA-256 |", "|---|--:|---|", *rows]))


def _size(nbytes: int) -> str:
    if nbytes < 1e6:
        return f"{nbytes / 1e3:.1f} kB"
    return f"{nbytes / 1e6:.1f} MB" if nbytes < 1e9 else f"{nbytes / 1e9:.2f} GB"
