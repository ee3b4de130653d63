"""The result of a recipe: a point in weight space, with its trace and its evaluations."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from soupcore.display import html_table, number
from soupcore.errors import RecipeError
from soupcore.evaluation import Estimate, Evaluation, Evaluator
from soupcore.evaluation.batchnorm import EXAMPLES
from soupcore.merges import Derived, Group, Grouped, own_of
from soupcore.mixtures import Mixture
from soupcore.name_map import load_into
from soupcore.progress import Progress, no_progress, part, with_bar
from soupcore.recipes import manifest
from soupcore.recipes.trace import Pass, Step
from soupcore.sweeps import FixedTensors, Ingredient, Sweep, TensorRule
from soupcore.tasks import TaskInfo
from soupcore.writers import Output

if TYPE_CHECKING:
    import pandas as pd

_TaskInfoT = TypeVar("_TaskInfoT", bound=TaskInfo[Any])

_MOST_TERMS = 5  # in a repr
_LARGEST_SHOWN = 100  # denominator; other coefficients are shown as decimals


@dataclass
class Soup:
    """A soup: a point in weight space, with the recipe, parameters and trace that led to it.

    Attributes:
        recipe: Name of the recipe.
        parameters: Parameters of the recipe.
        coefficients: `{ingredient: cᵢ}`, exact. Excluded ingredients are absent; those to which a
            formula gives 0 are present. Empty if tensors have different coefficients (see `merge`).
        sources: `{name: Ingredient}` of all ingredients used, in the sweep's order, with the base
            last if the recipe uses it.
        mixture: The point in weight space.
        base: Name of the base, or None if the recipe does not use it.
        merge: Computes the weights if they are not one mixture for all tensors.
        trace: Decisions of the recipe; empty if it makes none.
        passes: Passes of a learned soup.
        notes: Sentences for the user about how the soup was made.
        evaluations: `{split: Evaluation}` of the evaluations so far.
        estimate: How BatchNorm statistics are re-estimated; None if they are averaged like weights.
        statistics: Re-estimated statistics by their names in `mixture`; empty until estimated.
        rule: Which tensors take part; see `Sweep.with_tensors`.
        fixed: The tensors that take no part, and where their values come from.
        donors: Names of the sources that give only tensors that take no part.
        folder: Folder that contains the files of the sources, possibly in subfolders.
        recorded: For a soup read from JSON, its recorded scores, task, versions and URLs.
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
    notes: tuple[str, ...] = ()
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    estimate: Estimate | None = None
    statistics: Mapping[str, torch.Tensor] = field(default_factory=dict)
    rule: TensorRule = field(default_factory=TensorRule)
    fixed: tuple[FixedTensors, ...] = ()
    donors: tuple[str, ...] = ()
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
            sweep: The sweep of the ingredients.
            recipe: See `Soup`.
            parameters: See `Soup`.
            coefficients: `{ingredient: cᵢ}`.
            trace: See `Soup`.
            keep_zeros: Whether ingredients with coefficient 0 are sources of the soup. They are if
                the coefficients come from a formula, which is needed to rebuild the soup.
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
        """Make a soup whose weights are computed by a merge of the named ingredients."""
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
        used = set(names)
        given = {name for each in sweep.fixed for name in each.coefficients}
        base = sweep.base.name if sweep.base and sweep.base.name in used | given else None
        donors = sweep.names(given - used - {base})
        in_order = [*sweep.names(used - {base}), *donors, *([base] if base else [])]
        sources = {name: _in_file(sweep[name]) for name in in_order}
        soup = cls(recipe, dict(parameters), {}, sources, mixture, base, folder=sweep.folder)
        if sweep.fixed:
            soup.rule, soup.fixed, soup.donors = sweep.rule, sweep.fixed, tuple(donors)
        return soup

    @property
    def primary(self) -> str | None:
        """Name of the metric that the recipe chose by; None for the task's first, or for none."""
        return self.parameters.get("primary")

    def chosen_by(self, task: _TaskInfoT) -> _TaskInfoT:
        """Return a task with the primary metric that the recipe chose by, which its trace shows."""
        known = {metric.name for metric in task.metrics}
        return task.with_primary(self.primary if self.primary in known else None)

    @property
    def digests(self) -> dict[str, str]:
        """`{name: digest}` of all sources."""
        return {name: source.digest for name, source in self.sources.items()}

    @property
    def form(self) -> Ingredient:
        """The first source. Files of the soup have its tensor order, metadata and dtypes."""
        return next(iter(self.sources.values()))

    @property
    def id(self) -> str:
        """Hash of the weights and of how they were made: 16 hex digits."""
        way = [self.recipe, self.parameters, self.mixture.key, sorted(self.digests)]
        if self.estimate is not None:
            way.append(self.estimate.key)
        return hashlib.sha256(json.dumps(way, sort_keys=True).encode()).hexdigest()[:16]

    def re_estimate(self, evaluator: Evaluator, *, examples: int = EXAMPLES) -> "Soup":
        """Re-estimate the BatchNorm statistics on the task's training data; return the soup.

        Existing evaluations are removed, because they used the averaged statistics.

        Raises:
            TaskError: The network has no BatchNorm, or the task has no split with the role `train`.
        """
        estimating = evaluator.with_statistics("re-estimated", examples=examples)
        self.statistics = estimating.estimated_statistics(self.mixture)
        if estimating.estimate != self.estimate:
            self.estimate, self.evaluations, self.recorded = estimating.estimate, {}, {}
        return self

    def take_statistics_of(self, evaluator: Evaluator) -> None:
        """Re-estimate the statistics if the evaluator does, so that both use the same weights."""
        if self.estimate is None and evaluator.estimate is not None:
            self.re_estimate(evaluator, examples=evaluator.estimate.examples)

    @property
    def ingredients(self) -> list[str]:
        """Names of all sources that take part, except the base."""
        return [n for n in self.sources if n != self.base and n not in self.donors]

    @property
    def checkpoint(self) -> Derived:
        """The soup as a checkpoint, for use as an ingredient (see `Sweep.including`).

        Its BatchNorm statistics are always averaged, even if `estimate` is set.
        """
        if self.merge is not None:
            return self.merge
        return Grouped({"all": Group(tuple(self.mixture.tensors), self.mixture)})

    def file_name(self, name: str) -> str:
        """Return the file or folder of an ingredient or the base, relative to `folder`."""
        return self.seen_from_folder(self.sources[name].checkpoint.path)

    def seen_from_folder(self, path: Path) -> str:
        """Return a path relative to `folder`, or only its name if it is outside of it."""
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else path.name

    @with_bar("Evaluation of the soup")
    def evaluate(
        self,
        evaluator: Evaluator,
        splits: Sequence[str] | None = None,
        *,
        on_progress: Progress = no_progress,
        progress: bool = True,
    ) -> "Soup":
        """Evaluate the soup and return it.

        Args:
            evaluator: Computes the evaluations. If it re-estimates BatchNorm statistics, so does
                the soup.
            splits: Splits to evaluate on; by default, all except the train split.
            on_progress: Called with the number of examples done and in total. Raise in it to
                cancel.
            progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
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
        """Return the manifest as JSON, from which `soupcore.rebuild` makes the same weights.

        It includes the scores. Coefficients are exact fractions as text, such as "1/3".
        """
        return manifest.of_soup(self)

    @classmethod
    def from_json(cls, sweep: Sweep, body: Mapping[str, Any]) -> "Soup":
        """Recreate a soup from the JSON of `to_json`, without its evaluations.

        Raises:
            RecipeError: The weights of an ingredient changed, or a later version wrote the JSON.
            SweepError: An ingredient is not in the sweep.
        """
        return manifest.to_soup(cls, sweep, body)

    def save(
        self,
        path: str | Path,
        dtype: torch.dtype | str | None = None,
        shard_size: int | None = None,
        *,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
    ) -> list[Path]:
        """Write the soup's weights to a file, streamed in chunks.

        The file follows the first ingredient (`form`). A `.safetensors` has its metadata, tensor
        order and dtypes, plus the recipe in the metadata.

        A `.pt` has the structure of the first ingredient's file. The soup's weights replace every
        set of weights with the same layout, and entries that describe the original run (optimizer,
        scores, epoch, date) are removed. The recipe is stored under "stockpot" if the file is a
        dict that holds the weights under a key. It is also written to `<name>.recipe.json`,
        together with the changes. See `output.why_no_pt` and `output.pt_form`.

        A folder, for ingredients from Hugging Face folders, opens with `from_pretrained`: weights
        under the Hub's names, `config.json`, the tokenizer and the processor of the first
        ingredient, a card, and the recipe (see `soupcore.provenance.hub`).

        A file appears under its name only when it is complete and on disk.

        Args:
            path: Path in an existing folder, with the suffix `.safetensors`, `.pt`, `.pth`, `.bin`,
                `.ckpt` or `.pth.tar`. An existing file is replaced. Or a path without a suffix, or
                of an existing folder, for a Hugging Face folder.
            dtype: `float32`, `float16` or `bfloat16` for all floats of safetensors; by
                default, as in the first ingredient. Values are rounded to the dtype of the mixture
                first.
            shard_size: Largest size of a shard in bytes. If given, a `.safetensors` is written as
                shards with an index (see `soupcore.writers.safetensors`). 5 GB in a folder.
            on_bytes: Called with the number of bytes written since the last call. Raise in it to
                cancel.

        Returns:
            The files written. For shards, the index is the last.

        Raises:
            CheckpointError: The folder does not exist, an ingredient changed since it was opened,
                a value is not finite or too large for its dtype, or the soup cannot be written as
                a `.pt`.
            RecipeError: BatchNorm statistics were not yet re-estimated.
            ValueError: The suffix, the dtype or the shard size is not supported.
        """
        self._check_estimated()
        if Path(path).is_dir() or not Path(path).suffix:
            from soupcore.provenance.hub import write_hub_folder  # it needs the card

            return write_hub_folder(self, Path(path), dtype, shard_size, on_bytes=on_bytes)
        return self.output.save(Path(path), self.to_json(), dtype, shard_size, on_bytes=on_bytes)

    @property
    def output(self) -> Output:
        """The contents of the soup's files: tensors, sizes, and whether a `.pt` is possible."""
        return Output(self.mixture, self.form.checkpoint, self.statistics)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the soup's weights in memory."""
        self._check_estimated()
        statistics = {
            name: tensor.to(self.mixture.tensors[name].dtype)
            for name, tensor in self.statistics.items()
        }
        return self.mixture.state_dict() | statistics

    def load_into(self, model: nn.Module, *, strict: bool = True) -> list[str]:
        """Load the soup's weights into a network, tensor by tensor and without a file.

        Args:
            model: The network. It keeps its dtypes and its device.
            strict: Whether all weights must fit. If not, tensors of the network without a
                counterpart of the same shape stay unchanged.

        Returns:
            Names of the network's tensors that stayed unchanged; empty if `strict`.

        Raises:
            CheckpointError: The weights do not fit the network.
            RecipeError: BatchNorm statistics were not yet re-estimated.
        """
        self._check_estimated()
        return load_into(model, self.mixture, strict=strict, replaced=self.statistics)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per evaluated split: score, ends of its interval, loss and examples."""
        import pandas as pd

        rows = {
            split: (found.score, *found.score_interval, found.loss, found.n)
            for split, found in self.evaluations.items()
        }
        columns = ["score", "low", "high", "loss", "n"]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return table.rename_axis("split")

    def _check_estimated(self) -> None:
        if self.estimate is not None and not self.statistics:
            raise RecipeError(
                "The BatchNorm statistics of this soup have not been re-estimated since it was "
                "opened. Call soup.re_estimate(evaluator) first."
            )

    def __repr__(self) -> str:
        terms = [f"{n}: {text}".removesuffix(": ") for n, text in self.coefficient_texts.items()]
        made_of = ", ".join(terms[:_MOST_TERMS])
        more = f", … {len(terms) - _MOST_TERMS} more" if len(terms) > _MOST_TERMS else ""
        scores = "".join(
            f"; {split}: {found.score_text}" for split, found in self.evaluations.items()
        )
        return f"Soup({self.recipe}, {{{made_of}{more}}}{scores})"

    @property
    def coefficient_texts(self) -> dict[str, str]:
        """The coefficients as text, such as "1/3" or "0.1458"; "" for sources without one."""
        exact = {name: self.coefficients.get(name) for name in self.sources}
        return {
            name: "" if c is None else str(c) if c.denominator <= _LARGEST_SHOWN else number(c)
            for name, c in exact.items()
        }

    def _repr_html_(self) -> str:
        made_of = html_table(
            f"Soup by {self.recipe}",
            ["ingredient", "coefficient"],
            [*self.coefficient_texts.items()],
            note=" ".join(self.notes),
        )
        if not self.evaluations:
            return made_of
        rows = [
            (split, found.labels.score_unit.text(found.score), found.interval_text, found.n)
            for split, found in self.evaluations.items()
        ]
        score = next(iter(self.evaluations.values())).labels.score_name
        return made_of + html_table("Scores", ["split", score, "95 % interval", "examples"], rows)


def other_statistics_of(soup: Soup, evaluator: Evaluator) -> Soup | None:
    """Return the soup with re-estimated statistics if its own are averaged, and vice versa.

    Which of them are better differs from case to case (see `soupcore.evaluation.batchnorm`), so
    both soups are built and compared on the select split.

    Args:
        soup: The soup.
        evaluator: Estimates the statistics.

    Returns:
        The other soup without evaluations. None if the network has no BatchNorm or the task has no
        split with the role `train`.
    """
    if not evaluator.task.can_re_estimate:
        return None
    other = replace(soup, estimate=None, statistics={}, evaluations={}, recorded={})
    return other.re_estimate(evaluator) if soup.estimate is None else other


def _in_file(ingredient: Ingredient) -> Ingredient:
    """Return an ingredient without tensors from elsewhere."""
    own = own_of(ingredient.checkpoint)
    return ingredient if own is ingredient.checkpoint else replace(ingredient, checkpoint=own)
