"""Metrics of a network on a split.

A metric is the mean over examples of `Task.score`, or any function of all predictions, outputs or
scores of a split. Built-in metrics have the definitions of scikit-learn.

Inside Stockpot, higher scores are better. If lower values of a metric are better, its score is
minus the value, as in scikit-learn's scorers; `Unit` writes the value again.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks.unit import Unit

Source = Literal["predictions", "outputs", "scores"]
Against = Literal["targets", "groups"]


@dataclass(frozen=True)
class MetricInfo:
    """Name, direction, range and unit of a metric.

    Attributes:
        name: Name for display.
        higher_is_better: Whether higher values are better.
        range: Range of the values, if bounded. Values from 0 to 1 are written as percentages.
        unit: Unit of a value, such as "K"; percentages need none.
        is_mean: Whether it is the mean over examples of `Task.score`.
    """

    name: str
    higher_is_better: bool = True
    range: tuple[float, float] | None = None
    unit: str = ""
    is_mean: bool = True

    @property
    def sign(self) -> int:
        """Factor between values and scores: 1 or -1."""
        return 1 if self.higher_is_better else -1

    @property
    def written(self) -> Unit:
        """Format of its scores."""
        is_share = self.range == (0, 1)
        counts_errors = is_share and self.higher_is_better and "accuracy" in self.name
        return Unit(is_share, self.sign, self.unit, counts_errors)

    @property
    def info(self) -> "MetricInfo":
        """The metric without its computation."""
        return MetricInfo(self.name, self.higher_is_better, self.range, self.unit, self.is_mean)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, the inverse of `from_json`."""
        limits = None if self.range is None else [*map(float, self.range)]
        return asdict(self.info) | {"range": limits}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "MetricInfo":
        """Return it from its JSON."""
        limits = body["range"]
        return MetricInfo(**{**body, "range": None if limits is None else tuple(limits)})


@dataclass(frozen=True)
class Metric(MetricInfo):
    """A metric of a task.

    Attributes:
        compute: Returns the value of a split from the tensors named by `source` and `against`, each
            of shape [n, ...], on the CPU. Without it, the metric is the mean over examples of
            `Task.score`, or minus that if lower is better.
        source: `predictions`, as `Task.predict` returns them; `outputs`, as `Task.record` returns
            them; or `scores`, as `Task.score` returns them, without those that the task excludes.
        against: `targets`; or `groups`, the number of each example's group in `Task.groups`, int64,
            shape [n]. With groups, the value is undefined if one of them has no examples.
        takes_weights: Whether `compute` takes the weights of examples as the keyword argument
            `weights`, float64, shape [n], all above zero. A task whose examples have weights
            requires it. The mean of `Task.score` is always weighted.
        definition: Further settings that the value depends on, such as those of `compute`; part of
            the task's key.
    """

    compute: Callable[..., float] | None = None
    source: Source = "predictions"
    against: Against = "targets"
    takes_weights: bool = False
    definition: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_mean", self.compute is None)

    def score(
        self,
        found: Mapping[Source, Tensor | None],
        targets: Tensor,
        weights: Tensor | None = None,
    ) -> float:
        """Return the score of a split: the value, or minus the value if lower is better.

        Args:
            found: Tensor named by `source`.
            targets: Tensor named by `against`.
            weights: The weights of the examples, shape [n], or None.

        Returns:
            The score; −∞ if the given tensor is not finite, NaN if the metric is undefined. Class
            predictions are finite even if the network's outputs are not.

        Raises:
            TaskError: It cannot be computed.
        """
        given = found[self.source]
        if self.compute is None or given is None:
            raise ValueError(f"{self.name} is not computed from {self.source}")
        weighted = {}
        if weights is not None:
            counted = weights > 0
            given, targets = given[counted], targets[counted]
            weighted = {"weights": weights[counted]}
        # NaN means undefined in scores, but failure in outputs.
        failed = given.isinf() if self.source == "scores" else ~given.isfinite()
        if failed.any():
            return -math.inf
        try:
            value = float(self.compute(given, targets, **weighted))
        except Exception as error:
            raise TaskError(
                f"The metric {self.name!r} cannot be computed: {type(error).__name__}: "
                f"{str(error).strip()}."
            ) from error
        return self.sign * value


def _sklearn(
    name: str, given: Tensor, targets: Tensor, weights: Tensor | None = None, **options: Any
) -> float:
    from sklearn import config_context, metrics  # loads SciPy's submodules

    if weights is not None:
        options["sample_weight"] = weights.numpy()
    # The arguments are valid, and checking them takes longer than the metric.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        return float(getattr(metrics, name)(targets.numpy(), given.numpy(), **options))


