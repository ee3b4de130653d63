"""Evaluations and previews of points, and the value by which points are compared."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from soupcore.display import html_table, number
from soupcore.errors import TaskError
from soupcore.tasks import NO_LABELS, Labels

if TYPE_CHECKING:
    import pandas as pd

Criterion = Literal["score", "loss"]

_INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Evaluation:
    """The result of one point on one split.

    Attributes:
        mixture_key: Key of the point.
        split: Name of the split.
        n: Number of examples.
        loss: Mean loss over the examples, weighted if they have weights; NaN if it is not finite.
        score: Score by the task's primary metric, higher is better; by default the mean score over
            the examples, weighted likewise (in classification the accuracy, 0 to 1). NaN if it is
            not finite. `Task.undefined` determines how examples without a score count.
        score_interval: 95 % confidence interval of the score (see `score_interval`); NaN if there
            is none.
        seconds: Computing time.
        has_outputs: Whether the outputs of each example were kept.
        arrays: The safetensors file with the values of each example.
        task_key: Key of the task (see `Task.key`).
        split_digest: Digest of the split's data.
        is_weighted: Whether examples have weights.
        primary: Name of the metric of the score if `with_primary` chose it; None for the first.
        is_resampled: Whether it has `replicates`.
        lacks_interval: Whether `score_interval` has not been computed yet, which an `Evaluator`
            does from the stored records. Only for a metric that `with_primary` chose.
        all_scores: `{metric: score}` of all metrics, if the task has named metrics.
        place: Index of this evaluation in the file; None if the file has no others.
        labels: Names of the loss and the score, and the unit of the score.
        chosen_replicates: The replicates for a metric that `with_primary` chose, as float32.
        on_damage: Called if the file is damaged. Returns an evaluation to use instead. If it
            returns None, reading an array raises `DamagedArraysError`.
    """

    mixture_key: str
    split: str
    n: int
    loss: float
    score: float
    score_interval: tuple[float, float]
    seconds: float
    has_outputs: bool
    arrays: Path
    task_key: str = ""
    split_digest: str = ""
    is_weighted: bool = False
    primary: str | None = None
    is_resampled: bool = False
    lacks_interval: bool = False
    all_scores: Mapping[str, float] = field(default_factory=dict)
    place: int | None = None
    labels: Labels = NO_LABELS
    chosen_replicates: bytes | None = field(default=None, repr=False)
    on_damage: Callable[[], "Evaluation | None"] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def accuracy(self) -> float:
        """The score, under its name in classification."""
        return self.score

    @property
    def seen(self) -> int:
        """Number of evaluated examples: all of them."""
        return self.n

    @property
    def undefined(self) -> int:
        """Number of examples whose score is NaN. Reads the scores."""
        return int(self.scores.isnan().sum())

    @property
    def losses(self) -> torch.Tensor:
        """Loss of each example, float32, shape [n]; infinite if the network failed on it."""
        return self._array("losses")

    @property
    def scores(self) -> torch.Tensor:
        """Score of each example, float32, shape [n]; in classification 1 if correct, else 0.

        NaN if undefined, −∞ if the network failed, that is, its outputs are not finite.
        """
        return self._array("scores").float()

    @property
    def replicates(self) -> torch.Tensor | None:
        """Scores on bootstrap resamples, float32, shape [200]; None if the score is a mean.

        The resamples are the same for all points on the split.
        """
        if self.chosen_replicates is not None:
            return torch.from_numpy(np.frombuffer(self.chosen_replicates, dtype="<f4").copy())
        return self._array("replicates") if self.is_resampled else None

    @property
    def weights(self) -> torch.Tensor | None:
        """Weight of each example, float64, shape [n]; None for equal weights."""
        return self._array("weights") if self.is_weighted else None

    @property
    def predictions(self) -> torch.Tensor:
        """Prediction for each example, shape [n, ...]; integers are int64."""
        predictions = self._array("predictions")
        return predictions.long() if predictions.dtype in _INTEGERS else predictions

    @property
    def outputs(self) -> torch.Tensor:
        """Recorded outputs of the network for each example (logits), shape [n, ...].

        Raises:
            KeyError: They were not kept; evaluate the point again with `keep_outputs=True`.
        """
        if not self.has_outputs:
            raise KeyError("outputs were not kept; evaluate again with keep_outputs=True")
        return self._array("outputs")

    @property
    def interval_text(self) -> str:
        """The confidence interval of the score, such as "[86.6, 91.2]"; empty if there is none."""
        unit = self.labels.score_unit
        low, high = sorted(unit.factor * end for end in self.score_interval)
        if math.isnan(low):
            return ""
        return f"[{low:.1f}, {high:.1f}]" if unit.is_share else f"[{number(low)}, {number(high)}]"

    @property
    def score_text(self) -> str:
        """The score with its name and interval, such as "accuracy 89.14 % [86.6, 91.2]"."""
        score = self.labels.score_unit.text(self.score)
        return " ".join(filter(None, (self.labels.score_name, score, self.interval_text)))

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per example: loss, score, and the prediction if it is one number."""
        import pandas as pd

        columns = {"loss": self.losses.numpy(), "score": self.scores.numpy()}
        if (predictions := self.predictions).ndim == 1:
            columns["prediction"] = predictions.numpy()
        return pd.DataFrame(columns).rename_axis("example")

    def __repr__(self) -> str:
        return f"Evaluation({self.split}: {self.score_text}, n = {self.n})"

    def _repr_html_(self) -> str:
        score = self.labels.score_unit.text(self.score)
        return html_table(
            "Evaluation",
            ["split", self.labels.score_name, "95 % interval", self.labels.loss_name, "examples"],
            [(self.split, score, self.interval_text, self.loss, self.n)],
        )

    def _array(self, name: str) -> torch.Tensor:
        from soupcore.store.arrays import DamagedArraysError, read_array  # loads SQLAlchemy

        try:
            return read_array(self.arrays, name, self.place)
        except DamagedArraysError:
            again = self.on_damage() if self.on_damage else None
            if again is None:
                raise
            return again._array(name)


