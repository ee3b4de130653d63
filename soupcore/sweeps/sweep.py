"""The ingredients of one fine-tuning sweep, and how well they fit together."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from natsort import natsorted

from soupcore.checkpoints import Checkpoint, open_checkpoint
from soupcore.checkpoints.digest import stamp
from soupcore.checkpoints.opening import INDEX_SUFFIX, is_checkpoint_name
from soupcore.errors import CheckpointError, SweepError
from soupcore.mixtures import Coefficient, Mixture
from soupcore.sweeps.fit import Finding, FitReport, check_fit
from soupcore.sweeps.hyperparameters import Scalar, read_sidecar, read_table

BASE = "base"


@dataclass(frozen=True)
class Ingredient:
    """A checkpoint taking part in a sweep."""

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
    """

    def __init__(
        self,
        folder: Path,
        ingredients: Mapping[str, Ingredient],
        base: Ingredient | None,
        fit: FitReport,
    ) -> None:
        self.folder = folder
        self.ingredients = dict(ingredients)
        self.base = base
        self.fit = fit

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        base: str | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "Sweep":
        """Open the checkpoints in a folder and check how they fit, before any work.

        Every checkpoint is an ingredient: files that hold weights, shard indices, and sub-folders
        with one checkpoint in them, under its file or folder name. Hyperparameters come from
        `sweep.jsonl` or `sweep.csv` (a `checkpoint` or `name` column says whose they are) or from
        `<name>.json`. The first look at a file reads it whole, to know its digest and whether its
        values are finite; later ones read headers only.

        Args:
            path: The folder.
            base: Name of the ingredient that is the shared initialisation; `base` if there is one.
            on_progress: Called with bytes read and in all; raise in it to stop.

        Raises:
            SweepError: The folder holds no checkpoint that can be used, its table cannot be read,
                or the base is missing, unreadable or not finite.
        """
        folder = Path(path)
        paths = find_checkpoints(folder)
        opened, findings = _open_all(paths)
        _scan_all(opened, on_progress)
        base_name = base or (BASE if BASE in paths else None)
        if base_name is not None and base_name not in opened:
            problem = next((f.problem for f in findings if f.ingredient == base_name), "missing")
            raise SweepError(f"{folder}: the base {base_name!r} cannot be used: {problem}")
        base_checkpoint = opened.pop(base_name) if base_name else None
        if base_checkpoint is not None and base_checkpoint.nonfinite:
            tensor, count = next(iter(base_checkpoint.nonfinite.items()))
            raise SweepError(
                f"{folder}: the base {base_name!r} cannot be used: {count} of "
                f"{base_checkpoint.tensors[tensor].numel} values of tensor {tensor!r} are NaN or "
                "infinite. Put a whole one there, or remove it."
            )
        table = read_table(folder)
        findings += _rows_without_checkpoint(table, paths)
        findings += check_fit(opened, base_checkpoint)
        fit = FitReport(tuple(findings))
        ingredients = {
            name: Ingredient(name, checkpoint, _hyperparameters(paths[name], name, table))
            for name, checkpoint in opened.items()
            if name not in fit.misfits
        }
        if not ingredients:
            reason = f": {findings[0].ingredient}: {findings[0].problem}" if findings else ""
            raise SweepError(f"{folder} holds no checkpoint that can be used{reason}.")
        return cls(
            folder,
            ingredients,
            Ingredient(base_name, base_checkpoint) if base_name and base_checkpoint else None,
            fit,
        )

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
        return Sweep(self.folder, self.ingredients | more, self.base, self.fit)

    def mixture(self, coefficients: Mapping[str, Coefficient]) -> Mixture:
        """Return Σ cᵢθᵢ over coefficients by name (base included).

        Raises:
            SweepError: A name is not in the sweep.
        """
        return Mixture((self[name].checkpoint, c) for name, c in coefficients.items())

    def __repr__(self) -> str:
        return f"Sweep({str(self.folder)!r}, {len(self)} ingredients, base={self.base is not None})"


def find_checkpoints(folder: Path) -> dict[str, Path]:
    """Return the checkpoints in a folder by the names they will have, in natural order.

    Raises:
        SweepError: The folder does not exist, or two checkpoints would have the same name.
    """
    if not folder.is_dir():
        raise SweepError(f"{folder} is not a folder.")
    found: dict[str, Path] = {}
    for path in natsorted(_candidates(folder), key=lambda path: (_name(path), path.name)):
        name = _name(path)
        if name in found:
            raise SweepError(
                f"{folder} holds {found[name].name} and {path.name}, both named {name!r}; "
                "rename or remove one."
            )
        found[name] = path
    return found


def folder_signature(folder: str | Path) -> str:
    """Return a text that changes when a file in the folder, or in one below it, changes."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SweepError(f"{folder} is not a folder.")
    files = [file for pattern in ("*", "*/*") for file in folder.glob(pattern) if file.is_file()]
    return stamp(sorted(files))


def is_scanned(folder: str | Path) -> bool:
    """Whether opening the sweep would read headers only, every file having been read before."""
    opened, _ = _open_all(find_checkpoints(Path(folder)))
    return all(checkpoint.is_scanned for checkpoint in opened.values())


def _name(path: Path) -> str:
    if path.is_dir():
        return path.name
    return path.name.removesuffix(INDEX_SUFFIX) if path.name.endswith(INDEX_SUFFIX) else path.stem


def _candidates(folder: Path) -> list[Path]:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    files = [entry for entry in entries if entry.is_file() and is_checkpoint_name(entry)]
    indices = {file.name for file in files if file.name.endswith(INDEX_SUFFIX)}
    shards_apart = [
        file for file in files if file.name in indices or _index_of_shard(file.name) not in indices
    ]
    folders = [entry for entry in entries if entry.is_dir() and any(entry.glob("*.safetensors*"))]
    return shards_apart + folders


def _index_of_shard(name: str) -> str:
    return re.sub(r"-\d+-of-\d+\.safetensors$", INDEX_SUFFIX, name)


def _open_all(paths: Mapping[str, Path]) -> tuple[dict[str, Checkpoint], list[Finding]]:
    opened: dict[str, Checkpoint] = {}
    findings = []
    for name, path in paths.items():
        try:
            opened[name] = open_checkpoint(path)
        except (CheckpointError, OSError) as error:
            findings.append(
                Finding("misfit", name, "", str(error), "Leave it out, or put a whole file there.")
            )
    return opened, findings


def _scan_all(
    checkpoints: Mapping[str, Checkpoint], on_progress: Callable[[int, int], None]
) -> None:
    total = sum(checkpoint.nbytes for checkpoint in checkpoints.values())
    done = 0

    def on_bytes(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        on_progress(done, total)

    for checkpoint in checkpoints.values():
        if checkpoint.is_scanned:
            on_bytes(checkpoint.nbytes)
        else:
            checkpoint.scan(on_bytes)


def _hyperparameters(
    path: Path, name: str, table: Mapping[str, dict[str, Scalar]]
) -> dict[str, Scalar]:
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
