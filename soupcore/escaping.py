"""Names of others as text: file names, columns, tasks and metadata are never markup.

Whoever names a file could otherwise put an image into a page, and the browser of everyone who
looks at it would call the image's host. There is one function for each language that we write.
"""

import re
from collections.abc import Mapping
from html import escape, unescape

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_WITHIN_WORD = re.compile(r"(?<=[^\W_])\\([-/_])(?=[^\W_])")  # run-01 and shift/blur_2
_AFTER_ESCAPES = re.compile(
    r":(?=[\w+-]+:)"  # an emoji or an icon
    r"|www(?=\.)|https?:(?=//)|@(?=[-\w])",  # a link, or an address of mail
    re.IGNORECASE,
)
_ARROW = re.compile(r"(?<!\S)(<->|->|<-|--|>=|<=|~=)(?!\S)")
_UNSEEN = re.compile("[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_JOINER = "\u2060"  # has no width and breaks no line

_FIGURE_TEXT: Mapping[int, str] = str.maketrans(
    {"&": "&amp;", "<": "&lt;", "$": "&#36;", "{": "&#123;"}
)


def markdown(text: str) -> str:
    """Return Markdown that shows a text as it is, in one line.

    ASCII punctuation is escaped, since autolinks, math, directives and tables use most of it.
    Links, emoji shortcodes, icons and arrows are found once more after the escapes are resolved; a
    word joiner inside breaks these.
    """
    line = _clean(" ".join(text.split()))
    line = _AFTER_ESCAPES.sub(rf"\g<0>{_JOINER}", line)
    line = _ARROW.sub(lambda arrow: f"{arrow[0][0]}{_JOINER}{arrow[0][1:]}", line)
    return _WITHIN_WORD.sub(r"\1", _PUNCTUATION.sub(r"\\\g<0>", line))


def figure_text(text: str) -> str:
    """Return what Plotly shows as this text, in one line.

    Plotly interprets tags, entities, TeX between dollars and `%{placeholders}` in every text of a
    figure.
    """
    return _clean(re.sub(r"\s", " ", text)).translate(_FIGURE_TEXT)


def html(text: str) -> str:
    """Return HTML that shows a text as it is, in one line; for elements and quoted attributes."""
    return escape(_clean(" ".join(text.split())))


def from_figure_text(text: str) -> str:
    """Return the text that `figure_text` was given, as far as that could be shown."""
    return unescape(text)


def yaml(text: str) -> str:
    """Return a text as a YAML scalar in double quotes."""
    escaped = (c if c.isprintable() and c not in '"\\' else _yaml_escape(c) for c in text)
    return f'"{"".join(escaped)}"'


def code(text: str) -> str:
    """Return a Markdown code span that shows a text as it is, in one line."""
    line = _clean(" ".join(text.split()))
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _clean(text: str) -> str:
    # Lone surrogates, of file names that are not UTF-8, would be refused by every encoder.
    return _UNSEEN.sub("\ufffd", text)


def _yaml_escape(character: str) -> str:
    number = ord(character)
    if character in '"\\':
        return f"\\{character}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
