"""Soups, ingredients and ensembles compared."""

import streamlit as st

from pages.components import comparison
from pages.components.state import View


def main(view: View) -> None:
    st.header("Compare")
    comparison.show(view)


if __name__ == "__main__":
    main(st.session_state["view"])
