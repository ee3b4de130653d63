"""A soup of coefficients set with sliders, evaluated as they settle."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import streamlit as st

from pages.components import jobs, snippets
from pages.components.state import View
from soupcore import Evaluation, Mixture
from soupcore.recipes import manual

_SLIDERS = 12  # more than these are not set by hand


def show(view: View, names: Sequence[str]) -> None:
    """Let the user set the shares of ingredients, and of the base, and keep the soup."""
    ends = [*([view.sweep.base.name] if view.sweep.base else []), *names][:_SLIDERS]
    if len(ends) < len(names):
        st.caption(f"Sliders for the first {_SLIDERS}; choose fewer ingredients to set others.")
    columns = st.columns(4)
    shares = {
        name: columns[index % 4].slider(
            name, -1.0, 1.0, 1.0 if name in names else 0.0, 0.05, key=f"share-{name}"
        )
        for index, name in enumerate(ends)
    }
    total = sum(Fraction(str(share)) for share in shares.values())
    if total == 0:
        st.warning("The shares sum to 0, so they name no mean. Move a slider.")
        return
    coefficients = {name: Fraction(str(share)) / total for name, share in shares.items() if share}
    st.caption(
        "Coefficients, scaled to sum to one: "
        + ", ".join(f"{name} {float(c):.3f}" for name, c in coefficients.items())
    )
    _evaluate(view, coefficients)
    snippets.show(snippets.manual(view, coefficients))


def _evaluate(view: View, coefficients: Mapping[str, Fraction]) -> None:
    if st.toggle(
        "Preview in bfloat16",
        help="A quicker first look while the sliders move. It is neither stored nor chosen by; "
        "how far it is off is measured on an ingredient that is known in float32.",
    ):
        _preview(view, coefficients)
        return
    point = manual(view.sweep, coefficients).mixture
    splits = [view.task.select, *view.task.splits_with_role("report")]
    known = _known(view, point, splits)
    request = view.request | {"coefficients": {n: str(c) for n, c in coefficients.items()}}
    if None in known.values():
        trial = request | {"splits": splits, "keep": False}
        failed = jobs.settle("mixture", "Evaluate coefficients", trial)
        if failed is not None:
            st.error(failed.error or "The evaluation failed.", icon=":material/error:")
        known = _known(view, point, splits)
    with st.container(horizontal=True):
        for split, evaluation in known.items():
            st.metric(
                f"{view.task.score_name} on {split}",
                f"{evaluation.score:.2%}" if evaluation else "…",
                width=220,
            )
    if st.button("Keep this soup", icon=":material/bookmark:"):
        kept = request | {"splits": view.task.reported, "keep": True}
        jobs.submit("mixture", "Keep a soup made by hand", kept)
        st.rerun()


def _preview(view: View, coefficients: Mapping[str, Fraction]) -> None:
    splits = [view.task.select, *view.task.splits_with_role("report")]
    terms = {name: str(c) for name, c in coefficients.items()}
    request = view.request | {"coefficients": terms, "splits": splits}
    done = jobs.last("preview", **request)
    if done is None:
        failed = jobs.settle("preview", "Preview coefficients", request)
        if failed is not None:
            st.error(failed.error or "The preview failed.", icon=":material/error:")
        done = jobs.last("preview", **request)
    found = done.result["previews"] if done is not None and done.result is not None else {}
    st.badge("preview in bfloat16", icon=":material/visibility:", color="orange")
    with st.container(horizontal=True):
        for split in splits:
            score = f"≈ {found[split]['score']:.2%}" if split in found else "…"
            st.metric(f"{view.task.score_name} on {split}", score, width=220)
    for split, seen in found.items():
        st.caption(
            f"On {split}, bfloat16 moves the {view.task.loss_name} of {seen['reference']}, known "
            f"in float32, by {seen['loss_effect']:+.1e} and its {view.task.score_name} by "
            f"{100 * seen['score_effect']:+.2f} points. Switch the preview off for the exact "
            "result."
        )


def _known(view: View, point: Mixture, splits: Sequence[str]) -> dict[str, Evaluation | None]:
    return {split: view.evaluator.stored([point], split)[0] for split in splits}
