"""What users say of the soups and ingredients of a sweep."""

from collections.abc import Sequence

from soupcore.annotations import Annotation, annotations
from soupcore.calls import Context
from soupcore.report import html
from soupcore.stored_soups import StoredSoup

Row = tuple[str, Annotation]


def notes(context: Context, soups: Sequence[StoredSoup]) -> list[Row]:
    """Return the names of soups and ingredients with a star, tags or a note, and what was said.

    Args:
        context: The sweep.
        soups: Its soups.
    """
    said = annotations(context.store, [each.digest for each in context.sweep.ingredients.values()])
    rows = [(soup.label, soup.annotation) for soup in soups]
    rows += [
        (name, said[each.digest])
        for name, each in context.sweep.ingredients.items()
        if each.digest in said
    ]
    return [row for row in rows if row[1].note or row[1].tags or row[1].starred]


def section(rows: Sequence[Row]) -> str:
    """Return the section: a table of the notes."""
    lines: list[list[html.Part]] = [
        [f"{'★ ' if said.starred else ''}{name}", ", ".join(said.tags), said.note]
        for name, said in rows
    ]
    return html.table(["name", "tags", "note"], lines, left=3)
