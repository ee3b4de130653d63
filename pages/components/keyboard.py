"""Keyboard shortcuts, and the dialog that lists them.

Streamlit gives shortcuts only to buttons, and none of them can be `?`. So a script of ours listens
for keys. It is a constant: the server's content security policy allows it by its hash.
"""

import json

import streamlit as st

#: The key after G that opens each page.
PAGES = {
    "o": "Overview",
    "i": "Ingredients",
    "s": "Soups",
    "c": "Connectivity",
    "m": "Compare",
    "r": "Report",
    "p": "Paths",
    "l": "Plane",
    "g": "Geometry",
    "n": "Ensembles",
    "w": "Sweeps",
}
_HELP = "keyboard-help"
# It acts before Streamlit's own keys, such as R, and leaves keys in text fields alone.
SCRIPT = f"""<script>(() => {{
  if (window.stockpotKeys) return;
  window.stockpotKeys = true;
  const pages = {json.dumps(PAGES)};
  const open = () => document.querySelector("[role=dialog]");
  let chord = 0;
  document.addEventListener("keydown", (event) => {{
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || at.isContentEditable) return;
    if (["INPUT", "TEXTAREA", "SELECT"].includes(at.tagName) || open()) return;
    const isChord = chord && 5000 > event.timeStamp - chord;
    chord = 0;
    if (event.key === "?") {{
      document.querySelector(".st-key-{_HELP} button")?.click();
    }} else if (isChord && event.key in pages) {{
      const links = [...document.querySelectorAll("[data-testid=stSidebarNavLink]")];
      links.find((link) => link.textContent.trim().endsWith(pages[event.key]))?.click();
    }} else if (event.key === "g") {{
      chord = event.timeStamp;
    }} else {{
      return;
    }}
    event.preventDefault();
    event.stopImmediatePropagation();
  }}, true);
}})();</script>"""
STYLE = f".st-key-{_HELP} {{ margin-left: auto; }} :has(> .st-key-keys) {{ display: none; }}"


def show() -> None:
    """Show the button of the dialog, and listen for the shortcuts."""
    if st.button("?", key=_HELP, type="tertiary", icon=":material/keyboard:"):
        _dialog()
    with st.container(key="keys"):
        st.html(SCRIPT, unsafe_allow_javascript=True)


@st.dialog("Keyboard", width="medium")
def _dialog() -> None:
    left, right = st.columns(2)
    with left:
        st.markdown("**Open a page**")
        st.markdown(_table({f"G then {key.upper()}": title for key, title in PAGES.items()}))
    with right:
        st.markdown("**Everywhere**")
        st.markdown(
            _table(
                {
                    "?": "This help",
                    "Tab": "Next control",
                    "Shift + Tab": "Previous control",
                    "Enter": "Press a button, open a list, follow a link",
                    "Space": "Tick a box",
                    "← →": "Change a choice, move a slider",
                    "Esc": "Close a dialog or a list",
                }
            )
        )
        st.markdown("**In a table**")
        st.markdown(
            _table(
                {
                    "Arrows": "Move between cells",
                    "Space": "Tick the row, on its box",
                    "Ctrl + C": "Copy cells",
                    "Ctrl + F": "Search",
                }
            )
        )
    st.caption(
        "Every click on a figure has an equivalent for the keyboard. Rows of the run table select "
        "ingredients, *Add curve* on the Connectivity page chooses a pair, and the list on the "
        "page of a soup opens another one. *CSV* below a figure saves its numbers."
    )


def _table(rows: dict[str, str]) -> str:
    lines = [f"| {' '.join(_keys(keys))} | {text} |" for keys, text in rows.items()]
    return "\n".join(["| Key | Action |", "| --- | --- |", *lines])


def _keys(text: str) -> list[str]:
    words = {"then", "+"}
    return [word if word in words else f"`{word}`" for word in text.split(" ")]
