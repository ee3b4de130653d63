"""Soups in the store: how they were made, their written weights, and annotations.

An annotation is a name, a note, tags and a star that users give to a soup or an ingredient. It
refers to a soup by its id and to an ingredient by the digest of its weights, so it stays with the
weights when files move. A deleted soup keeps its row in the store and can be restored.
"""

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from soupcore.errors import StoreError
from soupcore.store.rows import RowStore, batches
from soupcore.store.tables import AnnotationRow, SoupFileRow, SoupRow

LONGEST_NAME = 80  #: characters of a name or a tag
LONGEST_NOTE = 10_000
MOST_TAGS = 20


@dataclass(frozen=True)
class Annotation:
    """The name, note, tags and star that users gave to a soup or an ingredient.

    Attributes:
        name: The name that replaces the default name of a soup; "" for the default.
        note: Text of any number of lines.
        tags: Short texts, without duplicates.
        starred: Whether it has a star.
        deleted: Time at which a soup was deleted, in seconds since 1970; None if it is not deleted.
    """

    name: str = ""
    note: str = ""
    tags: tuple[str, ...] = ()
    starred: bool = False
    deleted: float | None = None


class SoupStore(RowStore):
    """The part of a `Store` for soups."""

    def add_soup(self, soup_id: str, sweep: str, body: Mapping[str, Any]) -> None:
        """Store a soup, replacing an earlier one with the same id; undoes its deletion."""
        self.put(SoupRow(id=soup_id, sweep=sweep, body=dict(body), created=time.time()))
        with self.session() as session, session.begin():
            annotation = session.get(AnnotationRow, soup_id)
            if annotation is not None:
                annotation.deleted = None

    def soup(self, soup_id: str) -> SoupRow | None:
        """Return a soup by its id, or None if there is none."""
        with self.session() as session:
            return session.get(SoupRow, soup_id)

    def soups(self, sweep: str) -> list[SoupRow]:
        """Return the soups of a sweep, oldest first."""
        with self.session() as session:
            query = select(SoupRow).where(SoupRow.sweep == sweep).order_by(SoupRow.created)
            return list(session.scalars(query))

    def remove_soup(self, soup_id: str) -> None:
        """Delete a soup, its annotation and its written weights; its evaluations stay."""
        if self.soup(soup_id) is None:
            return
        with self.session() as session, session.begin():
            session.execute(delete(AnnotationRow).where(AnnotationRow.subject == soup_id))
            session.execute(delete(SoupFileRow).where(SoupFileRow.soup == soup_id))
            session.execute(delete(SoupRow).where(SoupRow.id == soup_id))
        shutil.rmtree(self.folder / "soups" / soup_id, ignore_errors=True)

    def soup_folder(self, soup_id: str, form: str) -> Path:
        """Return the folder for a soup's weights in one form; it may not exist yet."""
        return self.folder / "soups" / soup_id / form

    def add_soup_files(self, soup_id: str, form: str, sha256s: Mapping[str, str]) -> None:
        """Register the files that hold a soup's weights in one form, replacing earlier entries.

        Args:
            soup_id: The soup's id.
            form: The form; see `soup_folder`.
            sha256s: `{name: SHA-256}` of the files in `soup_folder(soup_id, form)`.
        """
        folder = self.soup_folder(soup_id, form)
        rows = [
            SoupFileRow(
                soup=soup_id,
                form=form,
                name=name,
                sha256=sha256,
                nbytes=(folder / name).stat().st_size,
                stamp=_stamp(folder / name),
            )
            for name, sha256 in sha256s.items()
        ]
        try:
            self._replace_soup_files(soup_id, form, rows)
        except IntegrityError:  # another process inserted them after our delete
            self._replace_soup_files(soup_id, form, rows)

    def soup_files(self, soup_id: str, form: str) -> list[SoupFileRow]:
        """Return the files of a soup in one form; empty unless all of them exist and are intact.

        If a file's size or times have changed, its SHA-256 is computed again. If it differs, the
        entries of all files of this form are deleted.
        """
        with self.session() as session:
            query = (
                select(SoupFileRow)
                .where(SoupFileRow.soup == soup_id, SoupFileRow.form == form)
                .order_by(SoupFileRow.name)
            )
            rows = list(session.scalars(query))
        folder = self.soup_folder(soup_id, form)
        stamps = {row.name: _stamp(folder / row.name) for row in rows}
        if not all(stamps.values()):
            return []
        changed = [row for row in rows if row.stamp != stamps[row.name]]
        for row in changed:
            path = folder / row.name
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != row.sha256:
                self._note(f"{path} is damaged. Prepare the weights of the soup again.")
                if not self.is_read_only:
                    self._replace_soup_files(soup_id, form, [])
                return []
            row.stamp = stamps[row.name]
        if changed and not self.is_read_only:
            self.put(*changed)
        return rows

    def _replace_soup_files(self, soup_id: str, form: str, rows: Sequence[SoupFileRow]) -> None:
        with self.session() as session, session.begin():
            session.execute(
                delete(SoupFileRow).where(SoupFileRow.soup == soup_id, SoupFileRow.form == form)
            )
            for row in rows:
                session.merge(row)


def annotations(store: RowStore, subjects: Iterable[str]) -> dict[str, Annotation]:
    """Return the annotations of soups and ingredients that have one, `{subject: annotation}`.

    Args:
        store: The store.
        subjects: Ids of soups and digests of ingredients.
    """
    with store.session() as session:
        return {
            row.subject: Annotation(
                row.name, row.note, tuple(row.tags.splitlines()), row.starred, row.deleted
            )
            for some in batches([*subjects])
            for row in session.scalars(select(AnnotationRow).where(AnnotationRow.subject.in_(some)))
        }


def annotate(
    store: RowStore,
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
            raise StoreError(
                f"The note has {len(note):,} characters; shorten it to {LONGEST_NOTE:,}."
            )
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


def delete_soup(store: RowStore, soup_id: str) -> None:
    """Mark a soup as deleted, so that it is not listed any more; `restore_soup` undoes it.

    Its evaluations stay, and so do soups that contain it. Its written weights count as unused
    after 30 days (see `soupcore.maintenance`).
    """
    known = annotations(store, [soup_id]).get(soup_id, Annotation())
    _put(store, soup_id, replace(known, deleted=time.time()))


def restore_soup(store: RowStore, soup_id: str) -> None:
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


def _put(store: RowStore, subject: str, annotation: Annotation) -> None:
    store.put(
        AnnotationRow(
            subject=subject,
            name=annotation.name,
            note=annotation.note,
            tags="\n".join(annotation.tags),
            starred=annotation.starred,
            deleted=annotation.deleted,
        )
    )


def _stamp(path: Path) -> str | None:
    """Return a string that changes when the file does, or None if the file does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
