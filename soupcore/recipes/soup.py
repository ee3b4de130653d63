"""A recipe's result: how to make the weights, why, and what it scored."""

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soupcore.checkpoints.renamed import RenamedCheckpoint
from soupcore.errors import RecipeError
from soupcore.evaluation import Estimate, Evaluation, Evaluator, Progress, no_progress
from soupcore.evaluation.batchnorm import EXAMPLES
from soupcore.evaluation.progress import part
from soupcore.merges import Derived, Group, Grouped, merge_from_json, with_sources
from soupcore.mixtures import Mixture
from soupcore.recipes.output import Output
from soupcore.recipes.trace import Pass, Step, none_if_nan
from soupcore.sweeps import Ingredient, Sweep
from soupcore.version import VERSION

FORMAT = 2  # 1 had one set of coefficients for all tensors, and no versions


@dataclass
class Soup:
    """A point that a recipe chose.

    Attributes:
        recipe: Name of the recipe.
        parameters: What it was told.
        coefficients: `{ingredient: cᵢ}`, exact; ingredients left out are absent, those to which a
            formula happens to give 0 are not. Empty where no one set of coefficients is that of
            all tensors: see `merge`.
        sources: `{name: Ingredient}` of all that took part, in the sweep's order; the base is the
            last, where it did.
        mixture: The point in weight space.
        base: Name of the base, where it took part.
        merge: How the weights are computed where they are not one mixture for all tensors.
        trace: The decisions that led there, empty where the recipe makes none.
        passes: What each pass found where coefficients were learned.
        evaluations: `{split: Evaluation}`, as far as it was evaluated.
        estimate: What its BatchNorm statistics are estimated on; None where they are averaged as
            all weights are.
        statistics: Those statistics by their names in `mixture`, once they are.
        folder: Where the files of its sources are, some of them perhaps in folders below.
        recorded: Where the soup came back from JSON: what that says of the soup's scores, and of
            the task and the versions it was made with.
    """

    recipe: str
    parameters: dict[str, Any]
    coefficients: dict[str, Fraction]
    sources: dict[str, Ingredient]
    mixture: Mixture
    base: str | None = None
    merge: Derived | None = None
    trace: tuple[Step, ...] = ()
    passes: tuple[Pass, ...] = ()
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    estimate: Estimate | None = None
    statistics: Mapping[str, torch.Tensor] = field(default_factory=dict)
    folder: Path = Path()
    recorded: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sweep: Sweep,
        recipe: str,
        parameters: Mapping[str, Any],
        coefficients: Mapping[str, Fraction],
        trace: Sequence[Step] = (),
        *,
        keep_zeros: bool = False,
    ) -> "Soup":
        """Make a soup that is one mixture of the ingredients of a sweep.

        Args:
            sweep: Where they are from.
            recipe: See `Soup`.
            parameters: See `Soup`.
            coefficients: `{ingredient: cᵢ}`.
            trace: See `Soup`.
            keep_zeros: Whether those of the coefficient 0 take part: they do in a formula, which
                needs them to be followed again; elsewhere they were left out.
        """
        used = {name: c for name, c in coefficients.items() if c or keep_zeros}
        soup = cls._of(sweep, recipe, parameters, used, sweep.mixture(used))
        soup.coefficients = used
        soup.trace = tuple(trace)
        return soup

    @classmethod
    def of_merge(
        cls,
        sweep: Sweep,
        recipe: str,
        parameters: Mapping[str, Any],
        names: Iterable[str],
        merge: Derived,
    ) -> "Soup":
        """Make a soup whose weights a merge computes from the checkpoints with these names."""
        soup = cls._of(sweep, recipe, parameters, names, Mixture([(merge, 1)]))
        soup.merge = merge
        return soup

    @classmethod
    def _of(
        cls,
        sweep: Sweep,
        recipe: str,
        parameters: Mapping[str, Any],
        names: Iterable[str],
        mixture: Mixture,
    ) -> "Soup":
        taken = set(names)
        base = sweep.base.name if sweep.base and sweep.base.name in taken else None
        in_order = [*sweep.names(taken - {base}), *([base] if base else [])]
        sources = {name: sweep[name] for name in in_order}
        return cls(recipe, dict(parameters), {}, sources, mixture, base, folder=sweep.folder)

    @property
    def digests(self) -> dict[str, str]:
        """`{name: digest}` of all that took part."""
        return {name: source.digest for name, source in self.sources.items()}

    @property
    def form(self) -> Ingredient:
        """Ingredient 1, the first source: a file of the soup has its order, metadata and dtypes."""
        return next(iter(self.sources.values()))

    @property
    def id(self) -> str:
        """Identity of the soup and of the way it was made: 16 hex digits."""
        way = [self.recipe, self.parameters, self.mixture.key, sorted(self.digests)]
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
        if estimating.estimate != self.estimate:
            self.estimate, self.evaluations, self.recorded = estimating.estimate, {}, {}
        return self

    def take_statistics_of(self, evaluator: Evaluator) -> None:
        """Re-estimate the statistics where an evaluator does, so that it is what that evaluates."""
        if self.estimate is None and evaluator.estimate is not None:
            self.re_estimate(evaluator, examples=evaluator.estimate.examples)

    @property
    def ingredients(self) -> list[str]:
        """Names of all that took part, without the base."""
        return [name for name in self.sources if name != self.base]

    @property
    def checkpoint(self) -> Derived:
        """The soup as a checkpoint: an ingredient again (see `Sweep.including`).

        Its BatchNorm statistics are averaged, whatever `estimate` says.
        """
        if self.merge is not None:
            return self.merge
        return Grouped({"all": Group(tuple(self.mixture.tensors), self.mixture)})

    def file_name(self, name: str) -> str:
        """Return the file or folder that holds an ingredient or the base, as seen from `folder`."""
        return self.seen_from_folder(self.sources[name].checkpoint.path)

    def seen_from_folder(self, path: Path) -> str:
        """Return a path as seen from `folder`, or its last part where it lies elsewhere."""
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else path.name

    def evaluate(
        self,
        evaluator: Evaluator,
        splits: Sequence[str] | None = None,
        on_progress: Progress = no_progress,
    ) -> "Soup":
        """Evaluate the soup on splits, all that results are shown on unless told, and return it.

        Where the evaluator re-estimates BatchNorm's statistics, they are re-estimated of the soup.
        """
        self.take_statistics_of(evaluator)
        if self.estimate is not None:
            evaluator = evaluator.with_statistics("re-estimated", examples=self.estimate.examples)
        wanted = list(evaluator.task.reported if splits is None else splits)
        for index, split in enumerate(wanted):
            self.evaluations[split] = evaluator.evaluate(
                self.mixture, split, on_progress=part(on_progress, index, len(wanted))
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON: enough to make the same weights again, and what they scored.

        Coefficients are exact, as text like "1/3". `soupcore.rebuild` makes the soup again.
        """
        names = {digest: name for name, digest in self.digests.items()}
        scores = {
            split: {
                "score": none_if_nan(found.score),
                "loss": none_if_nan(found.loss),
                "n": found.n,
                "split_digest": found.split_digest,
            }
            for split, found in self.evaluations.items()
        }
        task_keys = {found.task_key for found in self.evaluations.values()}
        return {
            "format": FORMAT,
            "recipe": self.recipe,
            "parameters": self.parameters,
            "coefficients": {name: str(c) for name, c in self.coefficients.items()},
            "merge": self.merge and self.merge.to_json(lambda source: names[source.digest]),
            "base": self.base,
            "digests": self.digests,
            **self._sources_to_json(),
            "batchnorm": self.estimate and asdict(self.estimate),
            "trace": [step.to_json() for step in self.trace],
            "passes": [found.to_json() for found in self.passes],
            "scores": self.recorded.get("scores", {}) | scores,
            "task_key": next(iter(task_keys), self.recorded.get("task_key")),
            "versions": self.recorded.get("versions") or _versions(),
        }

    def _sources_to_json(self) -> dict[str, Any]:
        """Return what `rebuild` has to know of the sources to have them as they are here."""
        sources = with_sources(source.checkpoint for source in self.sources.values())
        soups = {d: c for d, c in sources.items() if isinstance(c, Derived)}
        files = {d: c for d, c in sources.items() if d not in soups}
        tensors = None
        if any(isinstance(file, RenamedCheckpoint) for file in files.values()):
            ties = dict.fromkeys(tie for file in files.values() for tie in file.ties)
            tensors = {
                "names": [*self.form.checkpoint.tensors],
                "ties": [[*tie] for tie in ties],
            }
        known = set(self.digests.values())
        return {
            "soups": {d: soup.to_json(lambda source: source.digest) for d, soup in soups.items()},
            "soup_files": {
                d: self.seen_from_folder(c.path) for d, c in files.items() if d not in known
            },
            "weight_sets": {d: c.weights for d, c in files.items() if c.weights},
            "tensors": tensors,
        }

    @classmethod
    def from_json(cls, sweep: Sweep, body: Mapping[str, Any]) -> "Soup":
        """Make the soup again that `to_json` described, without its evaluations.

        Raises:
            RecipeError: An ingredient has other weights now, or a later version described it.
            SweepError: An ingredient is not in the sweep.
        """
        if body["format"] > FORMAT:
            raise RecipeError(
                f"This soup is described in format {body['format']}, and this version of Stockpot "
                f"knows formats up to {FORMAT}. Take a newer version."
            )
        for name, digest in body["digests"].items():
            if sweep[name].digest != digest:
                raise RecipeError(
                    f"The ingredient {name!r} has other weights now than when this soup was made. "
                    "Make the soup again."
                )
        recipe, parameters = body["recipe"], body["parameters"]
        if merge := body.get("merge"):
            derived = merge_from_json(merge, lambda name: sweep[name].checkpoint)
            soup = cls.of_merge(sweep, recipe, parameters, body["digests"], derived)
        else:
            coefficients = {name: Fraction(text) for name, text in body["coefficients"].items()}
            soup = cls.of(sweep, recipe, parameters, coefficients, keep_zeros=True)
        if estimate := body.get("batchnorm"):
            soup.estimate = Estimate(**estimate)
        soup.trace = tuple(Step.from_json(step) for step in body["trace"])
        soup.passes = tuple(Pass.from_json(found) for found in body.get("passes", ()))
        soup.recorded = {k: body[k] for k in ("scores", "task_key", "versions") if k in body}
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
            path: Where, in a folder that exists; `.safetensors`, or `.pt`, `.pth`, `.bin`, `.ckpt`
                or `.pth.tar`. An existing file is replaced.
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
            CheckpointError: There is no such folder; an ingredient was changed since it was
                opened; an element is not finite, as where it is too large for the dtype of its
                tensor; or the soup cannot be written as a `.pt`.
            RecipeError: Its BatchNorm statistics are to be estimated and have not been.
            ValueError: The suffix, the dtype or the shard size is none of these.
        """
        self._check_estimated()
        return self.output.save(Path(path), self.to_json(), dtype, shard_size, on_bytes=on_bytes)

    @property
    def output(self) -> Output:
        """The weights as files have them: what is in them, how large, and whether as `.pt` too."""
        return Output(self.mixture, self.form.checkpoint, self.statistics)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the soup's weights in memory."""
        self._check_estimated()
        statistics = {
            name: tensor.to(self.mixture.tensors[name].dtype)
            for name, tensor in self.statistics.items()
        }
        return self.mixture.state_dict() | statistics

    def _check_estimated(self) -> None:
        if self.estimate is not None and not self.statistics:
            raise RecipeError(
                "The BatchNorm statistics of this soup are estimated on training data, and have "
                "not been since it was opened. Call soup.re_estimate(evaluator) first."
            )

    def __repr__(self) -> str:
        terms = ", ".join(f"{name}: {c}" for name, c in self.coefficients.items())
        return f"Soup({self.recipe}, {{{terms or ', '.join(self.sources)}}})"


def _versions() -> dict[str, str]:
    return {
        "stockpot": VERSION,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
