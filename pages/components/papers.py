"""What travels with a soup's weights: its recipe, its model card with a figure, mergekit's YAML."""

import json

import streamlit as st

from pages.components import scores
from pages.components.state import View
from soupcore import Soup, mergekit_config, model_card
from soupcore.provenance import scores_svg


def show(view: View, soup: Soup) -> None:
    """Offer each as a file of its own."""
    name = f"{soup.recipe}-{soup.id}"
    figure = _figure(view, soup)
    base_model = st.text_input(
        "Base model on the Hub",
        _base_model(soup),
        help="Goes into the model card, such as openai/clip-vit-base-patch32. Left empty, the line "
        "for it stays a comment.",
        width=400,
    ).strip()
    card = model_card(
        soup,
        base_models=[base_model] if base_model else [],
        score_name=view.task.score_name,
        select=view.task.select,
        figure=f"{name}.svg" if figure is not None else None,
    )
    mergekit = mergekit_config(soup)
    with st.container(horizontal=True):
        body = json.dumps(soup.to_json(), indent=2, ensure_ascii=False)
        _download("Recipe (JSON)", body, f"{name}.json", "application/json")
        _download("Model card", card, "README.md", "text/markdown")
        if figure is not None:
            _download("Figure of the card", figure, f"{name}.svg", "image/svg+xml")
        if mergekit is not None:
            _download("mergekit (YAML)", mergekit, f"{name}.yaml", "application/yaml")
    st.caption(
        "The recipe also travels in the metadata of a safetensors file, and beside a .pt. With the "
        "card and its figure beside the weights, the folder is ready for the Hugging Face Hub. "
        + (
            "mergekit makes the soup again from the YAML; where it computes otherwise, a comment "
            "at its top says so."
            if mergekit is not None
            else "mergekit has no method that makes this soup."
        )
    )


def _download(label: str, body: str, file_name: str, mime: str) -> None:
    st.download_button(label, body, file_name, mime, on_click="ignore", icon=":material/download:")


def _base_model(soup: Soup) -> str:
    """Return what the runs say they were fine-tuned from, where they say it and agree."""
    told = {soup.sources[name].hyperparameters.get("base_model") for name in soup.ingredients}
    return str(told.pop() or "") if len(told) == 1 else ""


def _figure(view: View, soup: Soup) -> str | None:
    base = {view.sweep.base.name: view.sweep.base.mixture} if view.sweep.base else {}
    known = scores.evaluations(view, scores.ingredients(view) | base | {soup.id: soup.mixture})
    table = scores.scatter_table(view, known, dict.fromkeys(known, ""))
    rows = table.dropna(subset=["report", "shift"])[["report", "shift"]]
    places = {str(name): (float(r), float(s)) for name, r, s in rows.itertuples()}
    itself = places.pop(soup.id, None)
    if itself is None:
        return None
    origin = places.pop(view.sweep.base.name, None) if view.sweep.base else None
    name = view.task.score_name
    axes = (f"{name} on report, %", f"mean {name} under shift, %")
    return scores_svg(places, itself, base=origin, axes=axes)
