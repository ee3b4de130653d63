"""A task without its code and data: its splits, its metrics and how scores are written.

A task's file is code, so only workers run it. Readers of results, such as the pages of the app, use
a description of the task, which is JSON.
"""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import mean
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from soupcore.display import html_table
from soupcore.errors import TaskError
from soupcore.tasks.metrics import MetricInfo
from soupcore.tasks.networks import Precision, cast_dtype
from soupcore.tasks.unit import Labels, Unit

Role = Literal["train", "select", "report", "shift"]
OutputKind = Literal["logits", "probabilities"]
Averages = Literal["records", "outputs"]
Undefined = Literal["refuse", "exclude"]


class SplitInfo(Protocol):
    """A split without its data."""

    @property
    def role(self) -> Role:
        """Role of the split (see `Split`)."""
        ...

    @property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits."""
        ...

    @property
    def majority(self) -> float | None:
        """The share of the most frequent class; None if unknown."""
        ...

    @property
    def is_weighted(self) -> bool:
        """Whether examples have weights."""
        ...

    def __len__(self) -> int:
        """Return the number of examples."""
        ...


SplitT = TypeVar("SplitT", bound=SplitInfo, covariant=True)


class TaskInfo(ABC, Generic[SplitT]):
    """Base of a task and its description.

    Attributes:
        name: Name for display.
        splits: `{name: split}`; exactly one has the role `select`.
        metrics: The metrics of the task. The first is primary unless `with_primary` chose another:
            rankings and recipes use it.
    """

    #: Names of the score and the loss.
    score_name: str = "score"
    loss_name: str = "loss"

    #: Range of the score of one example, if bounded. It enables early rejection: a recipe stops
    #: evaluating a candidate that can no longer win. Scores from 0 to 1 are written as percentages.
    score_range: tuple[float, float] | None = None

    #: Kind of the network's outputs if their mean over several networks is again an output:
    #: `logits` or `probabilities` of classes. None otherwise: an ensemble would average losses,
    #: boxes or token counts, and its score would be meaningless.
    output_kind: OutputKind | None = None

    #: What an ensemble averages: the stored records of the examples, without a forward pass; or the
    #: network's own outputs, batch by batch before `record`, if these are too large to store, as
    #: those of a language model.
    averages: Averages = "records"

    #: Treatment of examples whose score or loss is NaN, such as the Dice of an image without the
    #: class. `refuse`: the mean is NaN, and nothing is chosen by it. `exclude`: the mean of a point
    #: is over the examples where *its* score is defined (nnU-Net's `nanmean`). A point's score then
    #: does not depend on the others, but points may be scored on different examples.
    undefined: Undefined = "refuse"

    #: Precision of evaluation.
    precision: Precision = "float32"

    #: Whether the loss is the cross-entropy of logits with classes as targets.
    is_classification: bool = False

    #: Whether examples have groups.
    has_groups: bool = False

    #: Whether the loss has gradients with respect to the weights.
    has_gradients: bool = True

    #: Whether examples can be displayed; see `Task.show`.
    shows_examples: bool = False

    def __init__(
        self, name: str, splits: Mapping[str, SplitT], metrics: Sequence[MetricInfo] = ()
    ) -> None:
        self.name = name
        self.metrics = tuple(metrics)
        _check_names(name, self.metrics)
        if self.metrics:
            self.score_name = self.metrics[0].name
        self.splits = dict(splits)
        self._chosen: MetricInfo | None = None  # in place of the first metric
        self._parts: dict[str, SplitT] = {}
        self._wholes: dict[str, str] = {}  # by the names of their parts
        if len(self.splits_with_role("select")) != 1:
            raise TaskError(
                f"The task {name!r} needs exactly one split with the role 'select'; "
                f"its splits are {', '.join(self.splits) or 'none'}."
            )

    @property
    @abstractmethod
    def key(self) -> str:
        """Identity of the measurement, without the data: 64 hex digits."""

    @property
    @abstractmethod
    def has_batchnorm(self) -> bool:
        """Whether the network has layers with running statistics, such as BatchNorm."""

    @abstractmethod
    def _part_of(self, name: str, n: int) -> SplitT:
        """Return n examples of a split."""

    @property
    def metric(self) -> MetricInfo:
        """The primary metric: the chosen one, else the first, else the mean of `score`."""
        return self._chosen or self.default_metric

    @property
    def default_metric(self) -> MetricInfo:
        """The metric that is primary unless `with_primary` chose another."""
        if self.metrics:
            return self.metrics[0]
        return MetricInfo(self.score_name, range=self.score_range)

    @property
    def primary(self) -> str | None:
        """Name of the primary metric if `with_primary` chose it; None for the default."""
        return None if self._chosen is None else self._chosen.name

    @property
    def results_key(self) -> str:
        """Identity of results that depend on the primary metric; `key` for the default metric.

        Evaluations do not depend on it: they have the scores by all metrics.
        """
        if self._chosen is None:
            return self.key
        return hashlib.sha256(f"{self.key}\n{self._chosen.name}".encode()).hexdigest()

    def with_primary(self, name: str | None) -> Self:
        """Return a copy whose primary metric is another one of `metrics`.

        It has the same `key`, so stored evaluations remain valid.

        Args:
            name: Name of the metric; None for the default.

        Raises:
            TaskError: The task has no such metric.
        """
        known = {metric.name: metric for metric in self.metrics or (self.default_metric,)}
        if name is not None and name not in known:
            raise TaskError(
                f"The task {self.name!r} has no metric {name!r}; it has {', '.join(known)}."
            )
        other = copy.copy(self)
        is_default = name is None or name == self.default_metric.name
        other._chosen = None if is_default else known[name]  # type: ignore[index]
        other.score_name = other.metric.name
        return other

    @property
    def score_unit(self) -> Unit:
        """Format of scores: percentages if they range from 0 to 1."""
        return self.metric.written

    @property
    def labels(self) -> Labels:
        """The names of the loss and the score, and the unit of the score."""
        return Labels(self.loss_name, self.score_name, self.score_unit)

    @property
    def has_examples(self) -> bool:
        """Whether the task scores single examples; a command scores whole splits."""
        return any(len(split) > 1 for split in self.splits.values())

    @property
    def can_re_estimate(self) -> bool:
        """Whether BatchNorm statistics can be re-estimated on training data.

        Activations in a half type are too coarse for that.
        """
        has_data = bool(self.splits_with_role("train")) and cast_dtype(self.precision) is None
        return has_data and self.has_batchnorm

    @property
    def why_no_ensemble(self) -> str | None:
        """Why outputs of several networks cannot be averaged, as a sentence; None if they can.

        It decides whether there are ensembles (see `output_kind`).
        """
        if self.output_kind is not None:
            return None
        if not self.has_examples:
            return f"The task {self.name!r} reports metrics only, not the outputs of its network."
        return (
            f"The task {self.name!r} does not declare its outputs as logits or probabilities, so "
            "their mean over several networks may be meaningless. If they are, set output_kind in "
            "the task."
        )

    @property
    def why_no_kept_outputs(self) -> str | None:
        """Why stored outputs cannot be averaged, as a sentence; None if they can.

        It decides whether there are greedy ensembles, ensembles of all pairs, and calibration.
        """
        if self.why_no_ensemble is None and self.averages == "outputs":
            return (
                f"The outputs of the task {self.name!r} are too large to store. The ensemble of a "
                "soup's ingredients is computed batch by batch instead."
            )
        return self.why_no_ensemble

    @property
    def why_no_gradients(self) -> str | None:
        """Why coefficients cannot be learned by gradients, as a sentence; None if they can."""
        return None if self.has_gradients else f"The task {self.name!r} has no gradients."

    def split(self, name: str) -> SplitT:
        """Return the split, or the part of one, called `name`.

        Raises:
            TaskError: There is no such split.
        """
        found = self.splits.get(name) or self._parts.get(name)
        if found is None:
            raise TaskError(
                f"The task {self.name!r} has no split {name!r}; it has {', '.join(self.splits)}."
            )
        return found

    def part(self, name: str, n: int) -> str:
        """Return the name of a part of a split, n of its examples, for a fast estimate.

        Evaluations on a part are stored separately, and `splits` contains no parts. The same n
        always gives the same examples (see `Part`).

        Raises:
            TaskError: There is no such split.
            ValueError: n is not positive.
        """
        if n < 1:
            raise ValueError(f"A part needs at least one example, not {n}.")
        if n >= len(self.split(name)):
            return name
        part = f"{name}, n={n}"
        if part not in self._parts:
            self._parts[part] = self._part_of(name, n)
            self._wholes[part] = name
        return part

    def whole_of(self, name: str) -> str:
        """Return the name of the split that a part was drawn from; a whole split's own name."""
        return self._wholes.get(name, name)

    def mean_shift(self, scores: Mapping[str, float | None]) -> float | None:
        """Return the mean score over the shift splits; None if there are none or one is missing.

        Args:
            scores: `{split: score}`.
        """
        found = [scores.get(split) for split in self.splits_with_role("shift")]
        known = [score for score in found if score is not None]
        return mean(known) if known and len(known) == len(found) else None

    def splits_with_role(self, role: Role) -> list[str]:
        """Return the names of the splits with a role, in the task's order."""
        return [name for name, split in self.splits.items() if split.role == role]

    @property
    def select(self) -> str:
        """Name of the split that recipes use for selection."""
        return self.splits_with_role("select")[0]

    @property
    def reported(self) -> list[str]:
        """Names of the splits to show results on: select, report, then the shifts."""
        return [
            name for role in ("select", "report", "shift") for name in self.splits_with_role(role)
        ]

    def split_title(self, split: str) -> str:
        """Return the name of a split after its purpose, such as "test (report)"."""
        purpose = {"select": "validation", "report": "test"}.get(self.split(split).role, split)
        return purpose if purpose == split else f"{purpose} ({split})"

    @property
    def is_weighted(self) -> bool:
        """Whether the examples of a reported split have weights."""
        return any(self.split(name).is_weighted for name in self.reported)

    def __repr__(self) -> str:
        splits = ", ".join(f"{name}: {split.role}" for name, split in self.splits.items())
        precision = "" if self.precision == "float32" else f", precision={self.precision!r}"
        return f"{type(self).__name__}({self.name!r}, {{{splits}}}{precision})"

    def _repr_html_(self) -> str:
        rows = [(name, split.role, len(split)) for name, split in self.splits.items()]
        measured = [
            f"{metric.name} ({'higher' if metric.higher_is_better else 'lower'} is better)"
            for metric in self.metrics or (self.metric,)
        ]
        note = (
            f"Metrics: {', '.join(measured)}. Loss: {self.loss_name}. Evaluated in "
            f"{self.precision}."
        )
        return html_table(f"Task {self.name}", ["split", "role", "examples"], rows, note=note)

    def describe(self) -> "TaskDescription":
        """Return the description of the task, without its code and data.

        Its primary metric is that of the task. If the network cannot be built, `has_batchnorm` is
        False, and evaluating raises the error.
        """
        if self._chosen is not None:
            return self.with_primary(None).describe().with_primary(self._chosen.name)
        try:
            has_batchnorm = self.has_batchnorm
        except TaskError:
            has_batchnorm = False
        return TaskDescription(
            name=self.name,
            splits={
                name: SplitDescription(
                    split.role,
                    split.digest,
                    len(split),
                    split.majority if self.is_classification else None,
                    split.is_weighted,
                )
                for name, split in self.splits.items()
            },
            key=self.key,
            has_batchnorm=has_batchnorm,
            metrics=[metric.info for metric in self.metrics],
            facts=Facts(**{field.name: getattr(self, field.name) for field in fields(Facts)}),
        )


