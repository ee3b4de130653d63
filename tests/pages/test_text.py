from string import punctuation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages.components.text import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run-01", r"run\-01"),
        ("![x](http://evil.example/x.png)", r"\!\[x\]\(http\:\/\/evil\.example\/x\.png\)"),
        (":red[x] :material/home: $x$ `c` <b>", None),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("模型 α ünï", "模型 α ünï"),
        ("", ""),
    ],
)
def test_every_letter_that_markdown_makes_something_of_is_escaped(
    text: str, shown: str | None
) -> None:
    if shown is not None:
        assert plain(text) == shown
    kept = plain(text).replace("\\", "")
    assert kept == " ".join(text.split())
    marks = [i for i, c in enumerate(plain(text)) if c in "!:[]()$`<>*_#|~"]
    assert all(plain(text)[i - 1] == "\\" for i in marks)


@given(st.text(f"ab \n{punctuation}"))
def test_no_mark_of_markdown_is_left_without_its_backslash(text: str) -> None:
    rest = plain(text)
    for mark in punctuation:
        rest = rest.replace(f"\\{mark}", "")
    assert set(rest) <= set("ab ")
