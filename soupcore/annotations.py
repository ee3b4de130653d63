"""What users say of soups and ingredients: a name, a note, tags, a star.

Annotations are rows of the workspace's database. A soup is identified by its id, an ingredient by
the digest of its weights, so they stay with the weights when files move. A deleted soup keeps its
row in the store and can be restored.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from soupcore.database import AnnotationRow
from soupcore.errors import StoreError
from soupcore.store import Store

LONGEST_NAME = 80  #: characters of a name or a tag
LONGEST_NOTE = 10_000
MOST_TAGS = 20


@dataclass(frozen=True)
class Annotation:
    """What users say of a soup or an ingredient.

    Attributes:
        name: The name that replaces the default name of a soup; "" for the default.
        note: Text of any number of lines.
        tags: Short texts, without duplicates.
        starred: Whether it has a star.
        deleted: When a soup was deleted, in seconds since 1970; None if it was not.
    """

    name: str = ""
    note: str = ""
    tags: tuple[str, ...] = ()
    starred: bool = False
    deleted: float | None = None


def annotations(store: Store, subjects: Iterable[str]) -> dict[str, Annotation]:
    """Return the annotations of soups and ingredients, without those that have none.

    Args:
        store: The store.
        subjects: Ids of soups and digests of ingredients.
    """
    return {
        row.subject: Annotation(
            row.name, row.note, tuple(row.tags.splitlines()), row.starred, row.deleted
        )
        for row in store.annotations([*subjects])
    }


def annotate(
    store: Store,
    subject: str,
    *,
    name: str | None = None,
    note: str | None = None,
    tags: Iterable[str] | None = None,
    starred: bool | None = None,
) -> Annotation:
    """Change the annotation of a soup or an ingredient; None leaves a field unchanged.

    Args:
        store: The store.
        subject: Id of the soup or digest of the ingredient.
        name: The name, of at most 80 characters; "" for the default name.
        note: The note, of at most 10,000 characters.
        tags: At most 20 tags of at most 80 characters.
        starred: Whether it has a star.

    Returns:
        The annotation after the change.

    Raises:
        StoreError: A text is too long, or there are too many tags.
        ReadOnlyError: The workspace cannot be written.
    """
    known = annotations(store, [subject]).get(subject, Annotation())
    changed = known
    if name is not None:
        changed = replace(changed, name=_one_line(name, "The name"))
    if note is not None:
        if len(note) > LONGEST_NOTE:
            raise StoreError(f"The note has {len(note):,} characters; shorten it to 10,000.")
        changed = replace(changed, note=note.strip())
    if tags is not None:
        named = (_one_line(tag, "The tag") for tag in tags)
        changed = replace(changed, tags=tuple(dict.fromkeys(tag for tag in named if tag)))
        if len(changed.tags) > MOST_TAGS:
            raise StoreError(f"There are {len(changed.tags)} tags; keep at most {MOST_TAGS}.")
    if starred is not None:
        changed = replace(changed, starred=starred)
    if changed != known:
        _put(store, subject, changed)
    return changed


def delete_soup(store: Store, soup_id: str) -> None:
    """Mark a soup as deleted: it is listed no more, and `restore_soup` undoes it.

    Its evaluations stay, and soups that were made of it too. Its written weights count as unused
    after 30 days (see `soupcore.maintenance`).
    """
    known = annotations(store, [soup_id]).get(soup_id, Annotation())
    _put(store, soup_id, replace(known, deleted=time.time()))


def restore_soup(store: Store, soup_id: str) -> None:
    """Undo `delete_soup`."""
    known = annotations(store, [soup_id]).get(soup_id, Annotation())
    _put(store, soup_id, replace(known, deleted=None))


def unique_names(wanted: Mapping[str, str], taken: Collection[str] = ()) -> dict[str, str]:
    """Return a distinct name for each item, `{id: name}`.

    If several items want the same name, or it is taken, the start of the id is appended to it.

    Args:
        wanted: `{id: name}`.
        taken: Names of others.
    """
    counts = Counter(wanted.values())
    made: dict[str, str] = {}
    used = set(taken)
    # Names that are unique by themselves come first: no other name may take them.
    for key, name in wanted.items():
        if counts[name] == 1 and name not in used:
            made[key] = name
    used |= set(made.values())
    for key, name in wanted.items():
        if key in made:
            continue
        made[key] = f"{name} ({key[:4]})"
        if made[key] in used:
            made[key] = f"{name} ({key})"
        while made[key] in used:  # a user may give any name
            made[key] += "'"
        used.add(made[key])
    return {key: made[key] for key in wanted}


def _one_line(text: str, what: str) -> str:
    line = " ".join(text.split())
    if len(line) > LONGEST_NAME:
        raise StoreError(f"{what} has {len(line)} characters; shorten it to {LONGEST_NAME}.")
    return line


def _put(store: Store, subject: str, annotation: Annotation) -> None:
    store.put_annotation(
        AnnotationRow(
            subject=subject,
            name=annotation.name,
            note=annotation.note,
            tags="\n".join(annotation.tags),
            starred=annotation.starred,
            deleted=annotation.deleted,
        )
    )