def _auc(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return the area under the ROC curve; one-vs-rest for more than two classes."""
    shares = outputs.double().softmax(1)
    if shares.shape[1] == 2:
        return _sklearn("roc_auc_score", shares[:, 1], targets, weights)
    return _sklearn("roc_auc_score", shares, targets, weights, multi_class="ovr")


def _top(k: int, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    labels = range(outputs.shape[1])
    return _sklearn("top_k_accuracy_score", outputs, targets, weights, k=k, labels=labels)


def _pearson(predictions: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    if weights is None:
        return _correlation("pearsonr", predictions, targets)
    each = weights.repeat_interleave(predictions[0].numel()).numpy()
    (x, xy), (_, y) = np.cov(predictions.flatten(), targets.flatten(), ddof=0, aweights=each)
    return float(xy / np.sqrt(x * y))


def _correlation(name: str, predictions: Tensor, targets: Tensor) -> float:
    import scipy

    found = getattr(scipy.stats, name)(predictions.flatten().numpy(), targets.flatten().numpy())
    return float(found.statistic)


def weighted_sums(records: Tensor, weights: Tensor | None) -> Tensor:
    """Return the sum over examples of records of shape [n, ...], in float64."""
    wide = records.double()
    return wide.sum(0) if weights is None else torch.tensordot(weights.double(), wide, dims=1)


def perplexity(records: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return exp(Σ negative log-likelihood ⁄ Σ tokens) of records of shape [n, 2] of both."""
    nats, tokens = weighted_sums(records, weights).tolist()
    return math.exp(nats / tokens) if tokens else math.nan


def _worst_class(predictions: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return the lowest recall of the classes that occur in the targets."""
    numbers = torch.unique(targets, return_inverse=True)[1]
    return _worst_group((predictions == targets).float(), numbers, weights)


def _group_means(scores: Tensor, groups: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean score of each group, float64, shape [groups]; NaN for empty groups.

    Args:
        scores: A score for each example, shape [n].
        groups: The number of each example's group, int64, shape [n].
        weights: The weight of each example, above zero, shape [n]; None for equal weights.
    """
    wide = scores.double() if weights is None else scores.double() * weights
    counts = torch.bincount(groups, weights)
    return torch.bincount(groups, wide, len(counts)) / counts


def _worst_group(scores: Tensor, groups: Tensor, weights: Tensor | None = None) -> float:
    """Return the lowest mean score of a non-empty group; NaN if one of these is undefined.

    Args:
        scores: A score for each example, shape [n].
        groups: The number of each example's group, int64, shape [n].
        weights: As for `_group_means`.
    """
    return float(_group_means(scores, groups, weights)[torch.bincount(groups) > 0].min())


def _of_group(number: int, scores: Tensor, groups: Tensor, weights: Tensor | None = None) -> float:
    own = groups == number
    if weights is None:
        return float(scores[own].double().mean())
    return float((scores[own].double() * weights[own]).sum() / weights[own].sum())


def metrics_of_groups(mean: MetricInfo, groups: Sequence[str]) -> dict[str, list[Metric]]:
    """Return the metrics over groups of examples, by name.

    Args:
        mean: The mean over examples of the task's score.
        groups: The names of the groups.

    Returns:
        `worst-group NAME`, the lowest mean score of a group, and `NAME by group`, the mean score of
        each group.
    """

    def metric(name: str, compute: Callable[..., float]) -> Metric:
        return Metric(
            name,
            range=mean.range,
            compute=compute,
            source="scores",
            against="groups",
            takes_weights=True,
        )

    return {
        f"worst-group {mean.name}": [metric(f"worst-group {mean.name}", _worst_group)],
        f"{mean.name} by group": [
            metric(f"{mean.name}, {group}", partial(_of_group, number))
            for number, group in enumerate(groups)
        ],
    }


_SHARE = (0.0, 1.0)
_SIGNED = (-1.0, 1.0)


def _metrics() -> list[Metric]:
    def weighable(name: str, compute: Callable[..., float], **options: Any) -> Metric:
        return Metric(name, compute=compute, takes_weights=True, **options)

    def of_classes(name: str, function: str, limits: tuple[float, float], **options: Any) -> Metric:
        return weighable(name, partial(_sklearn, function, **options), range=limits)

    def of_numbers(name: str, function: str, *, higher: bool = False) -> Metric:
        return weighable(name, partial(_sklearn, function), higher_is_better=higher)

    return [
        of_classes("balanced accuracy", "balanced_accuracy_score", _SHARE),
        weighable("worst-class accuracy", _worst_class, range=_SHARE),
        of_classes("F1", "f1_score", _SHARE, zero_division=0.0),
        of_classes("macro F1", "f1_score", _SHARE, average="macro", zero_division=0.0),
        of_classes("micro F1", "f1_score", _SHARE, average="micro", zero_division=0.0),
        of_classes("mean IoU", "jaccard_score", _SHARE, average="macro", zero_division=0.0),
        of_classes("Matthews correlation", "matthews_corrcoef", _SIGNED),
        weighable("AUC", _auc, range=_SHARE, source="outputs"),
        weighable("top-5 accuracy", partial(_top, 5), range=_SHARE, source="outputs"),
        of_numbers("MAE", "mean_absolute_error"),
        of_numbers("RMSE", "root_mean_squared_error"),
        of_numbers("R²", "r2_score", higher=True),
        weighable("Pearson correlation", _pearson, range=_SIGNED),
        # Weighted ranks have no standard definition.
        Metric("Spearman correlation", range=_SIGNED, compute=partial(_correlation, "spearmanr")),
        weighable("perplexity", perplexity, higher_is_better=False, source="outputs"),
    ]


#: The built-in metrics, by name.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _metrics()}


def metric_named(name: str, others: Iterable[str] = ()) -> Metric:
    """Return a built-in metric.

    Args:
        name: Its name.
        others: Further names that the task accepts, for the message.

    Raises:
        TaskError: There is no such metric.
    """
    if name not in METRICS:
        known = ", ".join([*others, *METRICS])
        raise TaskError(
            f"There is no metric {name!r}. The built-in metrics are {known}. For any other metric, "
            "pass a soupcore.Metric with your own `compute`."
        )
    return METRICS[name]
