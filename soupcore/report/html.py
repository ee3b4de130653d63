"""The parts of a report as HTML: tables, lists, figures, the page. All texts are escaped here."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from soupcore.escaping import html, html_lines
from soupcore.figures.style import titled
from soupcore.table_export import SUFFIXES, TableForm, export_table

_FORMS: tuple[TableForm, ...] = ("CSV", "LaTeX")
_IMAGES = ("PNG", "SVG")
_FILE = re.compile(r'<a download="stockpot-([^"]+)" href="data:text/plain;charset=utf-8,([^"]*)"')
_SAVE_IMAGES = """document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-figure]");
  if (!button) return;
  const { figure, format } = button.dataset;
  const scale = format === "png" ? 3 : 1;
  Plotly.downloadImage(`figure-${figure}`, { format, scale, filename: `stockpot-${figure}` });
});"""
_WIDTH = 680  # pixels of a figure; fits the width of A4 and of US letter

# The page must not make requests, even if a text were not escaped.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1f2328;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 880px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 44px 0 10px; padding-top: 10px; border-top: 1px solid #d8dce1; }
h3 { font-size: 16px; margin: 26px 0 6px; }
p, ul, ol { margin: 8px 0; }
.about, figcaption, .note, small { color: #57606a; }
figcaption, .note, .files { font-size: 13px; }
.files { margin: 4px 0 0; }
a, .files button { color: #0b5cad; }
.files button { font: inherit; padding: 0; border: 0; background: none; cursor: pointer;
  text-decoration: underline; }
nav ol { columns: 2; padding-left: 20px; }
.verdict { border-left: 4px solid #8a8f98; padding: 6px 0 6px 16px; margin: 12px 0; }
.verdict.better { border-color: #2a9d6f; }
.verdict.worse { border-color: #c2554d; }
.verdict p:first-child { font-size: 18px; font-weight: 600; margin-top: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; line-height: 1.35; margin: 10px 0 0; }
th, td { padding: 4px 8px 4px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e4e7eb; overflow-wrap: break-word; }
thead th { border-bottom: 1px solid #8a8f98; vertical-align: bottom; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
td small, th small { display: block; font-weight: 400; font-size: 11px; white-space: nowrap; }
td.number { white-space: nowrap; }
tr.marked td { background: #fdf6e3; }
code, pre { font: 12px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { background: #f6f8fa; padding: 12px; overflow-x: auto; border-radius: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; font-size: 14px; }
dt { color: #57606a; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 18px 0 26px; }
@page { margin: 14mm; }
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  a { color: inherit; text-decoration: none; }
  .files, .modebar { display: none !important; }
  .wide { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding-right: 4px; }
  td small, th small { font-size: 6.2pt; }
  td.number, td.number small { white-space: normal; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, tr, .verdict, dl > * { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: Its text.
        below: Text below it in small print.
        is_best: Whether it is bold.
    """

    text: str
    below: str = ""
    is_best: bool = False


Part = str | Cell


