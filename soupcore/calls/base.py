"""The base classes of calls: long computations and their arguments, as JSON.

The queue stores the arguments, a worker runs the call, and a page reads its result and shows its
Python code.
"""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Protocol, Self

from soupcore.calls.code import Code, soup_again
from soupcore.calls.context import Context
from soupcore.errors import StockpotError
from soupcore.mixtures import Mixture
from soupcore.progress import Progress
from soupcore.stored_soups import StoredSoup
from soupcore.sweeps import TensorRule
from soupcore.tasks import TaskInfo

Result = dict[str, Any]
Keep = Callable[[Result], None]

_KEEP_EVERY = 1.0  # seconds between two writes of a partial result


class Report(Protocol):
    """Receives the progress of a call; raises to stop it."""

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        """Receive the units of work done and in total, and the results so far."""
        ...


@dataclass(frozen=True)
class Call(ABC):
    """A long computation and its arguments, all of them JSON."""

    #: Name of the kind of jobs and results.
    kind: ClassVar[str]

    #: Whether idle workers may evaluate some of its points; see `share`.
    is_shared: ClassVar[bool] = False

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Self:
        """Return the call of a job's request, which may have more keys than the arguments.

        Raises:
            StockpotError: The request lacks an argument, for example if another version queued it.
        """
        given = {each.name: request[each.name] for each in fields(cls) if each.name in request}
        needed = [each.name for each in fields(cls) if _default(each) is MISSING]
        if missing := [name for name in needed if name not in given]:
            raise StockpotError(
                f"This job ({cls.kind}) lacks {', '.join(missing)}. Another version of Stockpot "
                "queued it; start it again from its page."
            )
        return cls(**{name: _frozen(value) for name, value in given.items()})

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments as JSON values, without those equal to their default."""
        defaults = {each.name: _default(each) for each in fields(self)}
        given = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        found: dict[str, Any] = json.loads(json.dumps(given))
        return found

    @abstractmethod
    def code(self, context: Context) -> Code:
        """Return Python code that computes the same with the library.

        Args:
            context: The sweep; see `opened`.
        """

    def opened(self, context: Context) -> Context:
        """Return the context of the code, which may have additional ingredients."""
        return context

    def script(self, context: Context, *more: Code) -> str:
        """Return a complete Python script that computes the same.

        Args:
            context: The sweep and the task.
            more: Code to append, such as that of a figure.
        """
        return self.opened(context).script(self.code(context), *more)

    @abstractmethod
    def work(self, context: Context, report: Report) -> Result:
        """Compute and store missing results.

        Args:
            context: The sweep and an evaluator.
            report: Called with units of work done and in total; raise in it to stop.

        Returns:
            Result of the job, as JSON; evaluations and soups are in the store.
        """

    def share(self, context: Context, report: Report) -> None:
        """Evaluate points of the call while another worker runs it.

        Each point is claimed before it is evaluated (see `soupcore.evaluation.claims`), so the
        workers share the points.

        Args:
            context: The sweep and an evaluator.
            report: Called with units of work done and in total; raise in it to stop.
        """
        self.work(context, report)


@dataclass(frozen=True)
class StoredCall(Call):
    """A call whose result is a row of the store.

    Its key covers the weights, the task, the data and the arguments.
    """

    @abstractmethod
    def points(self, context: Context) -> list[Mixture]:
        """Return the points that the result depends on."""

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the splits that the result depends on; by default, all reported ones."""
        return task.reported

    @abstractmethod
    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Compute the result.

        Args:
            context: The sweep and an evaluator.
            on_progress: Called with units of work done and in total; raise in it to stop.
            keep: Called with partial results, if any.
        """

    def key(self, context: Context) -> str:
        """Return the identity of the result: 64 hex digits."""
        evaluations = context.evaluations
        estimate = evaluations.estimate
        parts = [
            self.kind,
            self.arguments,
            [point.key for point in self.points(context)],
            context.task.results_key,
            [context.task.split(name).digest for name in self.split_names(context.task)],
            estimate.key if estimate else "",
        ]
        if context.sweep.rule != TensorRule():
            parts.append(context.sweep.rule.to_json())
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def result(self, context: Context) -> Result | None:
        """Return the complete result; None if it has not been computed."""
        row = context.evaluations.store.result(self.key(context))
        return row.body if row is not None and row.settled else None

    def known(self, context: Context) -> Result | None:
        """Return the result so far, complete or not; None if there is none."""
        row = context.evaluations.store.result(self.key(context))
        return row.body if row is not None else None

    def run_and_keep(self, context: Context, on_progress: Progress) -> Result:
        """Compute and store the result, including partial results."""
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
        """Compute and store the result; see `Call.work`."""
        self.run_and_keep(context, report)
        return {}


@dataclass(frozen=True)
class OfSoup(Call):
    """A call about a stored soup."""

    soup: str

    def stored(self, context: Context) -> StoredSoup:
        """Return the soup.

        Raises:
            RecipeError: The soup was deleted, or it cannot be rebuilt.
        """
        return context.soups[self.soup]

    def opened(self, context: Context) -> Context:
        """Return the context with the soups among the soup's ingredients."""
        return context.including(self.stored(context).soups)

    def soup_code(self, context: Context) -> Code:
        """Return Python that rebuilds the soup, as `soup`."""
        return Code(f"soup = {soup_again(self.stored(context).soup)}\n")


@dataclass(frozen=True)
class OfIngredients(StoredCall):
    """A call about some ingredients of the sweep."""

    names: tuple[str, ...]

    def points_code(self, context: Context) -> Code:
        """Return Python for the points of the ingredients by name, as `points`."""
        names, sweep = list(self.names), "sweep"
        if context.sweep.rule != TensorRule():
            sweep = f"sweep.for_recipe({names!r}, uses_base=False)"
        return Code(f"points = {{name: {sweep}[name].mixture for name in {names!r}}}\n")

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
