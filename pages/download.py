"""Taking a soup home: its weights, its recipe, and the Python that makes it again."""

import json

import streamlit as st

from pages.components import jobs, scores, services, shares, snippets, soup_picker
from pages.components.state import View


def main(view: View) -> None:
    st.header("Download")
    stored = scores.soups(view)
    if not stored:
        st.info(
            "There is no soup of this sweep yet. Build one on the **Soups** page.",
            icon=":material/soup_kitchen:",
        )
        return
    picked = soup_picker.choose(stored, "Soup")
    _contents(view, picked)
    _weights(view, picked)
    _recipe(view, picked)


def _contents(view: View, picked: scores.StoredSoup) -> None:
    known = scores.evaluations(view, {"soup": picked.soup.mixture})["soup"]
    with st.container(horizontal=True):
        for split, evaluation in known.items():
            if evaluation is not None and not split.startswith("shift"):
                st.metric(
                    f"{view.task.score_name} on {split}", f"{evaluation.score:.2%}", width=200
                )
        if (shift := scores.shift_mean(view, known)) is not None:
            st.metric(f"mean {view.task.score_name} under shift", f"{shift:.2%}", width=240)
    st.dataframe(
        {
            "ingredient": list(picked.soup.digests),
            "coefficient": [
                shares.share(picked.soup.coefficients[name])
                if name in picked.soup.coefficients
                else "not one for all weights"
                for name in picked.soup.digests
            ],
            "digest": list(picked.soup.digests.values()),
        },
        width=640,
    )


def _weights(view: View, picked: scores.StoredSoup) -> None:
    st.subheader("Weights")
    size = sum(info.nbytes for info in picked.soup.mixture.tensors.values())
    if picked.file is None or not (services.store().folder / picked.file).is_file():
        request = view.request | {"soup": picked.soup.id}
        running = jobs.unfinished("weights", **request)
        st.caption("The weights are mixed from the ingredients' files piece by piece.")
        if st.button(
            f"Prepare the weights ({_megabytes(size)})",
            type="primary",
            icon=":material/blender:",
            disabled=running is not None,
        ):
            jobs.submit("weights", f"Write {picked.label}", request)
            st.rerun()
        return
    st.link_button(
        f"Download {picked.file.rpartition('/')[2]} ({_megabytes(size)})",
        f"/download/{picked.soup.id}",
        on_click="ignore",
        type="primary",
        icon=":material/download:",
    )
    st.markdown("SHA-256")
    st.code(picked.sha256 or "", language=None)


def _recipe(view: View, picked: scores.StoredSoup) -> None:
    st.subheader("Recipe")
    st.caption("The recipe also travels in the metadata of the safetensors file.")
    body = json.dumps(picked.soup.to_json(), indent=2, ensure_ascii=False)
    st.download_button(
        "Download the recipe as JSON",
        body,
        file_name=f"{picked.soup.recipe}-{picked.soup.id}.json",
        mime="application/json",
        on_click="ignore",
    )
    left, right = st.columns(2)
    with left, st.expander("Recipe as JSON", icon=":material/data_object:"):
        st.code(body, language="json")
    with right, st.expander("The same in Python", icon=":material/code:", expanded=True):
        st.code(snippets.rebuild(view, picked.soup), language="python")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


main(st.session_state["view"])
