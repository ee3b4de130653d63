"""The ingredients of one fine-tuning sweep, and how well they fit together."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from soupcore.checkpoints import Checkpoint, WeightSet
from soupcore.checkpoints.contents import NotRead, remembered_only
from soupcore.errors import SweepError
from soupcore.mixtures import Coefficient, Mixture
from soupcore.sweeps.checkpoints import Weights, open_all, scan_all
from soupcore.sweeps.findings import Finding, FitReport, NothingFitsError
from soupcore.sweeps.fit import check_fit, without_misfits
from soupcore.sweeps.folder import find_checkpoints, find_leftovers
from soupcore.sweeps.hyperparameters import (
    Scalar,
    choose_columns,
    read_sidecar,
    read_table,
    with_details,
)

BASE = "base"


@dataclass(frozen=True)
class Ingredient:
    """A checkpoint taking part in a sweep.

    Attributes:
        name: What it is called: the name of its file or folder.
        checkpoint: Its weights, under the tensor names that all of the sweep have.
        hyperparameters: How it was trained.
    """

    name: str
    checkpoint: Checkpoint
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Identity of its weights."""
        return self.checkpoint.digest

    @cached_property
    def mixture(self) -> Mixture:
        """The point in weight space where it lies."""
        return Mixture([(self.checkpoint, 1)])


