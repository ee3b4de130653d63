"""A report of a sweep: one HTML page to send, print and archive, or a folder with its tables.

Reports only use stored results; nothing is computed. A page includes plotly.js and makes no
requests. All names are escaped. Equal results give equal pages.
"""

import io
import json
import zipfile
from collections.abc import Callable, Sequence

from soupcore.calls import Code, Context, SoupScores
from soupcore.calls.files import card_of
from soupcore.display import counted
from soupcore.errors import RecipeError
from soupcore.overview import Overview
from soupcore.plan import Analysis
from soupcore.report import html, protocol
from soupcore.report.drawn import drawn
from soupcore.report.evidence import evidence
from soupcore.report.html import Section
from soupcore.report.results import results
from soupcore.stored_soups import StoredSoup

__all__ = ["archive", "contents", "folder", "report"]

_DATE = (1980, 1, 1, 0, 0, 0)  # of the files in an archive

_Make = Callable[[], str]


def report(context: Context, soup: str | None = None, *, title: str = "") -> str:
    """Return the report of a sweep as HTML.

    With a task: the verdict, the protocol, the table of soups and ingredients on each split,
    figures, the evidence for a soup, limitations, the ingredients, the fit report and the Python.
    Without a task: the ingredients with their logged metrics, the soups and the fit report.

    Args:
        context: The sweep, and the stored evaluations of a task if there is one.
        soup: Id of the soup for the evidence and the trace; by default, the soup of the verdict.
            The verdict itself does not depend on it.
        title: Name of the sweep in the heading; by default, that of its folder.

    Raises:
        RecipeError: There is no such soup.
    """
    name = title or context.sweep.folder.resolve().name
    sections = [Section(head, make()) for head, make in _sections(context, soup).items()]
    return html.page(f"Model soup report: {name}", _about(context), sections)


def contents(context: Context, soup: str | None = None) -> list[str]:
    """Return the titles of the sections; see `report`."""
    return list(_sections(context, soup))


def folder(context: Context, soup: str | None = None, *, title: str = "") -> dict[str, str]:
    """Return a report and its files: `{path: text}`.

    The files are `report.html`; its tables in `tables/`, as CSV and LaTeX; `reproduce.py`; and, if
    the report has a soup, its recipe as `recipe.json` and its model card as `README.md`. The
    weights are not included.

    Args:
        context: As for `report`.
        soup: As for `report`.
        title: As for `report`.

    Raises:
        RecipeError: There is no such soup.
    """
    page = report(context, soup, title=title)
    found = {"report.html": page}
    found |= {f"tables/{name}": text for name, text in html.saved_tables(page).items()}
    picked = _picked(Overview.of(context), soup) if context.has_task else None
    found["reproduce.py"] = "\n\n".join(
        f"# {about}\n{source}" for about, source in _sources(context, picked).items()
    )
    if picked is not None:
        recipe = json.dumps(picked.soup.to_json(), indent=2, ensure_ascii=False)
        card = card_of(context, picked.soup)
        found |= {"recipe.json": f"{recipe}\n", "README.md": card}
    return found


def archive(context: Context, soup: str | None = None, *, title: str = "") -> bytes:
    """Return `folder` as a ZIP archive; equal results give an equal archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, text in folder(context, soup, title=title).items():
            info = zipfile.ZipInfo(f"stockpot-report/{name}", _DATE)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            opened.writestr(info, text)
    return packed.getvalue()


def _about(context: Context) -> str:
    sweep = context.sweep
    base = f"base: {sweep.base.name}" if sweep.base else "no base checkpoint"
    task = f"task: {context.task.name}" if context.has_task else "no task"
    return f"{counted(len(sweep), 'ingredient')} · {base} · {task}"


def _sections(context: Context, soup: str | None) -> dict[str, _Make]:
    """Return the sections by title, each as a function that returns its HTML."""
    if not context.has_task:
        return _without_task(context)
    known = Overview.of(context)
    picked = _picked(known, soup)
    found: dict[str, _Make] = {
        "Verdict": lambda: _verdict(known),
        "Protocol": lambda: protocol.protocol(known),
        "Results": lambda: results(known),
        "Figures": lambda: drawn(known, picked),
    }
    if picked is not None:
        found["Evidence"] = lambda: evidence(known, picked)
    found |= _notes(context, known.soups)
    return found | {
        "Limitations": lambda: protocol.limitations(known),
        "Ingredients": lambda: protocol.ingredients(known.sweep, picked),
        "Fit report": lambda: protocol.fit(known.sweep.fit),
        "Reproduce in Python": lambda: _python(context, picked),
    }


def _picked(known: Overview, soup: str | None) -> StoredSoup | None:
    if soup is None:
        return known.headline
    for stored in known.soups:
        if stored.soup.id == soup:
            return stored
    raise RecipeError(f"The sweep has no stored soup {soup!r} of this task.")


def _verdict(known: Overview) -> str:
    verdict = known.verdict
    first, *others = verdict.sentences
    more = html.paragraph(" ".join(others)) if others else ""
    return f'<div class="verdict {verdict.outcome}">{html.paragraph(first)}{more}</div>'


def _sources(context: Context, picked: StoredSoup | None) -> dict[str, str]:
    """Return the Python scripts for the report and its soup, with a description of each."""
    written = Code(
        'Path("report.html").write_text(report(context), encoding="utf-8")\n',
        ("from pathlib import Path", "from soupcore.report import report"),
    )
    if not context.has_task:
        printed = Code("print(sweep.to_frame().to_string())\nprint(sweep.fit)\n")
        return {"This opens the sweep and prints its table and its fit report:":
                context.script(printed)}  # fmt: skip
    found = {
        "This runs the standard analysis and writes a report:": Analysis().script(context, written)
    }
    if picked is not None:
        about = f"This rebuilds the soup {picked.label} and evaluates it:"
        found[about] = SoupScores(picked.soup.id).script(context, Code("print(soup)\n"))
    return found


def _python(context: Context, picked: StoredSoup | None) -> str:
    sources = _sources(context, picked).items()
    return "".join(html.paragraph(about) + html.code(source) for about, source in sources)


def _notes(context: Context, soups: Sequence[StoredSoup]) -> dict[str, _Make]:
    found = protocol.notes(context, soups)
    return {"Notes": lambda: found} if found else {}


def _without_task(context: Context) -> dict[str, _Make]:
    sweep = context.sweep
    stored = context.soups.of_task(context.folder, "", None)
    found: dict[str, _Make] = {"Ingredients": lambda: protocol.ingredients(sweep, None)}
    if stored:
        found["Soups"] = lambda: protocol.soups(stored)
    found |= _notes(context, stored)
    return found | {
        "Fit report": lambda: protocol.fit(sweep.fit),
        "Limitations": lambda: html.bullets(
            [
                "The sweep was opened without a task: nothing was evaluated, and there is no "
                "verdict.",
                "Logged metrics come from the training tool. Their splits and definitions may "
                "differ between runs.",
            ]
        ),
        "Reproduce in Python": lambda: _python(context, None),
    }
