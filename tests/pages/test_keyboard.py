"""The keyboard's shortcuts: one for each page, run by a script that the server allows."""

import base64
import hashlib
import re
from pathlib import Path

from streamlit.testing.v1 import AppTest

from pages.components import access, keyboard
from soupcore import Store

MAIN = Path(__file__).parents[2] / "pages" / "main.py"


def test_every_page_has_a_shortcut() -> None:
    pages = re.findall(r'st\.Page\(\s*"\w+\.py", title="(\w+)"(.*)', MAIN.read_text())
    titles = [title for title, options in pages if "hidden" not in options]
    assert len(titles) > 10
    assert sorted(titles) == sorted(keyboard.PAGES.values())
    # A link is found by the end of its text, after the name of its icon.
    ends = [(one, other) for one in titles for other in titles if one != other]
    assert not [pair for pair in ends if pair[0].endswith(pair[1])]


def test_the_policy_allows_the_script_by_its_hash_and_no_other() -> None:
    script = keyboard.SCRIPT.removeprefix("<script>").removesuffix("</script>")
    assert "<" not in script
    found = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = access._policy(keyboard.SCRIPT)
    assert f"script-src 'self' 'sha256-{found}';" in policy


def test_the_help_lists_the_shortcuts(served: Store) -> None:
    session = AppTest.from_file(str(MAIN), default_timeout=60).run()
    next(each for each in session.button if each.label == "?").click().run()
    assert not session.exception
    shown = "\n".join(each.value for each in session.markdown)
    for key, title in keyboard.PAGES.items():
        assert f"| `G` then `{key.upper()}` | {title} |" in shown
