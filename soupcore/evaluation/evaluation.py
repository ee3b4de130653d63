"""What a task says of one point in weight space on one split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

_INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Evaluation:
    """The result of one point on one split.

    Attributes:
        mixture_key: Which point.
        split: Name of the split.
        n: Number of examples.
        loss: Mean loss over the examples; NaN where it is not finite.
        score: Mean score over the examples (for classification the accuracy, 0 to 1); NaN where it
            is not finite.
        score_interval: 95 % confidence interval of the score (see `score_interval`).
        seconds: What it took to compute.
        has_outputs: Whether the outputs of each example were kept.
        arrays: The safetensors file with what was found for each example.
        task_key: Identity of what was measured (see `Task.key`).
        split_digest: Identity of the split's data.
        place: Which of the evaluations in that file, None where it holds this one alone.
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
    place: int | None = None

    @property
    def accuracy(self) -> float:
        """The score, under the name it has in classification."""
        return self.score

    @property
    def seen(self) -> int:
        """How many examples it has seen: all."""
        return self.n

    @property
    def losses(self) -> torch.Tensor:
        """Loss of each example, float32, shape [n]."""
        return self._array("losses")

    @property
    def scores(self) -> torch.Tensor:
        """Score of each example, float32, shape [n]; in classification 1 where correct, else 0."""
        return self._array("scores").float()

    @property
    def predictions(self) -> torch.Tensor:
        """What the network says of each example, shape [n, ...]; int64 where it is an integer."""
        found = self._array("predictions")
        return found.long() if found.dtype in _INTEGERS else found

    @property
    def outputs(self) -> torch.Tensor:
        """What the network put out for each example (logits), shape [n, ...].

        Raises:
            KeyError: They were not kept; evaluate the point again with `keep_outputs=True`.
        """
        if not self.has_outputs:
            raise KeyError("outputs were not kept; evaluate again with keep_outputs=True")
        return self._array("outputs")

    def _array(self, name: str) -> torch.Tensor:
        with safe_open(self.arrays, framework="pt") as file:
            if self.place is None:
                tensor: torch.Tensor = file.get_tensor(name)
            else:
                tensor = file.get_slice(name)[self.place]
        return tensor


def compact(arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the arrays of an evaluation as they are kept, in fewer bytes: nothing is lost.

    Scores that are all 0 or 1 become bytes, classes the smallest integers that hold them. Both
    come back as they were from `Evaluation.scores` and `Evaluation.predictions`.
    """
    kept = dict(arrays)
    scores, predictions = arrays["scores"], arrays["predictions"]
    as_bytes = scores.to(torch.uint8)
    if torch.equal(as_bytes.float(), scores):
        kept["scores"] = as_bytes
    if predictions.dtype == torch.int64 and predictions.numel():
        low, high = predictions.aminmax()
        for dtype in _INTEGERS:
            limits = torch.iinfo(dtype)
            if limits.min <= int(low) and int(high) <= limits.max:
                kept["predictions"] = predictions.to(dtype)
                break
    return kept