def compact(arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the arrays of an evaluation in their stored form: fewer bytes, without loss.

    Scores that are all 0 or 1 become bytes, and class indices the smallest sufficient integers.
    `Evaluation.scores` and `Evaluation.predictions` restore both.
    """
    compacted = dict(arrays)
    scores, predictions = arrays["scores"], arrays["predictions"]
    as_bytes = scores.to(torch.uint8)
    if torch.equal(as_bytes.float(), scores):
        compacted["scores"] = as_bytes
    if predictions.dtype == torch.int64 and predictions.numel():
        low, high = predictions.aminmax()
        for dtype in _INTEGERS:
            limits = torch.iinfo(dtype)
            if limits.min <= int(low) and int(high) <= limits.max:
                compacted["predictions"] = predictions.to(dtype)
                break
    return compacted


@dataclass(frozen=True)
class Preview:
    """The score of a point in bfloat16. It is not an evaluation, and no recipe selects by it.

    bfloat16 has 8 significant bits. The effect on loss and score is measured on a reference point
    that is also evaluated in float32.

    Attributes:
        mixture_key: Key of the point.
        split: Name of the split.
        n: Number of examples.
        reference: Digest of the reference point, an ingredient.
        loss: Mean loss.
        score: Mean score.
        loss_effect: Mean loss of the reference point in bfloat16 minus that in float32.
        score_effect: Mean score of the reference point in bfloat16 minus that in float32.
    """

    mixture_key: str
    split: str
    n: int
    reference: str
    loss: float
    score: float
    loss_effect: float
    score_effect: float


def value_of(evaluation: Evaluation, metric: Criterion, name: str) -> float:
    """Return the value for comparing points: the score, or minus the loss.

    Args:
        evaluation: Evaluation of the point.
        metric: `score` or `loss`.
        name: Name of the point, for errors.

    Returns:
        The value, higher is better; −∞ if the network failed on an example.

    Raises:
        TaskError: The metric is undefined for some examples, or infinitely good for one.
    """
    value = evaluation.score if metric == "score" else -evaluation.loss
    if math.isfinite(value):
        return value
    if metric == "score" and evaluation.all_scores and not evaluation.scores.isnan().any():
        if evaluation.scores.isinf().any():  # the network failed
            return -math.inf
        raise TaskError(
            f"The metric {evaluation.labels.score_name!r} of {name} is undefined (NaN) on "
            f"{evaluation.split!r}, so nothing can be chosen by it. Leave this point out."
        )
    check_defined(evaluation.scores if metric == "score" else -evaluation.losses,
                  metric, name, evaluation.split)  # fmt: skip
    return -math.inf


def check_defined(values: torch.Tensor, metric: Criterion, name: str, split: str = "") -> None:
    """Check that points can be compared by the mean of values: none is NaN or +∞.

    Args:
        values: One value per example, higher is better, shape [n].
        metric: The metric of the values.
        name: Name of the point, for errors.
        split: Name of the split, if known.

    Raises:
        TaskError: A value is NaN or +∞.
    """
    undefined, where = int(values.isnan().sum()), f" of {split!r}" if split else ""
    if undefined == len(values):
        raise TaskError(
            f"The {metric} of {name} is undefined (NaN) for every example{where}, so nothing can "
            f"be chosen by it. Correct the task's `{metric}`, or leave this point out."
        )
    if undefined:
        raise TaskError(
            f"The {metric} of {name} is undefined (NaN) for {undefined} of {len(values)} examples"
            f"{where}, so nothing can be chosen by it. Remove these examples from the split, have "
            f"the task's `{metric}` return a number for them, or set `undefined = "
            '"exclude"` on the task to score each point on the examples where its own '
            f"{metric} is defined."
        )
    infinite = int((values == math.inf).sum())
    if infinite:
        raise TaskError(
            f"The {metric} of {name} is infinitely good for {infinite} of {len(values)} examples"
            f"{where}, so nothing can be chosen by it. Have the task's `{metric}` return a finite "
            "number for them."
        )
