"""A recipe's result: how to make the weights, why, and what it scored."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluation, Evaluator, Progress, no_progress
from soupcore.evaluation.evaluator import part
from soupcore.mixtures import Mixture
from soupcore.recipes.output import Output
from soupcore.sweeps import Ingredient, Sweep

FORMAT = 1


@dataclass(frozen=True)
class Step:
    """One decision of a recipe that goes through candidates.

    Attributes:
        candidate: Name of the ingredient that was tried.
        score: Score of the soup with it on the split that was chosen on.
        accepted: Whether it went in.
        soup: Names in the soup after this step.
        gained: Examples that the soup with it gets right and the soup before did not.
        lost: Examples that it gets wrong and the soup before got right.
    """

    candidate: str
    score: float
    accepted: bool
    soup: tuple[str, ...]
    gained: int
    lost: int

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
        form: Ingredient 1, the first of them in the sweep's order (the base comes last): the one
            whose order, metadata and dtypes a file of the soup has.
        trace: The decisions that led there, empty where the recipe makes none.
        evaluations: `{split: Evaluation}`, as far as it was evaluated.
    """

    recipe: str
    parameters: dict[str, Any]
    coefficients: dict[str, Fraction]
    digests: dict[str, str]
    mixture: Mixture
    form: Ingredient
    trace: tuple[Step, ...] = ()
    evaluations: dict[str, Evaluation] = field(default_factory=dict)

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
        mixture = sweep.mixture(used)
        in_order = [name for name in sweep.ingredients if name in used] or [*used]
        return cls(
            recipe=recipe,
            parameters=dict(parameters),
            coefficients=used,
            digests={name: sweep[name].digest for name in used},
            mixture=mixture,
            form=sweep[in_order[0]],
            trace=tuple(trace),
        )

    @property
    def id(self) -> str:
        """Identity of the soup and of the way it was made: 16 hex digits."""
        way = json.dumps(
            [self.recipe, self.parameters, self.mixture.key, sorted(self.coefficients)],
            sort_keys=True,
        )
        return hashlib.sha256(way.encode()).hexdigest()[:16]

    def evaluate(
        self,
        evaluator: Evaluator,
        splits: Sequence[str] | None = None,
        on_progress: Progress = no_progress,
    ) -> "Soup":
        """Evaluate the soup on splits, all that results are shown on unless told, and return it."""
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
        for name, digest in soup.digests.items():
            if digest != body["digests"][name]:
                raise RecipeError(
                    f"The ingredient {name!r} has other weights now than when this soup was made. "
                    "Make the soup again."
                )
        return soup

    def save(
        self,
        path: str | Path,
        dtype: torch.dtype | str | None = None,
        shard_size: int | None = None,
        *,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
    ) -> list[Path]:
        """Write the soup's weights to files, streamed.

        The form is that of ingredient 1 (`form`). A `.safetensors` has its metadata, its order of
        tensors and its dtypes, and the recipe in the metadata. A `.pt` is a copy of its file with
        the soup's weights in it, where `output.why_no_pt` is None; the recipe is beside it, in
        `<name>.recipe.json`. Files get their names once they are whole and on disk.

        Args:
            path: Where, `.safetensors`, or `.pt`, `.pth`, `.bin` or `.ckpt`; an existing file is
                replaced.
            dtype: `float32`, `float16` or `bfloat16` for all floats of a `.safetensors` (the mean
                is rounded to the dtype of the mixture first and then to this one); as in
                ingredient 1 unless given.
            shard_size: Write a `.safetensors` as shards of at most so many bytes, with an index
                (see `soupcore.checkpoints.sharded_output`).
            on_bytes: Called with the number of bytes written since the last call; raise in it to
                stop.

        Returns:
            The files written. Of shards, the index is the last.

        Raises:
            CheckpointError: An ingredient was changed since it was opened; an element is not
                finite, as where it is too large for the dtype of its tensor; or the soup cannot be
                written as a `.pt`.
            ValueError: The suffix, the dtype or the shard size is none of these.
        """
        return self.output.save(Path(path), self.to_json(), dtype, shard_size, on_bytes=on_bytes)

    @property
    def output(self) -> Output:
        """The weights as files have them: what is in them, how large, and whether as `.pt` too."""
        return Output(self.mixture, self.form.checkpoint)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the soup's weights in memory."""
        return self.mixture.state_dict()

    def __repr__(self) -> str:
        terms = ", ".join(f"{name}: {c}" for name, c in self.coefficients.items())
        return f"Soup({self.recipe}, {{{terms}}})"


def _none_if_nan(number: float) -> float | None:
    return None if math.isnan(number) else number  # JSON has no NaN
