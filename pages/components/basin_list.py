"""Which ingredients share a basin, in words, with a way to select them."""

from collections.abc import Sequence

import streamlit as st

from soupcore import basins
from soupcore.connectivity import Basin
from soupcore.connectivity.bracket import Floats
from soupcore.figures import Measure

_SHOWN = 4  # basins of more than one


def show(names: Sequence[str], barriers: Floats, measure: Measure) -> float:
    """Say which ingredients share a basin, and return the threshold that the user set.

    Args:
        names: The ingredients.
        barriers: Between them, shape [k, k]; NaN where not known.
        measure: What they are.

    Returns:
        Up to which barrier two are connected, as the measure is shown.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        limit: float = st.number_input(
            f"Connected up to a {measure.title} of",
            min_value=0.0,
            value=float(measure.connected or 0),
            step=0.05 if measure.factor == 1 else 0.5,
            format="%.2f",
            key=f"threshold-{measure.title}",
            width=230,
            help="Two share a basin when lines with barriers up to this lead from one to the "
            "other: the branches that join below the dotted line across the tree.",
        )
        found = basins(names, barriers, limit / measure.factor)
        shared = [basin for basin in found if len(basin.names) > 1]
        for number, basin in enumerate(shared[:_SHOWN]):
            st.button(
                f"Select these {len(basin.names)}",
                icon=":material/check_box:",
                key=f"select-basin-{number}",
                disabled=list(basin.names) == st.session_state["selection"],
                on_click=_select,
                args=(basin,),
            )
    st.caption("  \n".join(_sentences(names, found)))
    return limit


def _sentences(names: Sequence[str], found: Sequence[Basin]) -> list[str]:
    shared = [basin for basin in found if len(basin.names) > 1]
    alone = [basin.names[0] for basin in found if len(basin.names) == 1]
    if not shared:
        return ["No two of these share a basin."]
    lines = []
    for basin in shared[:_SHOWN]:
        these = "All" if len(basin.names) == len(names) else "These"
        lines.append(
            f"**{these} {len(basin.names)} share a basin:** {', '.join(basin.names)}"
            + (_chain(basin) if basin.apart else "")
        )
    if len(shared) > _SHOWN:
        lines.append(f"… and {len(shared) - _SHOWN} smaller basins.")
    if alone:
        these = "This one does" if len(alone) == 1 else f"These {len(alone)} do"
        lines.append(f"**{these} not:** {', '.join(alone)}")
    return lines


def _chain(basin: Basin) -> str:
    count = len(basin.apart)
    pairs = ", ".join(f"{a} – {b}" for a, b in basin.apart[:3])
    verb = "is" if count == 1 else "are"
    return (
        f" (by way of others: {count} of its pairs {verb} above the limit, or not known: "
        f"{pairs}{', …' if count > 3 else ''})"
    )


def _select(basin: Basin) -> None:
    st.session_state["selection"] = list(basin.names)
