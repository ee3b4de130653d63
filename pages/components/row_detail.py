"""The details of a row of the run table: its file, composition, and paired differences."""

import streamlit as st

from pages.components import annotating, differences, scores
from pages.components.display import plain
from pages.components.run_table import RunTable
from pages.components.state import View
from soupcore import escaping
from soupcore.stored_soups import recipe_title


def show(view: View, table: RunTable) -> None:
    """Let the user choose a row, and show its details."""
    names = table.names
    selected = [name for name in st.session_state["selection"] if name in names]
    default = selected[-1] if selected else table.headline or table.baseline or names[0]
    details = st.expander(
        "Details of a row", icon=":material/info:", key="row-detail", on_change="rerun"
    )
    if not details.open:
        return
    with details:
        name = st.selectbox(
            "Row", names, index=names.index(default), width=360, key=f"detail-{default}"
        )
        st.markdown("  \n".join(_facts(view, table, name)))
        if view.has_task:
            baseline = table.baseline if table.baseline != name else None
            origin = table.evaluations[baseline] if baseline else None
            differences.show(view, table.evaluations[name], baseline, origin)
        soup = table.soups.get(name)
        subject = soup.soup.id if soup else view.sweep[name].digest
        annotating.show_note_and_tags(subject, known=table.tags)


def _facts(view: View, table: RunTable, name: str) -> list[str]:
    if name in table.soups:
        stored = table.soups[name]
        return [
            f"**{plain(stored.label)}**, soup {escaping.code(stored.soup.id)}, recipe "
            f"{plain(recipe_title(stored.soup.recipe))}",
            f"Composition: {plain(scores.describe(stored.soup))}",
        ]
    ingredient = view.sweep[name]
    kind = "ingredient" if name in view.sweep.ingredients else "base"
    return [
        f"**{plain(name)}**, {kind}",
        f"File: {escaping.code(str(ingredient.checkpoint.path))}",
        f"Digest: {escaping.code(ingredient.digest)}",
    ]
