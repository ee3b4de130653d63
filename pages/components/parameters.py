"""Widgets made from what a recipe says of its parameters."""

from typing import Any

import streamlit as st

from soupcore.recipes import Choice, Number, Parameter, Recipe, Switch

_COLUMNS = 3


def choose(recipe: Recipe) -> dict[str, Any]:
    """Let the user set the parameters of a recipe; return them all."""
    columns = st.columns(_COLUMNS) if recipe.parameters else []
    chosen = {}
    for index, parameter in enumerate(recipe.parameters):
        with columns[index % _COLUMNS]:
            chosen[parameter.name] = _widget(parameter, key(recipe, parameter))
    return chosen


def key(recipe: Recipe, parameter: Parameter) -> str:
    """Return where the session has what a parameter of a recipe was set to."""
    return f"{recipe.name}-{parameter.name}"


def _widget(parameter: Parameter, key: str) -> Any:
    if isinstance(parameter, Choice):
        return st.segmented_control(
            parameter.label,
            list(parameter.choices),
            default=parameter.default,
            required=True,
            help=parameter.help,
            key=key,
        )
    if isinstance(parameter, Number):
        kind = int if parameter.is_whole else float
        # Not as an argument: Streamlit complains of a default where a curve has set the value.
        st.session_state.setdefault(key, kind(parameter.default))
        return st.number_input(
            parameter.label,
            kind(parameter.minimum),
            kind(parameter.maximum),
            step=kind(parameter.step),
            help=parameter.help,
            key=key,
        )
    if isinstance(parameter, Switch):
        return st.toggle(parameter.label, parameter.default, help=parameter.help, key=key)
    return st.text_input(parameter.label, parameter.default, help=parameter.help, key=key)
