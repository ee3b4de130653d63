"""Escaping of untrusted names: file names, columns, tasks and metadata are never markup.

Otherwise a file name could embed an image in a page, and the browser of every viewer would send a
request to the image's host. There is one function per output language.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from html import escape, unescape

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_WITHIN_WORD = re.compile(r"(?<=[^\W_])\\([-/_])(?=[^\W_])")  # run-01 and shift/blur_2
_AFTER_ESCAPES = re.compile(
    r":(?=[\w+-]+:)"  # an emoji or an icon
    r"|www(?=\.)|https?:(?=//)|@(?=[-\w])",  # a link, or an e-mail address
    re.IGNORECASE,
)
_ARROW = re.compile(r"(?<!\S)(<->|->|<-|--|>=|<=|~=)(?!\S)")
_UNSEEN = re.compile("[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_IN_FIGURE = re.compile(rf"[^\S ]|[&<${{]|{_UNSEEN.pattern}")
_JOINER = "\u2060"  # has no width and breaks no line

_FIGURE_TEXT: Mapping[int, str] = str.maketrans(
    {"&": "&amp;", "<": "&lt;", "$": "&#36;", "{": "&#123;"}
)


def markdown(text: str) -> str:
    """Return Markdown that renders as this text, in one line.

    ASCII punctuation is escaped, since autolinks, math, directives and tables use most of it.
    Streamlit detects links, emoji shortcodes, icons and arrows again after it has resolved the
    escapes; a word joiner inside these prevents that.
    """
    line = _clean(" ".join(text.split()))
    line = _AFTER_ESCAPES.sub(rf"\g<0>{_JOINER}", line)
    line = _ARROW.sub(lambda arrow: f"{arrow[0][0]}{_JOINER}{arrow[0][1:]}", line)
    return _WITHIN_WORD.sub(r"\1", _PUNCTUATION.sub(r"\\\g<0>", line))


@lru_cache(4096)  # a matrix has each name hundreds of times
def figure_text(text: str) -> str:
    """Return a string that Plotly renders as this text, in one line.

    Plotly interprets tags, entities, TeX between dollars and `%{placeholders}` in every text of a
    figure.
    """
    if not _IN_FIGURE.search(text):  # nearly all of the texts of a figure, which may have thousands
        return text
    return _clean(re.sub(r"\s", " ", text)).translate(_FIGURE_TEXT)


def html(text: str) -> str:
    """Return HTML that renders as this text, in one line; for elements and quoted attributes."""
    return escape(_clean(" ".join(text.split())))


def html_lines(text: str) -> str:
    """Return HTML that renders as this text in a `pre` element, with its lines and indentation."""
    return escape(_clean(text))


def from_figure_text(text: str) -> str:
    """Return the text that `figure_text` escaped, except for characters that it replaced."""
    return unescape(text)


def yaml(text: str) -> str:
    """Return a text as a double-quoted YAML scalar."""
    escaped = (c if c.isprintable() and c not in '"\\' else _yaml_escape(c) for c in text)
    return f'"{"".join(escaped)}"'


def code(text: str) -> str:
    """Return a Markdown code span that renders as this text, in one line."""
    line = _clean(" ".join(text.split()))
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _clean(text: str) -> str:
    # File names that are not UTF-8 contain lone surrogates, which cannot be encoded.
    return _UNSEEN.sub("\ufffd", text)


def _yaml_escape(character: str) -> str:
    number = ord(character)
    if character in '"\\':
        return f"\\{character}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
