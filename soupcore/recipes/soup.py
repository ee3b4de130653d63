"""A recipe's result: how to make the weights, why, and what it scored."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from soupcore.checkpoints import write_safetensors
from soupcore.checkpoints.dtypes import all_finite
from soupcore.errors import CheckpointError, RecipeError
from soupcore.evaluation import Estimate, Evaluation, Evaluator, Progress, no_progress
from soupcore.evaluation.batchnorm import EXAMPLES
from soupcore.evaluation.evaluator import part
from soupcore.mixtures import Mixture
from soupcore.sweeps import Sweep

METADATA_KEY = "stockpot"
FORMAT = 1


@dataclass(frozen=True)
class Step:
    """One decision of a recipe that goes through candidates.

    Attributes:
        candidate: Name of the ingredient that was tried.
        score: Score of the soup with it on the split that was chosen on, or what that is at most.
        accepted: Whether it went in.
        soup: Names in the soup after this step.
        gained: Examples that the soup with it gets right and the soup before did not.
        lost: Examples that it gets wrong and the soup before got right.
        is_bound: Whether it was rejected before it had seen all examples: its score is at most
            that, and gained and lost count what it had seen.
        examples: How many it had seen; 0 where that was not kept.
    """

    candidate: str
    score: float
    accepted: bool
    soup: tuple[str, ...]
    gained: int
    lost: int
    is_bound: bool = False
    examples: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON."""
        return asdict(self) | {"score": _none_if_nan(self.score)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Step":
        """Return the step that `to_json` described."""
        score = math.nan if body["score"] is None else body["score"]
        return cls(**{**body, "score": score, "soup": tuple(body["soup"])})


@dataclass
class Soup:
    """A point that a recipe chose.

    Attributes:
        recipe: Name of the recipe.
        parameters: What it was told.
        coefficients: `{ingredient: cᵢ}`, exact; ingredients left out are absent.
        digests: `{ingredient: digest}` of those.
        mixture: The point in weight space.
        trace: The decisions that led there, empty where the recipe makes none.
        evaluations: `{split: Evaluation}`, as far as it was evaluated.
        estimate: What its BatchNorm statistics are estimated on; None where they are averaged as
            all weights are.
        statistics: Those statistics by their names in a state dict, once they are.
    """

    recipe: str
    parameters: dict[str, Any]
    coefficients: dict[str, Fraction]
    digests: dict[str, str]
    mixture: Mixture
    trace: tuple[Step, ...] = ()
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    estimate: Estimate | None = None
    statistics: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sweep: Sweep,
        recipe: str,
        parameters: Mapping[str, Any],
        coefficients: Mapping[str, Fraction],
        trace: Sequence[Step] = (),
    ) -> "Soup":
        """Make a soup of the ingredients of a sweep."""
        used = {name: fraction for name, fraction in coefficients.items() if fraction}
        return cls(
            recipe=recipe,
            parameters=dict(parameters),
            coefficients=used,
            digests={name: sweep[name].digest for name in used},
            mixture=sweep.mixture(used),
            trace=tuple(trace),
        )

    @property
    def id(self) -> str:
        """Identity of the soup and of the way it was made: 16 hex digits."""
        way = [self.recipe, self.parameters, self.mixture.key, sorted(self.coefficients)]
        if self.estimate is not None:
            way.append(self.estimate.key)
        return hashlib.sha256(json.dumps(way, sort_keys=True).encode()).hexdigest()[:16]

    def re_estimate(self, evaluator: Evaluator, *, examples: int = EXAMPLES) -> "Soup":
        """Estimate the BatchNorm statistics anew on the task's training data; return the soup.

        Evaluations made before belong to averaged statistics and are dropped.

        Raises:
            TaskError: The network has no BatchNorm, or the task no split with the role `train`.
        """
        estimating = evaluator.with_statistics("re-estimated", examples=examples)
        self.statistics = estimating.estimated_statistics(self.mixture)
        self.estimate = estimating.estimate
        self.evaluations = {}
        return self

    def evaluate(
        self,
        evaluator: Evaluator,
        splits: Sequence[str] | None = None,
        on_progress: Progress = no_progress,
    ) -> "Soup":
        """Evaluate the soup on splits, all that results are shown on unless told, and return it."""
        if self.estimate is not None:
            evaluator = evaluator.with_statistics("re-estimated", examples=self.estimate.examples)
        wanted = list(evaluator.task.reported if splits is None else splits)
        for index, split in enumerate(wanted):
            self.evaluations[split] = evaluator.evaluate(
                self.mixture, split, on_progress=part(on_progress, index, len(wanted))
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON: enough to make the same weights again, and what they scored.

        Coefficients are exact, as text like "1/3".
        """
        return {
            "format": FORMAT,
            "recipe": self.recipe,
            "parameters": self.parameters,
            "coefficients": {name: str(c) for name, c in self.coefficients.items()},
            "digests": self.digests,
            "batchnorm": self.estimate and asdict(self.estimate),
            "trace": [step.to_json() for step in self.trace],
            "scores": {
                split: {"score": _none_if_nan(e.score), "loss": _none_if_nan(e.loss), "n": e.n}
                for split, e in self.evaluations.items()
            },
        }

    @classmethod
    def from_json(cls, sweep: Sweep, body: Mapping[str, Any]) -> "Soup":
        """Make the soup again that `to_json` described, without its evaluations.

        Raises:
            RecipeError: An ingredient has other weights now.
            SweepError: An ingredient is not in the sweep.
        """
        soup = cls.of(
            sweep,
            body["recipe"],
            body["parameters"],
            {name: Fraction(text) for name, text in body["coefficients"].items()},
            [Step.from_json(step) for step in body["trace"]],
        )
        if body.get("batchnorm"):
            soup.estimate = Estimate(**body["batchnorm"])
        for name, digest in soup.digests.items():
            if digest != body["digests"][name]:
                raise RecipeError(
                    f"The ingredient {name!r} has other weights now than when this soup was made. "
                    "Make the soup again."
                )
        return soup

    def save(self, path: str | Path, on_bytes: Callable[[int], None] = lambda nbytes: None) -> str:
        """Write the soup's weights as safetensors, streamed, with the recipe in the metadata.

        Args:
            path: Where; an existing file is replaced once the new one is whole.
            on_bytes: Called with the number of bytes written since the last call; raise in it to
                stop.

        Returns:
            The SHA-256 of the file, in hex.

        Raises:
            CheckpointError: An ingredient was changed since it was opened, or an element is not
                finite, as where it is too large for the dtype of its tensor.
            RecipeError: Its BatchNorm statistics are to be estimated and have not been.
        """
        self._check_estimated()
        for checkpoint in self.mixture.sources.values():
            checkpoint.check_unchanged()
        metadata = dict(next(iter(self.mixture.sources.values())).metadata)
        metadata |= {METADATA_KEY: json.dumps(self.to_json(), ensure_ascii=False)}
        return write_safetensors(
            Path(path), self.mixture.tensors, self._finite_chunks, metadata, on_bytes
        )

    def _finite_chunks(self, name: str) -> Iterator[torch.Tensor]:
        for chunk in self._chunks(name):
            if not all_finite(chunk):
                raise CheckpointError(
                    f"Tensor {name!r} of the soup has a value that is NaN, infinite or too large "
                    f"for {chunk.dtype}; nothing was written. Choose smaller coefficients."
                )
            yield chunk

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the soup's weights in memory."""
        self._check_estimated()
        return {
            name: torch.cat(list(self._chunks(name))).reshape(info.shape)
            if name in self.statistics
            else self.mixture.tensor(name)
            for name, info in self.mixture.tensors.items()
        }

    def _chunks(self, name: str) -> Iterator[torch.Tensor]:
        tensor = self.statistics.get(name)
        if tensor is None:
            yield from self.mixture.chunks(name)
        else:
            yield tensor.reshape(-1).to(self.mixture.tensors[name].dtype)

    def _check_estimated(self) -> None:
        if self.estimate is not None and not self.statistics:
            raise RecipeError(
                "The BatchNorm statistics of this soup are estimated on training data, and have "
                "not been since it was opened. Call soup.re_estimate(evaluator) first."
            )

    def __repr__(self) -> str:
        terms = ", ".join(f"{name}: {c}" for name, c in self.coefficients.items())
        return f"Soup({self.recipe}, {{{terms}}})"


def _none_if_nan(number: float) -> float | None:
    return None if math.isnan(number) else number  # JSON has no NaN
