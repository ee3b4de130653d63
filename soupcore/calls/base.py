"""What a call is: a long computation with its arguments, as JSON.

A worker does its work, a page reads its result, the queue keeps its arguments.
"""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

from soupcore.errors import StockpotError, TaskError
from soupcore.evaluation import Evaluations, Evaluator
from soupcore.mixtures import Mixture
from soupcore.progress import Progress
from soupcore.recipes import Soup
from soupcore.store import Store
from soupcore.stored_soups import StoredSoup, StoredSoups
from soupcore.sweeps import Sweep, TensorRule
from soupcore.tasks import TaskInfo

Result = dict[str, Any]
Keep = Callable[[Result], None]

_KEEP_EVERY = 1.0  # seconds between two writes of a result that grows


class Report(Protocol):
    """Takes the progress of a call; raises to stop it."""

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        """Take the units of work done and in total, and the results so far."""
        ...


@dataclass(frozen=True)
class Context:
    """A sweep and the evaluations of a task on it.

    Attributes:
        sweep: The sweep; soups of the store may be among its ingredients.
        source: The evaluations of a task, an `Evaluator` to run calls; only the store if there is
            no task.
        folder: The folder of the sweep, as jobs and stored soups name it.
        task_spec: The task, `path/to/file.py:attribute`; "" for none.
        included: The soups among the ingredients of the sweep, by their names there.
    """

    sweep: Sweep
    source: Evaluations | Store
    folder: str = ""
    task_spec: str = ""
    included: Mapping[str, StoredSoup] = field(default_factory=dict)

    @property
    def has_task(self) -> bool:
        """Whether there is a task. Without one there are no evaluations."""
        return isinstance(self.source, Evaluations)

    @property
    def evaluations(self) -> Evaluations:
        """The evaluations of the task.

        Raises:
            TaskError: There is no task.
        """
        if not isinstance(self.source, Evaluations):
            raise TaskError("This needs evaluations, and the sweep is open without a task.")
        return self.source

    @property
    def store(self) -> Store:
        """The store of results and soups."""
        return self.source.store if isinstance(self.source, Evaluations) else self.source

    @property
    def evaluator(self) -> Evaluator:
        """The evaluations, as an evaluator.

        Raises:
            TaskError: There is no task.
            TypeError: They can only be read.
        """
        if not isinstance(self.evaluations, Evaluator):
            raise TypeError("A call is run with an Evaluator.")
        return self.evaluations

    @property
    def task(self) -> TaskInfo[Any]:
        """The task, or its description."""
        return self.evaluations.task

    @cached_property
    def soups(self) -> StoredSoups:
        """The soups of the store that can be made of the sweep."""
        return StoredSoups(self.store, self.sweep)

    @property
    def offered(self) -> dict[str, str]:
        """The ids of the soups among the ingredients, `{name: id}`."""
        return {name: stored.soup.id for name, stored in self.included.items()}

    def mixtures(self, names: Iterable[str]) -> list[Mixture]:
        """Return where ingredients lie, with the tensors that take part in recipes.

        Raises:
            SweepError: There is no such ingredient.
        """
        named = list(names)
        sweep = self.sweep.for_recipe(named, uses_base=False)
        return [sweep[name].mixture for name in named]

    def keep_soup(self, soup: Soup, offered: Mapping[str, str]) -> str:
        """Keep a soup in the store and return its id.

        Args:
            soup: The soup.
            offered: `{name: id}` of all soups that its recipe could take.
        """
        body = soup.to_json() | {"task": self.task_spec or None, "offered": dict(offered)}
        self.store.add_soup(soup.id, self.folder, body)
        return soup.id


@dataclass(frozen=True)
class Call(ABC):
    """A long computation and its arguments, all of them JSON."""

    #: What jobs and results of the computation are called.
    kind: ClassVar[str]

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Self:
        """Make a call of a job's request, which may say more than the arguments.

        Raises:
            StockpotError: The request lacks an argument, as one of another version may.
        """
        told = {each.name: request[each.name] for each in fields(cls) if each.name in request}
        needed = [each.name for each in fields(cls) if _default(each) is MISSING]
        if missing := [name for name in needed if name not in told]:
            raise StockpotError(
                f"This job ({cls.kind}) lacks {', '.join(missing)}. Another version of Stockpot "
                "queued it; start it again from its page."
            )
        return cls(**{name: _frozen(value) for name, value in told.items()})

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments, as JSON has them, without those that have their default."""
        defaults = {each.name: _default(each) for each in fields(self)}
        told = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        found: dict[str, Any] = json.loads(json.dumps(told))
        return found

    @abstractmethod
    def work(self, context: Context, report: Report) -> Result:
        """Compute what is missing and keep it in the store.

        Args:
            context: The sweep and an evaluator.
            report: Called with units of work done and in total; raise in it to stop.

        Returns:
            What the job tells of its result; the results themselves are in the store.
        """


@dataclass(frozen=True)
class StoredCall(Call):
    """A call whose result is a row of the store.

    Its key covers the weights, the task, the data and the arguments.
    """

    @abstractmethod
    def points(self, context: Context) -> list[Mixture]:
        """Return the points that the result depends on."""

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the splits that the result depends on; by default, all that results are for."""
        return task.reported

    @abstractmethod
    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Compute the result.

        Args:
            context: The sweep and an evaluator.
            on_progress: Called with units done and in all; raise in it to stop.
            keep: Called with the result so far, if it grows.
        """

    def key(self, context: Context) -> str:
        """Return the identity of the result: 64 hex digits."""
        evaluations = context.evaluations
        estimate = evaluations.estimate
        told = [
            self.kind,
            self.arguments,
            [point.key for point in self.points(context)],
            context.task.key,
            [context.task.split(name).digest for name in self.split_names(context.task)],
            estimate.key if estimate else "",
        ]
        if context.sweep.rule != TensorRule():
            told.append(context.sweep.rule.to_json())
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def result(self, context: Context) -> Result | None:
        """Return the complete result; None if it has not been computed."""
        row = context.evaluations.store.result(self.key(context))
        return row.body if row is not None and row.settled else None

    def known(self, context: Context) -> Result | None:
        """Return the result so far, complete or not; None if there is none."""
        row = context.evaluations.store.result(self.key(context))
        return row.body if row is not None else None

    def run_and_keep(self, context: Context, on_progress: Progress) -> Result:
        """Compute the result and keep it in the store, parts of it as they come."""
        store, key = context.evaluations.store, self.key(context)
        kept = 0.0

        def keep(so_far: Result) -> None:
            nonlocal kept
            if time.monotonic() - kept >= _KEEP_EVERY:
                store.add_result(key, self.kind, so_far, settled=False)
                kept = time.monotonic()

        found = self.run(context, on_progress, keep)
        store.add_result(key, self.kind, found)
        return found

    def work(self, context: Context, report: Report) -> Result:
        """Compute the result and keep it; see `Call.work`."""
        self.run_and_keep(context, report)
        return {}


@dataclass(frozen=True)
class OfIngredients(StoredCall):
    """A call about some ingredients of the sweep."""

    names: tuple[str, ...]

    def points(self, context: Context) -> list[Mixture]:
        """Return the ingredients."""
        return context.mixtures(self.names)


def _default(argument: Any) -> Any:
    if argument.default_factory is not MISSING:
        return argument.default_factory()
    return argument.default


def _frozen(value: Any) -> Any:
    """Return a value of JSON with tuples for lists."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
