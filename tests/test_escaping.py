import html
import re
from string import punctuation

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from soupcore import escaping

JOINER = "\u2060"
LINES = "def f(a):\n    return '<b>' if a & 1 else \"\"\n\0"
TEXTS = st.text(f"ab1 \n{punctuation}") | st.text()


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("run-01", "run-01"),
        ("- run-01-", r"\- run-01\-"),
        ("run_1.pt", r"run_1\.pt"),
        ("shift/noise_2", "shift/noise_2"),
        ("_emphasis_/", r"\_emphasis\_\/"),
        ("![x](http://evil.example/x.png)", rf"\!\[x\]\(http\:{JOINER}\/\/evil\.example/x\.png\)"),
        ("www.evil.example", rf"www{JOINER}\.evil\.example"),
        ("HTTPS://evil.example", rf"HTTPS\:{JOINER}\/\/evil\.example"),
        ("a@b.example", rf"a\@{JOINER}b\.example"),
        (":red[x] $x$ `c` <b>", r"\:red\[x\] \$x\$ \`c\` \<b\>"),
        (":material/home:", r"\:material/home\:"),
        (":material_home:", rf"\:{JOINER}material_home\:"),
        (":streamlit:", rf"\:{JOINER}streamlit\:"),
        (":smile::+1:", rf"\:{JOINER}smile\:\:{JOINER}\+1\:"),
        ("12:30", r"12\:30"),
        ("a -> b", rf"a \-{JOINER}\> b"),
        ("a->b", r"a\-\>b"),
        ("--", rf"\-{JOINER}\-"),
        ("&lt;", r"\&lt\;"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("模型 α ünï", "模型 α ünï"),
        ("run\udcff\0\u202e", "run\ufffd\ufffd\ufffd"),
        ("", ""),
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str, escaped: str) -> None:
    assert escaping.markdown(text) == escaped


@given(TEXTS)
def test_no_mark_of_markdown_is_left_without_its_backslash(text: str) -> None:
    escaped = escaping.markdown(text)
    rest = re.sub(r"(?<=[^\W_])[-/_](?=[^\W_])", "", escaped)
    for mark in punctuation:
        rest = rest.replace(f"\\{mark}", "")
    assert not set(rest) & set(punctuation)
    assert "\n" not in escaped
    escaped.encode()  # a page can be sent
    shown = re.sub(r"\\(.)", r"\1", escaped).replace(JOINER, "")
    if JOINER not in text and text.isprintable():
        assert shown == " ".join(text.split())


@given(TEXTS)
def test_a_figure_shows_a_text_as_it_is(text: str) -> None:
    escaped = escaping.figure_text(text)
    assert not set(escaped) & set("<$\n")
    assert "%{" not in escaped
    assert html.unescape(escaped) == escaping.from_figure_text(escaped)
    if text.isprintable():
        assert escaping.from_figure_text(escaped) == re.sub(r"\s", " ", text)


@given(TEXTS)
def test_yaml_reads_a_text_back(text: str) -> None:
    written = escaping.yaml(text)
    assert "\n" not in written
    assert yaml.safe_load(written) == text


@given(TEXTS)
def test_a_code_span_ends_where_it_should(text: str) -> None:
    span = escaping.code(text)
    fence = re.match("`+", span)
    assert fence is not None
    inner = span[len(fence[0]) : -len(fence[0])]
    assert span.endswith(fence[0])
    assert fence[0] not in re.findall("`+", inner)


def test_source_keeps_its_lines_and_indentation() -> None:
    escaped = escaping.html_lines(LINES)
    assert not set("<>\"'\0") & set(escaped)
    assert html.unescape(escaped) == LINES.replace("\0", "\ufffd")