class Sweep:
    """Ingredients by name, in natural order, with the base where there is one.

    Attributes:
        folder: Where they were found.
        ingredients: `{name: Ingredient}`, those that can be averaged with each other.
        base: The shared initialisation θ₀, or None.
        fit: What was found about every file, the misfits that were left out included.
        weights: Which weight sets were asked for; empty: those that each tool takes itself.
        columns: The hyperparameters worth a column, those of the tables and sidecars first.
    """

    def __init__(
        self,
        folder: Path,
        ingredients: Mapping[str, Ingredient],
        base: Ingredient | None,
        fit: FitReport,
        *,
        weights: Weights = "",
        columns: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.ingredients = dict(ingredients)
        self.base = base
        self.fit = fit
        self.weights = weights
        self.columns = list(columns)

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        base: str | None = None,
        weights: Weights = "",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "Sweep":
        """Open the checkpoints in a folder and check how they fit, before any work.

        Every checkpoint is an ingredient: files that hold weights, shard indices, and sub-folders
        with one checkpoint in them, under its file or folder name. Wrappers' prefixes of tensor
        names (`module.` and its like) make no difference. Hyperparameters come from `sweep.jsonl`
        or `sweep.csv` (a `checkpoint` or `name` column says whose they are) or from
        `<name>.json`, then from what a checkpoint says of its run. The first look at a file reads
        it whole, to know its digest and whether its values are finite; later ones read headers
        only.

        Args:
            path: The folder.
            base: Name of the ingredient that is the shared initialisation. Unless given it is the
                one called `base`, where there is one that can be used.
            weights: Which weight set to open, where a file has several (raw and EMA, say): its
                name or title for all of them, or `{ingredient: name}`. Those not told about give
                the set that the tool which wrote them takes itself.
            on_progress: Called with bytes read and in all; raise in it to stop.

        Raises:
            SweepError: The folder holds no checkpoint that can be used (a `NothingFitsError`), its
                table cannot be read, or the base that was named cannot be used.
        """
        folder = Path(path)
        paths = find_checkpoints(folder)
        if not isinstance(weights, str) and (unknown := weights.keys() - paths.keys()):
            raise SweepError(f"{folder} has no checkpoint {min(unknown)!r} to choose weights of.")
        opened, findings = open_all(paths, weights)
        findings += scan_all(opened, on_progress)
        base_name = base or BASE
        table = read_table(folder)
        findings += _rows_without_checkpoint(table, paths)
        fit = check_fit(without_misfits(opened, findings), base_name)
        findings += fit.findings
        report = FitReport(tuple(findings), fit.reference, tuple(find_leftovers(folder)))
        if base and fit.base is None:
            raise _bad_base(folder, base, findings)
        if not fit.checkpoints:
            raise NothingFitsError(folder, report)
        told = {name: _told(paths[name], name, table) for name in fit.checkpoints}
        return cls(
            folder,
            {
                name: Ingredient(name, checkpoint, with_details(told[name], checkpoint.details))
                for name, checkpoint in fit.checkpoints.items()
            },
            Ingredient(base_name, fit.base) if fit.base else None,
            report,
            weights=weights,
            columns=choose_columns(
                [*told.values()], [checkpoint.details for checkpoint in fit.checkpoints.values()]
            ),
        )

    @property
    def weight_sets(self) -> list[WeightSet]:
        """The weight sets that its checkpoints have to choose from, each title once."""
        base = [self.base] if self.base else []
        found: dict[str, WeightSet] = {}
        for ingredient in (*self.ingredients.values(), *base):
            for weight_set in ingredient.checkpoint.weight_sets:
                found.setdefault(weight_set.title, weight_set)
        return list(found.values())

    def names(self, names: Iterable[str] | None = None) -> list[str]:
        """Return these names in the sweep's order, all of them where none are given.

        Raises:
            SweepError: A name is not in the sweep.
        """
        if names is None:
            return list(self.ingredients)
        wanted = set(names)
        if unknown := wanted - self.ingredients.keys():
            raise SweepError(f"{self.folder} has no ingredient {min(unknown)!r} that can be used.")
        return [name for name in self.ingredients if name in wanted]

    def __getitem__(self, name: str) -> Ingredient:
        """Return an ingredient, or the base under its name."""
        if self.base is not None and name == self.base.name:
            return self.base
        (known,) = self.names([name])
        return self.ingredients[known]

    def __len__(self) -> int:
        return len(self.ingredients)

    def including(self, checkpoints: Mapping[str, Checkpoint]) -> "Sweep":
        """Return a sweep with more ingredients: soups (`soup.checkpoint`), or files from elsewhere.

        Args:
            checkpoints: `{name: checkpoint}`; they have to hold the sweep's tensors, which shows
                when they are mixed.

        Raises:
            SweepError: A name is taken.
        """
        taken = self.ingredients.keys() | ({self.base.name} if self.base else set())
        if twice := taken & checkpoints.keys():
            raise SweepError(f"{self.folder} has an ingredient {min(twice)!r}; name it otherwise.")
        more = {name: Ingredient(name, checkpoint) for name, checkpoint in checkpoints.items()}
        return Sweep(
            self.folder,
            self.ingredients | more,
            self.base,
            self.fit,
            weights=self.weights,
            columns=self.columns,
        )

    def mixture(self, coefficients: Mapping[str, Coefficient]) -> Mixture:
        """Return Σ cᵢθᵢ over coefficients by name (base included).

        Raises:
            SweepError: A name is not in the sweep.
        """
        return Mixture((self[name].checkpoint, c) for name, c in coefficients.items())

    def __repr__(self) -> str:
        return f"Sweep({str(self.folder)!r}, {len(self)} ingredients, base={self.base is not None})"


def is_scanned(folder: str | Path, weights: Weights = "") -> bool:
    """Whether opening the sweep would read headers only, every file having been read before."""
    try:
        with remembered_only():
            opened, _ = open_all(find_checkpoints(Path(folder)), weights)
    except NotRead:
        return False
    return all(checkpoint.is_scanned for checkpoint in opened.values())


def _bad_base(folder: Path, name: str, findings: Iterable[Finding]) -> SweepError:
    misfits = (f for f in findings if f.ingredient == name and f.severity == "misfit")
    found = next(misfits, None)
    if found is None:
        return SweepError(f"{folder}: the base {name!r} cannot be used: it is missing.")
    where = f"tensor {found.tensor!r}: " if found.tensor else ""
    problem = found.problem.rstrip(".")
    return SweepError(f"{folder}: the base {name!r} cannot be used: {where}{problem}.")


def _told(path: Path, name: str, table: Mapping[str, dict[str, Scalar]]) -> dict[str, Scalar]:
    for label in (path.name, name):
        if label in table:
            return table[label]
    sidecar = path.with_name(f"{name}.json")
    return read_sidecar(sidecar) if sidecar.is_file() else {}


def _rows_without_checkpoint(
    table: Mapping[str, dict[str, Scalar]], paths: Mapping[str, Path]
) -> list[Finding]:
    labels = {label for name, path in paths.items() for label in (name, path.name)}
    return [
        Finding(
            "warning",
            row,
            "",
            "the sweep's table describes it, but there is no such checkpoint",
            "Copy the checkpoint here, or remove the row.",
        )
        for row in table
        if row not in labels
    ]
