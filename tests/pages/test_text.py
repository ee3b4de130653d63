import pytest

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
