"""The context of a call: a sweep, how jobs open it, and the evaluations of a task on it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from soupcore.calls.code import Code, including_soups, options, source, with_tensors
from soupcore.errors import TaskError
from soupcore.evaluation import Evaluations, Evaluator, StatisticsChoice
from soupcore.mixtures import Mixture
from soupcore.recipes import Soup
from soupcore.store import Store
from soupcore.stored_soups import StoredSoup, StoredSoups, including
from soupcore.sweeps import Sweep, TensorRule
from soupcore.sweeps.snapshots import Snapshots, Weights
from soupcore.tasks import TaskInfo


@dataclass(frozen=True)
class OpenSweep:
    """How a sweep is opened: a job of its own, and a part of the request of every call.

    Attributes:
        folder: The folder of the sweep.
        weights: The weight set of checkpoints with several; see `Sweep.from_folder`.
        snapshot: The snapshot of runs with several; see `Sweep.from_folder`.
        refresh: Whether to reopen it, and resolve its URLs again.
    """

    #: Name of the kind of jobs.
    kind: ClassVar[str] = "open"

    folder: str
    weights: Weights = ""
    snapshot: Snapshots = ""
    refresh: bool = False

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> "OpenSweep":
        """Return how the sweep of a job's request is opened; the request may have more keys."""
        return cls(
            request["sweep"],
            request.get("weights", ""),
            request.get("snapshot", ""),
            bool(request.get("refresh")),
        )

    @property
    def request(self) -> dict[str, Any]:
        """The part of a job's request that opens the sweep, as JSON."""
        request: dict[str, Any] = {"sweep": self.folder, "weights": self.weights}
        if self.snapshot:
            request["snapshot"] = self.snapshot
        if self.refresh:
            request["refresh"] = True
        return request


@dataclass(frozen=True)
class Context:
    """A sweep and the evaluations of a task on it.

    Attributes:
        sweep: The sweep; its ingredients may include stored soups.
        source: The evaluations of a task, or an `Evaluator` to run calls; the store if there is no
            task.
        folder: The folder of the sweep in jobs and stored soups.
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
            raise TaskError("This needs evaluations, but the sweep is open without a task.")
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
            TypeError: The context has stored evaluations only.
        """
        if not isinstance(self.evaluations, Evaluator):
            raise TypeError("Running a call needs an Evaluator.")
        return self.evaluations

    @property
    def task(self) -> TaskInfo[Any]:
        """The task, or its description."""
        return self.evaluations.task

    @cached_property
    def soups(self) -> StoredSoups:
        """The stored soups of the sweep."""
        return StoredSoups(self.store, self.sweep, self.included)

    @property
    def offered(self) -> dict[str, str]:
        """The ids of the soups among the ingredients, `{name: id}`."""
        return {name: stored.soup.id for name, stored in self.included.items()}

    def including(self, soups: Mapping[str, StoredSoup]) -> Self:
        """Return the context with soups added as ingredients, except those already included."""
        more = {name: soup for name, soup in soups.items() if name not in self.included}
        sweep, included = including(self.sweep, more), {**self.included, **more}
        return replace(self, sweep=sweep, included=included)

    def with_statistics(self, statistics: StatisticsChoice) -> Self:
        """Return the context with other BatchNorm statistics."""
        return replace(self, source=self.evaluations.with_statistics(statistics))

    def with_primary(self, metric: str | None) -> Self:
        """Return the context with another primary metric of the task; None for its first."""
        return replace(self, source=self.evaluations.with_primary(metric))

    def with_tensors(self, rule: TensorRule) -> Self:
        """Return the context with a rule on which tensors take part in recipes.

        Raises:
            SweepError: The rule makes no sense for these tensors.
        """
        return replace(self, sweep=self.sweep.with_tensors(rule.take, rule.rest))

    def mixtures(self, names: Iterable[str]) -> list[Mixture]:
        """Return the points of ingredients, under the rule on tensors.

        Raises:
            SweepError: There is no such ingredient.
        """
        named = list(names)
        sweep = self.sweep.for_recipe(named, uses_base=False)
        return [sweep[name].mixture for name in named]

    def keep_soup(self, soup: Soup, offered: Mapping[str, str]) -> str:
        """Store a soup and return its id.

        Args:
            soup: The soup.
            offered: `{name: id}` of all soups among the ingredients.
        """
        body = soup.to_json() | {"task": self.task_spec or None, "offered": dict(offered)}
        self.store.add_soup(soup.id, self.folder, body)
        return soup.id

    @property
    def sweep_code(self) -> str:
        """Python that opens the sweep, without the soups among its ingredients."""
        opened = {"weights": self.sweep.weights, "snapshot": self.sweep.snapshot}
        arguments = options({name: value for name, value in opened.items() if value})
        if self.sweep.urls:
            return f"soupcore.Sweep.from_urls({list(self.sweep.urls)!r}{arguments})"
        return f"soupcore.Sweep.from_folder({self.folder!r}{arguments})"

    def script(self, *code: Code) -> str:
        """Return a complete Python script: it opens the sweep and the task, then runs the code.

        Without a task, it opens the sweep only.
        """
        whole = sum(code, start=Code(""))
        opening = f"sweep = {self.sweep_code}\n"
        if self.has_task:
            opening += f"task = soupcore.load_task({self.task_spec!r})"
            primary = self.task.primary
            opening += "\n" if primary is None else f".with_primary({primary!r})\n"
            opening += "evaluator = soupcore.Evaluator(task)\n"
            if self.evaluations.estimate is not None:
                opening += 'evaluator = evaluator.with_statistics("re-estimated")\n'
        if self.included:
            opening += f"sweep = {including_soups(self.included, indent=4)}\n"
        if self.sweep.rule != TensorRule():
            opening += f"sweep = sweep{with_tensors(self.sweep.rule)}\n"
        return source(Code(f"{opening}\n{whole.body}", whole.imports))
