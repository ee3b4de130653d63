from string import punctuation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages.components.text import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run 01, layer_2", r"run 01\, layer\_2"),
        ("![x](http://a/b.png)", r"\!\[x\]\(http\:\/\/a\/b\.png\)"),
        ("`a` $b$ :red[c]", r"\`a\` \$b\$ \:red\[c\]"),
        ("one\n\n# two", r"one \# two"),
        ("größe/模型", r"größe\/模型"),
    ],
)
def test_text_is_shown_as_it_is(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text(f"ab \n{punctuation}"))
def test_no_mark_of_markdown_is_left_without_its_backslash(text: str) -> None:
    rest = escaped(text)
    for mark in punctuation:
        rest = rest.replace(f"\\{mark}", "")
    assert set(rest) <= set("ab ")
