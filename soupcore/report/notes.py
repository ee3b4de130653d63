"""The users' annotations of the soups and ingredients of a sweep."""

from collections.abc import Sequence

from soupcore.calls import Context
from soupcore.report import html
from soupcore.store.soups import Annotation, annotations
from soupcore.stored_soups import StoredSoup

Row = tuple[str, Annotation]


def notes(context: Context, soups: Sequence[StoredSoup]) -> list[Row]:
    """Return the starred, tagged or annotated soups and ingredients: names and annotations.

    Args:
        context: The sweep.
        soups: Its soups.
    """
    found = annotations(context.store, [each.digest for each in context.sweep.ingredients.values()])
    rows = [(soup.label, soup.annotation) for soup in soups]
    rows += [
        (name, found[each.digest])
        for name, each in context.sweep.ingredients.items()
        if each.digest in found
    ]
    return [row for row in rows if row[1].note or row[1].tags or row[1].starred]


def section(rows: Sequence[Row]) -> str:
    """Return the section: a table of the notes."""
    lines: list[list[html.Part]] = [
        [f"{'★ ' if each.starred else ''}{name}", ", ".join(each.tags), each.note]
        for name, each in rows
    ]
    return html.table(["name", "tags", "note"], lines, left=3)
