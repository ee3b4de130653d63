"""Downloads of a soup: weights, recipe and other artifacts, and Python code to rebuild it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import streamlit as st

from pages.components import jobs, scores, state
from pages.components.display import plain
from pages.components.state import View
from soupcore import mergekit_config, model_card
from soupcore.calls import PushedSoup, SoupFiles
from soupcore.checkpoints.dtypes import OUTPUT_DTYPES
from soupcore.errors import RecipeError, StockpotError
from soupcore.figures.tables import shift_table
from soupcore.provenance import (
    base_models_of,
    check_repo,
    files_for_hub,
    relative_error,
    scores_svg,
    summed_rank,
)
from soupcore.recipes import Soup
from soupcore.store.tables import SoupFileRow
from soupcore.stored_soups import StoredSoup
from soupcore.writers.forms import Form
from soupcore.writers.hub_files import HubFiles

_ONE_FILE = "safetensors"
_SHARDS = "sharded safetensors"
_FOLDER = "Hugging Face folder"
_ADAPTER = "PEFT adapter"
_COPY = "copy"  # of the file of an ingredient
# The formats that may be offered first, with their default settings.
_FORMS = {
    _ADAPTER: Form(as_adapter=True),
    _FOLDER: Form(as_folder=True),
    _COPY: Form(as_ingredient=True),
    _ONE_FILE: Form(),
}
_MOST_PATHS = 5  # paths of the training machine that are listed
_MOST_PLACES = 12  # places of a kind of change in a .pt that are listed


def show(view: View, picked: StoredSoup) -> None:
    """Let the user write the weights of a soup, download or push them, and download its recipe."""
    form = _weights(view, picked)
    _push(view, picked)
    _recipe(view, picked, form)


def write_weights(view: View, picked: StoredSoup) -> None:
    """Start the job that writes the weights in the format that is offered first."""
    form = _FORMS[_formats(picked.soup)[0]]
    call = SoupFiles(picked.soup.id, form.to_json())
    is_written = bool(state.store().soup_files(picked.soup.id, form.key))
    if not is_written and not jobs.cannot_start(view, call):
        jobs.start(view, call, f"Write weights of {picked.label}")


def _recipe(view: View, picked: StoredSoup, form: Form) -> None:
    st.subheader("Recipe")
    _artifacts(view, picked.soup)
    body = json.dumps(picked.soup.to_json(), indent=2, ensure_ascii=False)
    left, right = st.columns(2)
    with left, st.expander("Recipe (JSON)", icon=":material/data_object:"):
        st.code(body, language="json")
    with right, st.expander("Reproduce in Python", icon=":material/code:", expanded=True):
        st.code(SoupFiles(picked.soup.id, form.to_json()).script(view), language="python")


def _weights(view: View, picked: StoredSoup) -> Form:
    """Let the user choose a format, write the weights and download them; return the format."""
    st.subheader("Weights")
    form = _choose_form(picked.soup)
    files = state.store().soup_files(picked.soup.id, form.key)
    if files:
        _links(picked.soup, form, files)
        if form.rank is not None:
            folder = state.store().soup_folder(picked.soup.id, form.key)
            error = relative_error(folder / form.file_name(picked.soup))
            st.caption(
                f"Relative error of the adapter's weight update: {100 * error:.3g} % "
                "(Frobenius norm over all changed weights)."
            )
    else:
        _prepare(view, picked, form)
    return form


def _push(view: View, picked: StoredSoup) -> None:
    """Let the user upload the soup to the Hub."""
    with st.expander("Push to the Hugging Face Hub", icon=":material/cloud_upload:"):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            repo = st.text_input("Repository", placeholder="org/name", width=320).strip()
            public = st.checkbox("Public, if it is new")
        call = PushedSoup(picked.soup.id, repo, public)
        if st.button(
            f"Push weights and model card ({_size(Form().nbytes(picked.soup))})",
            icon=":material/cloud_upload:",
            disabled=not repo or jobs.cannot_start(view, call),
        ):
            try:
                check_repo(repo)
            except StockpotError as error:
                st.error(plain(str(error)))
                return
            jobs.start(view, call, f"Push {picked.label} to {repo}")
            st.rerun()
        if (done := jobs.last(view, call)) is not None and done.result is not None:
            st.caption(f"Pushed: {plain(done.result['url'])}")
        st.caption(
            "Uses the token of the user who started the server ($HF_TOKEN or `hf auth login`). A "
            "new repository is private unless you make it public. Needs the package "
            "huggingface_hub."
        )


def _choose_form(soup: Soup) -> Form:
    first, why_no_pt = soup.form.name, soup.output.why_no_pt
    copy = f"{soup.output.pt_suffix} (copy of {first} with new weights)"
    beside = files_for_hub(soup)
    rank = _rank_of_adapter(soup)
    options = _formats(soup)
    chosen = st.segmented_control(
        "Format", options, default=options[0], required=True, key=f"format-{soup.id}",
        format_func=lambda name: copy if name == _COPY else name,
    )  # fmt: skip
    if chosen == _COPY:
        _explain_copy(soup)
        return Form(as_ingredient=True)
    if chosen == _ADAPTER and rank is not None:
        return _adapter_form(soup, rank)
    dtypes = {_dtypes_of(soup): None} | {name: name for name in OUTPUT_DTYPES}
    with st.container(horizontal=True):
        dtype = st.selectbox("Precision", list(dtypes), width=240, key=f"dtype-{soup.id}")
        shard_size = None
        if chosen == _SHARDS:
            megabytes = st.number_input(
                "Max shard size, MB", 0.01, 1e6, 5000.0, 500.0, format="%g", width=200,
                key=f"shard-{soup.id}",
            )  # fmt: skip
            shard_size = round(megabytes * 1e6)
    if chosen == _FOLDER and beside is not None:
        _explain_folder(first, beside)
        return Form(dtype=dtypes[dtype], as_folder=True)
    st.caption(
        f"Tensor names, order and metadata follow {plain(first)}. "
        + (f".pt export unavailable: {plain(why_no_pt)}" if why_no_pt else "")
    )
    return Form(dtype=dtypes[dtype], shard_size=shard_size)


def _formats(soup: Soup) -> list[str]:
    """Return the formats of a soup, that of the first ingredient first, since its tool opens it."""
    return [
        *([_ADAPTER] if _rank_of_adapter(soup) else []),
        *([_FOLDER] if files_for_hub(soup) else []),
        *([] if soup.output.why_no_pt else [_COPY]),
        _ONE_FILE,
        _SHARDS,
    ]


def _rank_of_adapter(soup: Soup) -> int | None:
    """Return the rank of the adapter that is exactly the soup; None if it is no adapter."""
    try:
        return summed_rank(soup)
    except RecipeError:
        return None


def _adapter_form(soup: Soup, largest: int) -> Form:
    rank = st.number_input(
        "Rank", 1, largest, largest, width=200, key=f"rank-{soup.id}",
        help=f"{largest}, the sum of the ranks, is exact. A smaller rank is the closest adapter of "
        "that rank, by a truncated SVD.",
    )  # fmt: skip
    st.caption(
        "A ZIP archive of one LoRA adapter that `PeftModel.from_pretrained` opens. It changes the "
        "base as the soup does: the adapters are concatenated, not averaged factor by factor. "
        + (
            f"Rank {largest}, the sum of the ranks, is exact."
            if rank == largest
            else f"Rank {rank} of {largest} is approximate. The error is shown once the adapter is "
            "written."
        )
    )
    return Form(as_adapter=True, rank=None if rank == largest else rank)


def _explain_folder(first: str, beside: HubFiles) -> None:
    files = ", ".join(sorted(beside.copied))
    st.caption(
        f"A ZIP archive of a folder that `from_pretrained` opens: weights, config.json, model card "
        f"and recipe{f', and {plain(files)} of {plain(first)}' if files else ''}."
    )
    if beside.notes:
        st.caption(" ".join(plain(note) for note in beside.notes))


def _dtypes_of(soup: Soup) -> str:
    written = [info.dtype for info in soup.output.tensors().values()]
    floats = {str(dtype).removeprefix("torch.") for dtype in written if dtype.is_floating_point}
    return f"same as {soup.form.name} ({floats.pop() if len(floats) == 1 else 'several dtypes'})"


def _explain_copy(soup: Soup) -> None:
    source, form = soup.output.file, soup.output.pt_form
    if form is None:
        return
    titles = {found.name: found.title for found in source.weight_sets}
    replaced = titles.get(source.weights, "weights")
    file = source.path.name
    st.caption(
        plain(
            f"Copy of {file} with its {replaced} replaced by the soup's. Loads exactly like {file}."
        )
    )
    actions = {
        "replaced": "Also replaced by the soup's weights, so that every loader finds them",
        "removed": f"Removed, as it describes {soup.form.name}",
        "reset": "Reset to its value before training",
    }
    listed = {
        words: [
            f"{change.place} ({change.role})" for change in form.changes if change.action == key
        ]
        for key, words in actions.items()
    }
    listed[f"Kept as in {file}"] = list(form.kept)
    lines = [f"- {plain(words)}: {_some(places)}" for words, places in listed.items() if places]
    if lines:
        st.markdown("\n".join(lines))
    if form.local_paths:
        shown = [f"{path} ({place})" for place, path in form.local_paths]
        st.warning(
            "Privacy: this file contains paths from the training machine:\n\n"
            + "\n".join(f"- {plain(path)}" for path in shown[:_MOST_PATHS])
            + (f"\n- … and {len(shown) - _MOST_PATHS} more" if len(shown) > _MOST_PATHS else ""),
            icon=":material/visibility:",
        )


def _some(places: Sequence[str]) -> str:
    more = len(places) - _MOST_PLACES
    shown = ", ".join(map(plain, places[:_MOST_PLACES]))
    return f"{shown} and {more} more" if more > 0 else shown


def _prepare(view: View, picked: StoredSoup, form: Form) -> None:
    call = SoupFiles(picked.soup.id, form.to_json())
    label = "Create adapter"
    if not form.as_adapter:
        kind = "folder" if form.as_folder else "file"
        label = f"Create {kind} ({_size(form.nbytes(picked.soup))})"
    if st.button(
        label,
        type="primary",
        icon=":material/blender:",
        disabled=jobs.cannot_start(view, call),
        help="Computed from the checkpoint files in chunks (low memory).",
    ):
        jobs.start(view, call, f"Write weights of {picked.label}")
        st.rerun()


def _links(soup: Soup, form: Form, files: Sequence[SoupFileRow]) -> None:
    # Relative, since a proxy may add a path prefix that the server does not know.
    if form.is_folder:
        archive = f"{form.file_name(soup)}.zip"
        st.link_button(
            f"Download {plain(archive)} ({_size(sum(file.nbytes for file in files))})",
            f"./download/{soup.id}/{form.key}/{quote(archive)}",
            on_click="ignore",
            type="primary",
            icon=":material/download:",
        )
        with st.expander("Files and SHA-256", icon=":material/folder:"):
            rows = [f"| {plain(f.name)} | {_size(f.nbytes)} | `{f.sha256}` |" for f in files]
            st.markdown("\n".join(["| File | Size | SHA-256 |", "|---|--:|---|", *rows]))
        return
    urls = [f"./download/{soup.id}/{form.key}/{quote(file.name)}" for file in files]
    if len(files) == 1:
        st.link_button(
            f"Download {plain(files[0].name)} ({_size(files[0].nbytes)})",
            urls[0],
            on_click="ignore",
            type="primary",
            icon=":material/download:",
        )
        st.markdown("SHA-256")
        st.code(files[0].sha256, language=None)
        return
    if form.shard_size:
        st.caption("Put all files in one folder and pass it to from_pretrained.")
    rows = [
        f"| [{plain(file.name)}]({url}) | {_size(file.nbytes)} | `{file.sha256}` |"
        for file, url in zip(files, urls, strict=True)
    ]
    with st.container(height=420 if len(files) > 10 else "content", border=False):
        st.markdown("\n".join(["| File | Size | SHA-256 |", "|---|--:|---|", *rows]))


def _size(nbytes: int) -> str:
    if nbytes < 1e6:
        return f"{nbytes / 1e3:.1f} kB"
    return f"{nbytes / 1e6:.1f} MB" if nbytes < 1e9 else f"{nbytes / 1e9:.2f} GB"


def _artifacts(view: View, soup: Soup) -> None:
    """Show downloads of the recipe, the model card with its figure, and mergekit's YAML."""
    name = f"{soup.recipe}-{soup.id}"
    figure = _figure(view, soup)
    base_model = st.text_input(
        "Base model (Hugging Face ID)",
        next(iter(base_models_of(soup)), ""),
        help="Written to the model card, e.g. openai/clip-vit-base-patch32. Leave empty to omit.",
        width=400,
    ).strip()
    of_task: dict[str, Any] = {}
    if view.has_task:
        known = scores.evaluations(view, {soup.id: soup.mixture})[soup.id]
        soup = replace(soup, evaluations={split: e for split, e in known.items() if e is not None})
        of_task = {
            "score_name": view.task.score_name,
            "higher_is_better": view.task.metric.higher_is_better,
            "select": view.task.select,
        }
    card = model_card(
        soup,
        base_models=[base_model] if base_model else [],
        figure=f"{name}.svg" if figure is not None else None,
        **of_task,
    )
    mergekit = mergekit_config(soup)
    with st.container(horizontal=True):
        body = json.dumps(soup.to_json(), indent=2, ensure_ascii=False)
        _download("Recipe (JSON)", body, f"{name}.json", "application/json")
        _download("Model card (README.md)", card, "README.md", "text/markdown")
        if figure is not None:
            _download("Card figure (SVG)", figure, f"{name}.svg", "image/svg+xml")
        if mergekit is not None:
            _download("mergekit (YAML)", mergekit, f"{name}.yaml", "application/yaml")
    st.caption(
        "The recipe is also embedded in the safetensors metadata, or saved next to a .pt. Put the "
        "card and its figure next to the weights to upload the folder to the Hugging Face Hub. "
        + (
            "The YAML reproduces the soup in mergekit; any numerical differences are noted at its "
            "top."
            if mergekit is not None
            else "mergekit cannot express this soup."
        )
    )


def _download(label: str, body: str, file_name: str, mime: str) -> None:
    st.download_button(label, body, file_name, mime, on_click="ignore", icon=":material/download:")


def _figure(view: View, soup: Soup) -> str | None:
    if not view.has_task:
        return None
    base = {view.sweep.base.name: view.sweep.base.mixture} if view.sweep.base else {}
    known = scores.evaluations(view, scores.ingredients(view) | base | {soup.id: soup.mixture})
    table = shift_table(view.task, known, dict.fromkeys(known, ""))
    rows = table.dropna(subset=["report", "shift"])[["report", "shift"]]
    places = {str(name): (float(r), float(s)) for name, r, s in rows.itertuples()}
    itself = places.pop(soup.id, None)
    if itself is None:
        return None
    origin = places.pop(view.sweep.base.name, None) if view.sweep.base else None
    name, unit = view.task.score_name, view.task.score_unit
    axes = (unit.label(f"test {name}"), unit.label(f"mean shift {name}"))
    return scores_svg(places, itself, base=origin, axes=axes, unit=unit)
