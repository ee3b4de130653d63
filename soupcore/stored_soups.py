"""Soups rebuilt from the store; a soup may be an ingredient of another."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from soupcore.display import counted
from soupcore.errors import RecipeError, StockpotError
from soupcore.evaluation import Estimate
from soupcore.recipes import RECIPES, Soup
from soupcore.store import Store
from soupcore.store.soups import Annotation, annotations, unique_names
from soupcore.store.tables import SoupRow
from soupcore.sweeps import Sweep


@dataclass(frozen=True)
class StoredSoup:
    """A soup rebuilt from its row in the store.

    Attributes:
        soup: The soup.
        sweep: The sweep, including the soups that are ingredients of this one.
        soups: `{name: soup}` of the ingredients that are soups.
        offered: `{name: id}` of all soups that the recipe was given as ingredients.
        label: Display name, different from those of the other soups and the ingredients of the
            sweep: the name that a user gave, or a default such as "Greedy · 3 of 15".
        annotation: Name, note, tags and star of the soup.
        created: Time at which it was built, in seconds since 1970.
    """

    soup: Soup
    sweep: Sweep
    soups: Mapping[str, "StoredSoup"] = field(default_factory=dict)
    offered: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    annotation: Annotation = field(default_factory=Annotation)
    created: float = 0.0

    def __post_init__(self) -> None:
        """Use the handle if there is no label."""
        if not self.label:
            object.__setattr__(self, "label", self.handle)

    @property
    def handle(self) -> str:
        """A name that users cannot change: the recipe and the first four digits of the id.

        It names the soup as an ingredient of other soups, and in URLs.
        """
        return _handle(self.soup.recipe, self.soup.id)


class StoredSoups:
    """The soups of a store that use the checkpoints of a sweep. Each is rebuilt once.

    Args:
        store: Store of the soups.
        sweep: The sweep with the ingredients that are files.
        added: Names of ingredients of the sweep that are no files, but soups.
    """

    def __init__(self, store: Store, sweep: Sweep, added: Collection[str] = ()) -> None:
        self._store = store
        self._sweep = sweep
        self._files = [name for name in sweep.ingredients if name not in added]
        self._rebuilt: dict[str, StoredSoup] = {}
        self._annotations: dict[str, Annotation] = {}
        self._labels: dict[str, str] = {}

    def __getitem__(self, soup_id: str) -> StoredSoup:
        """Return a soup by its id, even if a user deleted it.

        Raises:
            RecipeError: The store has no such soup, or it cannot be rebuilt.
            SweepError: An ingredient is not in the sweep.
        """
        if soup_id in self._rebuilt:
            return self._rebuilt[soup_id]
        row = self._store.soup(soup_id)
        if row is None:
            raise RecipeError(f"There is no soup {soup_id!r} in the store.")
        if row.id not in self._labels:
            self.rows(row.sweep)
        return self._make(row)

    def _make(self, row: SoupRow) -> StoredSoup:
        if row.id not in self._rebuilt:
            body = row.body
            offered = body.get("offered", {})
            # Offered soups that the recipe did not use are not needed, and may contain this soup.
            used = {name: other for name, other in offered.items() if name in body["digests"]}
            soups = self.by_name(used)
            sweep = including(self._sweep, soups)
            self._rebuilt[row.id] = StoredSoup(Soup.from_json(sweep, body), sweep, soups, offered)
        # Names and annotations may have changed since it was rebuilt.
        self._rebuilt[row.id] = replace(
            self._rebuilt[row.id],
            label=self._labels.get(row.id, ""),
            annotation=self._annotations.get(row.id, Annotation()),
            created=row.created,
        )
        return self._rebuilt[row.id]

    def rows(self, folder: str) -> list[SoupRow]:
        """Return the rows of the soups of a sweep that are not deleted, oldest first."""
        rows = self._store.soups(folder)
        self._annotations |= annotations(self._store, [row.id for row in rows])
        found = {row.id: self._annotations.get(row.id, Annotation()) for row in rows}
        kept = [row for row in rows if found[row.id].deleted is None]
        # Soups with different BatchNorm statistics are never shown together, so their names may be
        # the same.
        groups: dict[str, dict[str, str]] = {}
        for row in kept:
            name = found[row.id].name or self._default_name(row.body)
            groups.setdefault(json.dumps(row.body.get("batchnorm")), {})[row.id] = name
        taken = [*self._files, *([self._sweep.base.name] if self._sweep.base else [])]
        for wanted in groups.values():
            self._labels |= unique_names(wanted, taken)
        return kept

    def labels(self, folder: str, task_spec: str) -> dict[str, str]:
        """Return the display names of the soups of a sweep and a task, `{handle: name}`."""
        return {
            _handle(row.body["recipe"], row.id): self._labels[row.id]
            for row in self.rows(folder)
            if is_of_task(row.body, task_spec)
        }

    def label(self, soup_id: str) -> str:
        """Return the display name of a soup among those of `rows`; "" if it is unknown."""
        return self._labels.get(soup_id, "")

    def deleted(self, folder: str) -> dict[str, str]:
        """Return the deleted soups of a sweep, `{id: name}`, most recently deleted first."""
        rows = {row.id: row for row in self._store.soups(folder)}
        found = annotations(self._store, [*rows])
        when = {i: each.deleted for i, each in found.items() if each.deleted is not None}
        return {
            soup_id: found[soup_id].name or self._default_name(rows[soup_id].body)
            for soup_id in sorted(when, key=lambda soup_id: -when[soup_id])
        }

    def _default_name(self, body: Mapping[str, Any]) -> str:
        """Return the recipe and the number of ingredients, such as "Greedy · 3 of 15"."""
        coefficients, donors = body.get("coefficients", {}), body.get("donors", ())
        names = [n for n in body["digests"] if n not in donors and n != body["base"]]
        members = [name for name in names if coefficients.get(name) != "0"]
        many = len(members)
        if set(members) <= set(self._files):
            count = f"{many} of {len(self._files)}"
        else:
            count = counted(many, "ingredient")
        return f"{recipe_title(body['recipe'])} · {count}"

    def of_task(self, folder: str, task_spec: str, estimate: Estimate | None) -> list[StoredSoup]:
        """Return the soups of a sweep and a task, oldest first.

        Deleted soups are left out. So are soups of missing ingredients, whose weights cannot be
        computed, and soups whose recipe gives other weights in this version of Stockpot.

        Args:
            folder: The folder of the sweep, as stored with the soups.
            task_spec: The task, as stored with the soups; see `is_of_task`.
            estimate: The BatchNorm statistics of the soups to return.
        """
        found = []
        for row in self.rows(folder):
            if not is_of_task(row.body, task_spec):
                continue
            try:
                stored = self._make(row)
            except StockpotError:
                continue
            if stored.soup.id == row.id and stored.soup.estimate == estimate:
                found.append(stored)
        return found

    def by_name(self, ids: Mapping[str, str]) -> dict[str, StoredSoup]:
        """Return soups that are ingredients, as `{name: soup}`, given `{name: id}`.

        Raises:
            RecipeError: One of them cannot be rebuilt.
        """
        found = {}
        for name, soup_id in ids.items():
            try:
                found[name] = self[soup_id]
            except StockpotError as error:
                raise RecipeError(
                    f"The ingredient {name!r} is a soup that cannot be rebuilt. {error}"
                ) from error
        return found


def including(sweep: Sweep, soups: Mapping[str, StoredSoup]) -> Sweep:
    """Return a sweep with soups as additional ingredients under the given names.

    Raises:
        SweepError: A name is taken.
    """
    more = {name: stored.soup.checkpoint for name, stored in soups.items()}
    return sweep.including(more) if more else sweep


def is_of_task(body: Mapping[str, Any], task_spec: str) -> bool:
    """Return whether a stored soup is shown with a task.

    A soup that was built without a task is shown with every task.

    Args:
        body: The soup, as stored.
        task_spec: The task; "" for none, with which all soups are shown.
    """
    return not task_spec or body["task"] in (task_spec, None)


def recipe_title(recipe: str) -> str:
    """Return the title of a recipe, also of one that is not among `RECIPES`."""
    known = RECIPES.get(recipe)
    return known.title if known else recipe.capitalize()


def _handle(recipe: str, soup_id: str) -> str:
    """Return the handle of a soup; see `StoredSoup.handle`."""
    return f"{recipe} {soup_id[:4]}"
