"""Metrics: numbers that say how good a network is on a split.

A metric is the mean over examples of `Task.score`, or any function of all predictions or outputs of
a split. The definitions of those that are built in are scikit-learn's.

Inside Stockpot a score is oriented: higher is better, so that recipes and rankings need not ask.
The score of a metric of which lower values are better is minus its value, as in scikit-learn's
scorers; `Unit` writes the value again.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks.unit import Unit

Source = Literal["predictions", "outputs"]


@dataclass(frozen=True)
class MetricInfo:
    """How the values of a metric are read and written.

    Attributes:
        name: What people call it.
        higher_is_better: Whether higher values are better.
        range: Between what values lie, where they do. Values from 0 to 1 are shares and are
            written as percentages.
        unit: What follows a value, such as "K"; shares have their own.
        is_mean: Whether it is the mean over examples of `Task.score`.
    """

    name: str
    higher_is_better: bool = True
    range: tuple[float, float] | None = None
    unit: str = ""
    is_mean: bool = True

    @property
    def sign(self) -> int:
        """What a value is multiplied by to be a score, and the other way round: 1 or -1."""
        return 1 if self.higher_is_better else -1

    @property
    def written(self) -> Unit:
        """How its scores are written."""
        return Unit(self.range == (0, 1), self.sign, self.unit)

    @property
    def info(self) -> "MetricInfo":
        """How its values are read and written, without how they are computed."""
        return MetricInfo(self.name, self.higher_is_better, self.range, self.unit, self.is_mean)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; `from_json` makes it again."""
        limits = None if self.range is None else [*map(float, self.range)]
        return asdict(self.info) | {"range": limits}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "MetricInfo":
        """Make it again from its JSON."""
        limits = body["range"]
        return MetricInfo(**{**body, "range": None if limits is None else tuple(limits)})


@dataclass(frozen=True)
class Metric(MetricInfo):
    """A metric of a task.

    Attributes:
        compute: Returns the value of a split, given what `source` names, shape [n, ...], and the
            targets, shape [n, ...], on the CPU. Without it, the metric is the mean over examples
            of `Task.score`, or minus that where lower is better.
        source: `predictions`, as `Task.predict` returns them, or `outputs`, as `Task.record` keeps
            them.
    """

    compute: Callable[[Tensor, Tensor], float] | None = None
    source: Source = "predictions"

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_mean", self.compute is None)

    def score(self, found: Mapping[Source, Tensor | None], targets: Tensor) -> float:
        """Return the score of a split: the value, or minus the value where lower is better.

        Args:
            found: The predictions, and the outputs where a metric needs them.
            targets: The true answers.

        Returns:
            The score; −∞ where the network failed, NaN where the metric is undefined.

        Raises:
            TaskError: It cannot be computed.
        """
        given = found[self.source]
        if self.compute is None or given is None:
            raise ValueError(f"{self.name} is not computed from {self.source}")
        if not given.isfinite().all():
            return -math.inf
        try:
            value = float(self.compute(given, targets))
        except Exception as error:
            raise TaskError(
                f"The metric {self.name!r} cannot be computed: {type(error).__name__}: "
                f"{str(error).strip()}."
            ) from error
        return self.sign * value


def _sklearn(name: str, given: Tensor, targets: Tensor, **options: Any) -> float:
    from sklearn import config_context, metrics  # loads SciPy's submodules

    # Checking the arguments takes longer than the metric; what is given is right.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        return float(getattr(metrics, name)(targets.numpy(), given.numpy(), **options))


def _auc(outputs: Tensor, targets: Tensor) -> float:
    """Return the area under the ROC curve; of more than two classes, one against the rest."""
    shares = outputs.double().softmax(1)
    if shares.shape[1] == 2:
        return _sklearn("roc_auc_score", shares[:, 1], targets)
    return _sklearn("roc_auc_score", shares, targets, multi_class="ovr")


def _top(k: int, outputs: Tensor, targets: Tensor) -> float:
    return _sklearn("top_k_accuracy_score", outputs, targets, k=k, labels=range(outputs.shape[1]))


def _correlation(name: str, predictions: Tensor, targets: Tensor) -> float:
    import scipy

    found = getattr(scipy.stats, name)(predictions.flatten().numpy(), targets.flatten().numpy())
    return float(found.statistic)


def perplexity(records: Tensor, targets: Tensor) -> float:
    """Return exp(Σ negative log-likelihood ⁄ Σ tokens) of records of shape [n, 2] of both."""
    nats, tokens = records.double().sum(0).tolist()
    return math.exp(nats / tokens) if tokens else math.nan


_SHARE = (0.0, 1.0)
_SIGNED = (-1.0, 1.0)


def _metrics() -> list[Metric]:
    def of_classes(name: str, function: str, limits: tuple[float, float], **told: Any) -> Metric:
        return Metric(name, range=limits, compute=partial(_sklearn, function, **told))

    def of_numbers(name: str, function: str, *, higher: bool = False) -> Metric:
        return Metric(name, higher, compute=partial(_sklearn, function))

    return [
        of_classes("balanced accuracy", "balanced_accuracy_score", _SHARE),
        of_classes("F1", "f1_score", _SHARE, zero_division=0.0),
        of_classes("macro F1", "f1_score", _SHARE, average="macro", zero_division=0.0),
        of_classes("micro F1", "f1_score", _SHARE, average="micro", zero_division=0.0),
        of_classes("mean IoU", "jaccard_score", _SHARE, average="macro", zero_division=0.0),
        of_classes("Matthews correlation", "matthews_corrcoef", _SIGNED),
        Metric("AUC", range=_SHARE, compute=_auc, source="outputs"),
        Metric("top-5 accuracy", range=_SHARE, compute=partial(_top, 5), source="outputs"),
        of_numbers("MAE", "mean_absolute_error"),
        of_numbers("RMSE", "root_mean_squared_error"),
        of_numbers("R²", "r2_score", higher=True),
        Metric("Pearson correlation", range=_SIGNED, compute=partial(_correlation, "pearsonr")),
        Metric("Spearman correlation", range=_SIGNED, compute=partial(_correlation, "spearmanr")),
        Metric("perplexity", higher_is_better=False, compute=perplexity, source="outputs"),
    ]


#: The metrics that are built in, by name.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _metrics()}


def metric_named(name: str) -> Metric:
    """Return a metric that is built in.

    Raises:
        TaskError: There is none of that name.
    """
    if name not in METRICS:
        raise TaskError(
            f"There is no metric {name!r}; those built in are {', '.join(METRICS)}. Give a "
            "soupcore.Metric with a `compute` of your own for another."
        )
    return METRICS[name]
