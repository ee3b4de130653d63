"""Taking a soup home: its weights, its recipe, and the Python that makes it again."""

import json

import streamlit as st

from pages.components import papers, scores, shares, snippets, soup_picker, weights
from pages.components.state import View
from soupcore.jobs.forms import Form


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
    form = weights.show(view, picked)
    _recipe(view, picked, form)


def _contents(view: View, picked: scores.StoredSoup) -> None:
    scores.metrics(view, picked.soup)
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


def _recipe(view: View, picked: scores.StoredSoup, form: Form) -> None:
    st.subheader("Recipe")
    papers.show(view, picked.soup)
    body = json.dumps(picked.soup.to_json(), indent=2, ensure_ascii=False)
    left, right = st.columns(2)
    with left, st.expander("Recipe as JSON", icon=":material/data_object:"):
        st.code(body, language="json")
    with right, st.expander("The same in Python", icon=":material/code:", expanded=True):
        st.code(snippets.rebuild(view, picked.soup, form), language="python")


main(st.session_state["view"])