@dataclass(frozen=True)
class Section:
    """A section of a report: its title, and its content as HTML."""

    title: str
    body: str

    @property
    def anchor(self) -> str:
        """The id of its heading."""
        return "-".join(self.title.lower().split())


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; its kind is a class of the style sheet."""
    return f"<p{_class(kind)}>{html(text)}</p>"


def note(text: str) -> str:
    """Return an explanation in small print."""
    return paragraph(text, "note")


def subtitle(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{html(text)}</h3>"


def bullets(texts: Iterable[str]) -> str:
    """Return a list."""
    return f"<ul>{''.join(f'<li>{html(text)}</li>' for text in texts)}</ul>"


def terms(texts: Mapping[str, str]) -> str:
    """Return a list of terms with their descriptions."""
    rows = "".join(f"<dt>{html(term)}</dt><dd>{html(text)}</dd>" for term, text in texts.items())
    return f"<dl>{rows}</dl>"


def code(text: str) -> str:
    """Return source code, with its line breaks."""
    return f"<pre><code>{html_lines(text)}</code></pre>"


def table(
    heads: Sequence[Part],
    rows: Iterable[Sequence[Part]],
    *,
    left: int = 1,
    marked: Iterable[int] = (),
) -> str:
    """Return a table.

    Args:
        heads: The titles of the columns.
        rows: The cells of each row.
        left: Number of columns with text, which come first. The others have numbers.
        marked: Numbers of the rows with a background.
    """
    coloured = set(marked)
    head = "".join(_cell("th", part, at >= left) for at, part in enumerate(heads))
    body = "".join(
        f"<tr{_class('marked' if number in coloured else '')}>"
        f"{''.join(_cell('td', part, at >= left) for at, part in enumerate(row))}</tr>"
        for number, row in enumerate(rows)
    )
    whole = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{whole}</table></div>'


def files(frame: pd.DataFrame, name: str, decimals: Mapping[str, int] | None = None) -> str:
    """Return links to save a table as CSV and LaTeX; the page contains the files."""
    links = []
    for form in _FORMS:
        text = export_table(frame, form, decimals=decimals)
        href = f"data:text/plain;charset=utf-8,{quote(text.encode(errors='replace'))}"
        links.append(f'<a download="stockpot-{name}{SUFFIXES[form]}" href="{href}">{form}</a>')
    return f'<p class="files">Numbers: {" · ".join(links)}</p>'


def saved_tables(page: str) -> dict[str, str]:
    """Return the tables that a page contains as files, `{file name: text}`; see `files`."""
    return {name: unquote(text) for name, text in _FILE.findall(page)}


def plot(
    figure: go.Figure, name: str, title: str, about: str, caption: str, frame: pd.DataFrame
) -> str:
    """Return a figure with its caption and its numbers.

    Args:
        figure: A figure of `soupcore.figures`.
        name: Its id in the page, and the name of its files.
        title: Its title, one line.
        about: The splits and the numbers of examples, below the title.
        caption: Explanation of the figure.
        frame: Its numbers.
    """
    light = titled(figure, title, about).update_layout(width=_WIDTH)
    drawn = light.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{name}",
        config={
            "displaylogo": False,
            "responsive": False,
            "toImageButtonOptions": {"format": "svg", "filename": f"stockpot-{name}"},
        },
    )
    saved = _images(name) + files(frame, name)
    return f"<figure>{drawn}<figcaption>{html(caption)}</figcaption>{saved}</figure>"


def page(title: str, about: str, sections: Sequence[Section]) -> str:
    """Return the page. It includes plotly.js if a section has a figure."""
    contents = "".join(
        f'<li><a href="#{each.anchor}">{html(each.title)}</a></li>' for each in sections
    )
    bodies = "".join(
        f'<section><h2 id="{each.anchor}">{html(each.title)}</h2>{each.body}</section>'
        for each in sections
    )
    script = ""
    if any("<figure>" in each.body for each in sections):
        script = f"<script>{get_plotlyjs()}</script><script>{_SAVE_IMAGES}</script>"
        bodies = f"<noscript>{note('The figures need JavaScript.')}</noscript>{bodies}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html(title)}</title><style>{_STYLE}</style>{script}</head><body><main>"
        f"<header><h1>{html(title)}</h1>{paragraph(about, 'about')}</header>"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>{bodies}</main></body></html>\n'
    )


def _images(name: str) -> str:
    """Return buttons that save a figure as an image; the browser draws it, without a server."""
    buttons = " · ".join(
        f'<button type="button" data-figure="{name}" data-format="{form.lower()}">{form}</button>'
        for form in _IMAGES
    )
    return f'<p class="files">Figure: {buttons}</p>'


def _cell(tag: str, part: Part, is_number: bool) -> str:
    cell = part if isinstance(part, Cell) else Cell(part)
    text = f"<b>{html(cell.text)}</b>" if cell.is_best else html(cell.text)
    below = f"<small>{html(cell.below)}</small>" if cell.below else ""
    return f"<{tag}{_class('number' if is_number else '')}>{text}{below}</{tag}>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