@dataclass(frozen=True)
class SplitDescription:
    """The description of a split.

    Attributes:
        role: Role of the split (see `Split`).
        digest: Identity of the data: 64 hex digits.
        n: Number of examples.
        majority: The share of the most frequent class; None if unknown.
        is_weighted: Whether examples have weights.
    """

    role: Role
    digest: str
    n: int
    majority: float | None = None
    is_weighted: bool = False

    def __len__(self) -> int:
        return self.n


@dataclass(frozen=True)
class Facts:
    """The values of a task's class attributes."""

    score_name: str
    loss_name: str
    score_range: tuple[float, float] | None
    output_kind: OutputKind | None
    undefined: Undefined
    is_classification: bool
    has_gradients: bool = True
    precision: Precision = "float32"
    shows_examples: bool = False
    averages: Averages = "records"
    has_groups: bool = False


class TaskDescription(TaskInfo[SplitDescription]):
    """The description of a task: all that readers of its results need.

    Args:
        name: Name for display.
        splits: `{name: split}`.
        key: Key of the task.
        has_batchnorm: Whether its network has BatchNorm.
        metrics: Its metrics; empty for the mean of its scores alone.
        facts: The class attributes of `TaskInfo`.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[str, SplitDescription],
        *,
        key: str,
        has_batchnorm: bool,
        metrics: Sequence[MetricInfo],
        facts: Facts,
    ) -> None:
        super().__init__(name, splits)
        self.metrics = tuple(metrics)
        self._key = key
        self._has_batchnorm = has_batchnorm
        self._facts = facts
        self.score_name = facts.score_name
        self.loss_name = facts.loss_name
        self.score_range = facts.score_range
        self.output_kind = facts.output_kind
        self.undefined = facts.undefined
        self.is_classification = facts.is_classification
        self.has_gradients = facts.has_gradients
        self.precision = facts.precision
        self.shows_examples = facts.shows_examples
        self.averages = facts.averages
        self.has_groups = facts.has_groups

    @property
    def key(self) -> str:
        """Identity of the measurement, without the data: 64 hex digits."""
        return self._key

    @property
    def has_batchnorm(self) -> bool:
        """Whether the network has layers with running statistics, such as BatchNorm."""
        return self._has_batchnorm

    def _part_of(self, name: str, n: int) -> SplitDescription:
        whole = self.split(name)
        digest = part_digest(whole.digest, n)
        return SplitDescription(whole.role, digest, n, is_weighted=whole.is_weighted)

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON, the inverse of `TaskDescription.from_json`."""
        return {
            "name": self.name,
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "key": self.key,
            "has_batchnorm": self.has_batchnorm,
            "metrics": [metric.to_json() for metric in self.metrics],
            **asdict(self._facts),
            "score_range": None if self.score_range is None else [*map(float, self.score_range)],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "TaskDescription":
        """Return the description from its JSON.

        Raises:
            TaskError: Not exactly one split has the role `select`.
        """
        # Descriptions of earlier versions lack newer facts.
        facts = {field.name: body[field.name] for field in fields(Facts) if field.name in body}
        if facts["score_range"] is not None:
            low, high = facts["score_range"]
            facts["score_range"] = (low, high)
        return cls(
            body["name"],
            {name: SplitDescription(**split) for name, split in body["splits"].items()},
            key=body["key"],
            has_batchnorm=body["has_batchnorm"],
            metrics=[MetricInfo.from_json(metric) for metric in body["metrics"]],
            facts=Facts(**facts),
        )


def part_digest(whole: str, n: int, seed: int = 0) -> str:
    """Return the digest of n examples of a split, drawn with a seed: 64 hex digits."""
    return hashlib.sha256(f"part {n} {seed} {whole}".encode()).hexdigest()


def _check_names(task: str, metrics: Sequence[MetricInfo]) -> None:
    """Check that names of metrics are unique, since scores are stored by name."""
    counts = Counter(metric.name for metric in metrics)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise TaskError(
            f"The task {task!r} has {counts[twice]} metrics named {twice!r}. Give them "
            "different names."
        )
