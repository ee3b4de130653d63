"""Soups rebuilt from the store; a soup may be an ingredient of another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from soupcore.errors import RecipeError, StockpotError
from soupcore.evaluation import Estimate
from soupcore.recipes import Soup
from soupcore.store import Store
from soupcore.sweeps import Sweep


@dataclass(frozen=True)
class StoredSoup:
    """A soup rebuilt from its row in the store.

    Attributes:
        soup: The soup.
        sweep: The sweep, including the soups that are ingredients of this one.
        soups: `{name: soup}` of the ingredients that are soups.
        offered: `{name: id}` of all soups that the recipe could choose from.
    """

    soup: Soup
    sweep: Sweep
    soups: Mapping[str, "StoredSoup"] = field(default_factory=dict)
    offered: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Display name: the recipe and the first four digits of the id."""
        return soup_label(self.soup.recipe, self.soup.id)


class StoredSoups:
    """The soups of a store that use the checkpoints of a sweep. Each is rebuilt once.

    Args:
        store: Store of the soups.
        sweep: The sweep with the ingredients that are files.
    """

    def __init__(self, store: Store, sweep: Sweep) -> None:
        self._store = store
        self._sweep = sweep
        self._made: dict[str, StoredSoup] = {}

    def __getitem__(self, soup_id: str) -> StoredSoup:
        """Return a soup by its id.

        Raises:
            RecipeError: The store has no such soup, or it cannot be rebuilt.
            SweepError: An ingredient is not in the sweep.
        """
        if soup_id in self._made:
            return self._made[soup_id]
        row = self._store.soup(soup_id)
        if row is None:
            raise RecipeError(f"There is no soup {soup_id!r} in the store.")
        return self.make(soup_id, row.body)

    def make(self, soup_id: str, body: Mapping[str, Any]) -> StoredSoup:
        """Rebuild a soup from the body of its row; see `__getitem__`."""
        if soup_id not in self._made:
            offered = body.get("offered", {})
            # Soups that the recipe did not use are not needed. They may even contain this soup.
            used = {name: other for name, other in offered.items() if name in body["digests"]}
            soups = self.by_name(used)
            sweep = including(self._sweep, soups)
            self._made[soup_id] = StoredSoup(Soup.from_json(sweep, body), sweep, soups, offered)
        return self._made[soup_id]

    def of_task(self, folder: str, task_spec: str, estimate: Estimate | None) -> list[StoredSoup]:
        """Return the soups of a sweep and a task, oldest first.

        Soups of missing ingredients are left out, since their weights cannot be computed, and so
        are soups whose recipe gives other weights in this version.

        Args:
            folder: The folder of the sweep, as it was when the soups were stored.
            task_spec: The task, in the same way; see `is_of_task`.
            estimate: The BatchNorm statistics of the soups to return.
        """
        found = []
        for row in self._store.soups(folder):
            if not is_of_task(row.body, task_spec):
                continue
            try:
                stored = self.make(row.id, row.body)
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
    """Return whether a soup of the store is shown with a task; "" for none, which shows them all.

    A soup that was built without a task is shown with every task.
    """
    return not task_spec or body["task"] in (task_spec, None)


def soup_label(recipe: str, soup_id: str) -> str:
    """Return a soup's display name: the recipe and the first four digits of the id."""
    return f"{recipe} {soup_id[:4]}"
