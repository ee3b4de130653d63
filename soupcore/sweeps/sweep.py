"""A fine-tuning sweep: its ingredients, its base, and the report on their compatibility."""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from soupcore.checkpoints import Checkpoint, WeightSet
from soupcore.display import html_table
from soupcore.errors import SweepError
from soupcore.merges import Fixed, Group, own_of
from soupcore.mixtures import Coefficient, Mixture
from soupcore.name_map import load_into
from soupcore.progress import Progress, no_progress, with_bar
from soupcore.remote import is_url
from soupcore.sweeps.findings import FitReport
from soupcore.sweeps.opening import BASE, open_folder
from soupcore.sweeps.remote import RemoteSweep
from soupcore.sweeps.snapshots import Snapshots, Weights
from soupcore.sweeps.tables import Scalar
from soupcore.sweeps.tensor_rule import ALL, FixedTensors, TensorRule, left_out

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Ingredient:
    """A checkpoint of a sweep.

    Attributes:
        name: Name of the file or folder, usually without suffix.
        checkpoint: The weights, with tensor names that are the same in the whole sweep.
        hyperparameters: Hyperparameters of the run.
        logged_metrics: Metrics of these weights that the training tool logged. They were not
            measured by Stockpot, and their splits are not those of a task.
        origins: `{name: file}`, the file of each hyperparameter and logged metric, relative to the
            sweep's folder.
    """

    name: str
    checkpoint: Checkpoint
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    logged_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the weights."""
        return self.checkpoint.digest

    @cached_property
    def mixture(self) -> Mixture:
        """The point in weight space."""
        return Mixture([(self.checkpoint, 1)])

    def load_into(self, model: nn.Module, *, strict: bool = True) -> list[str]:
        """Load the weights into a network; see `Soup.load_into`."""
        return load_into(model, self.mixture, strict=strict)


class Sweep:
    """The ingredients of a sweep in natural order, and the base if there is one.

    Attributes:
        folder: Folder of the sweep.
        ingredients: `{name: Ingredient}` of the checkpoints that can be averaged with each other.
        base: The shared initialisation θ₀, or None. If it fits in part, it has the mean of the
            ingredients in `new_tensors`.
        fit: The findings about all files, including those that were excluded.
        weights: The weight sets requested; empty for the defaults of the tools that wrote the
            files.
        snapshot: The snapshots requested; empty for the rule of each tool.
        columns: Hyperparameters to show as columns, those of tables and sidecars first.
        logged_columns: Logged metrics to show as columns.
        rule: Which tensors take part in recipes; see `with_tensors`.
        urls: The URLs that it was opened from, if it is remote; see `from_urls`.
        fixed: The tensors that take no part in a recipe, in the sweep that the recipe works on; see
            `for_recipe`.
    """

    rule = TensorRule()
    urls: tuple[str, ...] = ()
    fixed: tuple[FixedTensors, ...] = ()

    def __init__(
        self,
        folder: Path,
        ingredients: Mapping[str, Ingredient],
        base: Ingredient | None,
        fit: FitReport,
        *,
        weights: Weights = "",
        snapshot: Snapshots = "",
        columns: Iterable[str] = (),
        logged_columns: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.ingredients = dict(ingredients)
        self.base = base
        self.fit = fit
        self.weights = weights
        self.snapshot = snapshot
        self.columns = list(columns)
        self.logged_columns = list(logged_columns)

    @classmethod
    @with_bar("Reading checkpoints")
    def from_folder(
        cls,
        path: str | Path,
        *,
        base: str | None = None,
        weights: Weights = "",
        snapshot: Snapshots = "",
        within: Collection[Path] | None = None,
        refresh: bool = False,
        on_progress: Progress = no_progress,
        progress: bool = True,
    ) -> "Sweep":
        """Open the checkpoints in a folder and check that they can be averaged.

        Each checkpoint becomes an ingredient under the name of its file or folder. Checkpoints are
        files recognised by name or first bytes, shard indices, and the run folders of training
        tools (`soupcore.checkpoints.tools`). Prefixes of wrappers in tensor names, such as
        `module.`, make no difference, nor do tensors that are not learned.

        Hyperparameters and logged metrics come from `sweep.jsonl` or `sweep.csv`, where a column
        such as `checkpoint`, `name` or `path` names the checkpoint, or from `<name>.json`; then
        from other CSV files that name checkpoints; then from the files that tools leave in a run
        folder; and last from the metadata in the checkpoint.

        A row of `sweep.jsonl` or `sweep.csv` may also name a checkpoint by a URL, such as
        `hf://org/repo@revision` or `s3://bucket/run.safetensors`. If it is not in the folder too,
        it is resolved once and downloaded into the cache, as by `from_urls`. If it cannot be
        resolved, it becomes a finding, and the other checkpoints are opened.

        The first time, a file is read in full to compute its digest and to check for NaN and Inf.
        Later, only headers and samples are read.

        Args:
            path: The folder, or a URL; see `from_urls`.
            base: Name of the ingredient that is the shared initialisation. By default, the one
                named `base`, if it exists and can be used.
            weights: Weight set to open in files that have several, such as raw and EMA: one name or
                title for all files, or `{ingredient: name}`. By default, each file's set is the one
                that its tool would use.
            snapshot: Snapshot to open of runs that have several: `best`, `last`, `final`,
                `epoch 3`, `step 500`, or `every` for an ingredient for each snapshot, named
                `run/epoch 3`. Or `{run: one of these, or a file in its folder}`, with `"*"` for all
                other runs. By default, each run's snapshot is the one that its tool prefers. The
                base follows this default unless it is named.
            within: Folders that links must not leave; links that do become findings. By default,
                links may lead anywhere. If it is given, URLs in the table have to be on the Hub or
                S3.
            refresh: Whether to resolve URLs again, and use the current files.
            on_progress: Called with the number of bytes read and in total. Raise in it to cancel.
            progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

        Raises:
            RemoteError: A URL in the table is malformed or contains credentials, or a file cannot
                be downloaded; see `from_urls`.
            UnusableSweepError: The folder has no usable checkpoint (`NothingFitsError`), or the
                given base cannot be used. Its `fit` has the reasons.
            SweepError: The folder does not exist, or `weights` or `snapshot` names an unknown
                checkpoint.
        """
        if isinstance(path, str) and is_url(path):
            return cls.from_urls(
                path,
                base=base,
                weights=weights,
                snapshot=snapshot,
                refresh=refresh,
                on_progress=on_progress,
            )
        folder = Path(path)
        opened = open_folder(
            folder,
            base,
            weights,
            snapshot,
            within=within,
            refresh=refresh,
            on_progress=on_progress,
        )
        ingredients = {
            name: Ingredient(name, checkpoint, d.hyperparameters, d.logged_metrics, d.origins)
            for (name, checkpoint), d in zip(
                opened.checkpoints.items(), opened.details.values(), strict=True
            )
        }
        sweep = cls(
            folder,
            ingredients,
            Ingredient(base or BASE, opened.base) if opened.base else None,
            opened.report,
            weights=weights,
            snapshot=snapshot,
            columns=opened.columns,
            logged_columns=opened.logged_columns,
        )
        sweep.urls = opened.urls
        return sweep

    @classmethod
    @with_bar("Reading checkpoints")
    def from_urls(
        cls,
        urls: str | Sequence[str],
        *,
        base: str | None = None,
        weights: Weights = "",
        snapshot: Snapshots = "",
        refresh: bool = False,
        on_progress: Progress = no_progress,
        progress: bool = True,
    ) -> "Sweep":
        """Open checkpoints on the Hugging Face Hub, on S3 or elsewhere.

        `hf://org/repo@revision`, `hf://org/repo@revision/file`, `s3://bucket/path`, and other
        schemes of fsspec. Wildcards in a revision or path name several, such as the snapshots of a
        run: `hf://org/run@step-*`. `NAME=URL` names an ingredient, so `base=hf://org/repo` names
        the base. A file called `sweep.csv` or `sweep.jsonl` is the table of the runs.

        URLs are resolved once, to a commit, or to a version or ETag. Later, they mean the same
        files, even if the branch or bucket has changed. First, only headers are read; checkpoints
        that do not fit the others are not downloaded. The rest is downloaded once into the cache in
        the workspace (see `soupcore.remote.Cache`), and their weights are read from there.

        Credentials are those of the user: `$HF_TOKEN` or `hf auth login`, and those of AWS.

        Args:
            urls: The URLs.
            base: See `from_folder`.
            weights: See `from_folder`.
            snapshot: See `from_folder`.
            refresh: Whether to resolve the URLs again, and use the current files.
            on_progress: Called with the number of bytes done and in total. Raise in it to cancel;
                the next call continues there.
            progress: See `from_folder`.

        Raises:
            RemoteError: A URL names nothing, access is refused, a file was changed after its URL
                was resolved, or a package is missing.
            StoreError: The budget of the cache or the disk is too small.
            SweepError: See `from_folder`.
        """
        return cls.from_folder(
            RemoteSweep.of(urls).folder,
            base=base,
            weights=weights,
            snapshot=snapshot,
            refresh=refresh,
            on_progress=on_progress,
        )

    @property
    def weight_sets(self) -> list[WeightSet]:
        """The weight sets available in the checkpoints, each title once."""
        base = [self.base] if self.base else []
        found: dict[str, WeightSet] = {}
        for ingredient in (*self.ingredients.values(), *base):
            for weight_set in ingredient.checkpoint.weight_sets:
                found.setdefault(weight_set.title, weight_set)
        return list(found.values())

    def names(self, names: Iterable[str] | None = None) -> list[str]:
        """Return the given names in the sweep's order; by default, all names.

        Raises:
            SweepError: A name is not in the sweep.
        """
        if names is None:
            return list(self.ingredients)
        wanted = set(names)
        if unknown := wanted - self.ingredients.keys():
            raise self._unknown(min(unknown))
        return [name for name in self.ingredients if name in wanted]

    def _unknown(self, name: str) -> SweepError:
        return SweepError(f"{self.folder} has no usable ingredient {name!r}.")

    def __getitem__(self, name: str) -> Ingredient:
        """Return an ingredient or the base by name."""
        if self.base is not None and name == self.base.name:
            return self.base
        if name not in self.ingredients:
            raise self._unknown(name)
        return self.ingredients[name]

    def __len__(self) -> int:
        return len(self.ingredients)

    def including(self, checkpoints: Mapping[str, Checkpoint]) -> "Sweep":
        """Return a sweep with additional ingredients, such as soups (`soup.checkpoint`).

        Args:
            checkpoints: `{name: checkpoint}`. They must have the sweep's tensors, which is checked
                only when they are mixed.

        Raises:
            SweepError: A name already exists.
        """
        taken = self.ingredients.keys() | ({self.base.name} if self.base else set())
        if twice := taken & checkpoints.keys():
            raise SweepError(
                f"{self.folder} already has an ingredient {min(twice)!r}; use another name."
            )
        more = {name: Ingredient(name, checkpoint) for name, checkpoint in checkpoints.items()}
        sweep = copy.copy(self)
        sweep.ingredients = self.ingredients | more
        return sweep

    @property
    def new_tensors(self) -> frozenset[str]:
        """Tensors of the ingredients that the base lacks or has in another shape, as a new head."""
        base = self.base.checkpoint if self.base is not None and not self.fixed else None
        return base.fixed if isinstance(base, Fixed) else frozenset()

    def with_tensors(self, take: str = ALL, rest: str | Sequence[str] = ()) -> "Sweep":
        """Return the sweep with a rule on which tensors take part in recipes.

        Every recipe follows the rule: `greedy(sweep.with_tensors("all but the head"), evaluator)`.

        Args:
            take: `all`, `all but the head`, `all but the embeddings`, or a pattern: prefixes of
                names, or globs, separated by commas, with `!` for tensors to leave out, such as
                `backbone.*, !*.bias`. If the base fits in part, the tensors that it lacks are the
                head. Otherwise, it is the module that libraries call `head`, `classifier`, `fc` or
                alike, or the last one of a `torch.nn.Sequential`.
            rest: Names of ingredients, or of the base, whose mean the other tensors come from; by
                default, the mean of all ingredients that a recipe is given. Tensors that the base
                lacks come from there too in recipes that need a base.

        Raises:
            SweepError: No tensor takes part, a part of the pattern matches none, or a name is not
                in the sweep.
        """
        names = (rest,) if isinstance(rest, str) else tuple(rest)
        for name in names:
            self[name]
        sweep = copy.copy(self)
        sweep.rule = TensorRule(take, names)
        sweep._left_out()
        return sweep

    def _left_out(self) -> list[str]:
        layout = next(iter(self.ingredients.values())).checkpoint
        return left_out(self.rule.take, layout, self.new_tensors)

    def for_recipe(self, names: Sequence[str], *, uses_base: bool) -> "Sweep":
        """Return the sweep for a recipe, in which tensors that take no part are the same in all.

        Args:
            names: The ingredients that the recipe is given.
            uses_base: Whether the recipe uses the base. If it does, tensors that the base lacks
                take no part.
        """
        if self.fixed:
            return self
        layout = next(iter(self.ingredients.values())).checkpoint.tensors
        new, base = self.new_tensors, self.base.name if self.base is not None else None
        outside = {*self._left_out(), *(new if uses_base else ())}
        given = tuple(names) or tuple(self.ingredients)
        rest = self.rule.rest or given
        others = tuple(name for name in rest if name != base) or given
        # The base has no values of its own for tensors that it lacks.
        missing = new if base in rest else frozenset()
        parts = (
            (rest, [t for t in layout if t in outside and t not in missing]),
            (others, [t for t in layout if t in outside and t in missing]),
        )
        fixed = [FixedTensors.mean_of(tensors, source) for source, tensors in parts if tensors]
        return self.fix(fixed, names) if fixed else self

    def fix(
        self,
        fixed: Sequence[FixedTensors],
        names: Iterable[str],
        *,
        rule: TensorRule | None = None,
    ) -> "Sweep":
        """Return the sweep with the same values of some tensors in all ingredients and the base.

        Args:
            fixed: The tensors, and where their values come from.
            names: The ingredients to change; the others stay unchanged.
            rule: The rule that led to this; by default, that of the sweep.
        """
        if not fixed:
            return self
        groups = [
            Group(
                each.tensors,
                Mixture((own_of(self[n].checkpoint), c) for n, c in each.coefficients.items()),
            )
            for each in fixed
        ]

        def changed(ingredient: Ingredient) -> Ingredient:
            return replace(ingredient, checkpoint=Fixed(own_of(ingredient.checkpoint), groups))

        sweep = copy.copy(self)
        sweep.rule = self.rule if rule is None else rule
        sweep.fixed = tuple(fixed)
        chosen = {name for name in names if name in self.ingredients}
        sweep.ingredients = {
            name: changed(each) if name in chosen else each
            for name, each in self.ingredients.items()
        }
        sweep.base = self.base and changed(self.base)
        return sweep

    def mixture(self, coefficients: Mapping[str, Coefficient]) -> Mixture:
        """Return Σ cᵢθᵢ for coefficients by name, which may include the base.

        Raises:
            SweepError: A name is not in the sweep.
        """
        return Mixture((self[name].checkpoint, c) for name, c in coefficients.items())

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per ingredient with its hyperparameters and logged metrics."""
        import pandas as pd

        rows = [self._row(ingredient) for ingredient in self.ingredients.values()]
        index = pd.Index([*self.ingredients], name="ingredient")
        return pd.DataFrame(rows, index=index, columns=self._heads)

    def __repr__(self) -> str:
        base = "no base" if self.base is None else f"base {self.base.name!r}"
        excluded = f", {len(self.fit.misfits)} excluded" if self.fit.misfits else ""
        return f"Sweep({str(self.folder)!r}: {len(self)} ingredients, {base}{excluded})"

    def _repr_html_(self) -> str:
        rows = [(name, *self._row(ingredient)) for name, ingredient in self.ingredients.items()]
        base = "No base." if self.base is None else f"Base: {self.base.name}."
        excluded = f" Excluded: {', '.join(sorted(self.fit.misfits))}." if self.fit.misfits else ""
        title = f"Sweep {self.folder.name}"
        return html_table(title, ["ingredient", *self._heads], rows, note=base + excluded)

    def _row(self, ingredient: Ingredient) -> list[Scalar | None]:
        return [
            *map(ingredient.hyperparameters.get, self.columns),
            *map(ingredient.logged_metrics.get, self.logged_columns),
        ]

    @property
    def _heads(self) -> list[str]:
        return [*self.columns, *(f"{name} (logged)" for name in self.logged_columns)]
