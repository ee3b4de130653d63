"""The models in one folder: files that belong together, and the forms of each model.

`model.safetensors`, `pytorch_model.bin` and `model.fp16.safetensors` are forms of one model. Only
one form is opened: full precision is preferred to variants, safetensors to torch, and an index with
shards to a single file.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted

from soupcore.checkpoints.names import clean
from soupcore.checkpoints.recognition import (
    INDEX_SUFFIXES,
    LARGEST_INDEX,
    SHARD_NUMBER,
    holds_weights,
    index_of_shard,
    is_checkpoint_name,
    is_leftover,
    stem_of,
    suffix_of,
)
from soupcore.safe_torch.refusal import WAIT

Trouble = tuple[str, str]
"""A problem, as a predicate, and the solution, as a sentence."""

# A precision, or a variant of diffusers.
_VARIANT = re.compile(
    r"(?:[._-](fp16|fp32|bf16|float16|float32|bfloat16|half|fp8|int8)|\.(ema|non_ema))$",
    re.IGNORECASE,
)
_NAMES = {"pytorch_model": "model"}  # Hugging Face's name for a model in torch's format


@dataclass(frozen=True)
class Model:
    """A model in a folder.

    Attributes:
        name: Its name without suffix and variant; `model` for `pytorch_model`.
        path: The file or index to open; the folder for shards without an index.
        files: All files that belong to it.
        left_out: Other forms of it that are not opened, as `(file name, reason)`.
        trouble: Why it cannot be opened, if the file names show that.
    """

    name: str
    path: Path
    files: tuple[Path, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    trouble: Trouble | None = None


@dataclass(frozen=True)
class _Form:
    path: Path
    files: tuple[Path, ...]
    variant: str
    trouble: Trouble | None = None

    @property
    def preference(self) -> tuple[bool, bool, bool, str]:
        name = self.files[0].name
        is_index = suffix_of(self.path) in INDEX_SUFFIXES
        return bool(self.variant), ".safetensors" not in name.lower(), not is_index, name


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold weights and the shard indices, sorted.

    The first bytes of files decide only if no file holds weights by its name, because training
    tools also save other data with torch.
    """
    files = sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and not is_leftover(entry) and entry.is_file()
    )
    return [*filter(is_checkpoint_name, files)] or [*filter(holds_weights, files)]


def models_in(folder: Path, files: Iterable[Path]) -> list[Model]:
    """Return the models that consist of these files, in natural order of their names."""
    forms: dict[str, list[_Form]] = defaultdict(list)
    for name, form in _forms(folder, list(files)):
        forms[name].append(form)
    models = []
    for name in natsorted(forms):
        first, *others = sorted(forms[name], key=lambda form: form.preference)
        belonging = tuple(file for form in (first, *others) for file in form.files)
        left_out = tuple((other.files[0].name, _why_not(other, first)) for other in others)
        models.append(Model(name, first.path, belonging, left_out, first.trouble))
    return models


def why_distributed(folder: Path) -> Trouble:
    """Return why a folder of a distributed checkpoint of torch cannot be opened."""
    command = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
    return (
        f"is a distributed checkpoint of torch ({clean(folder.name)}/*.distcp)",
        f"Write its weights as one file: {command} {clean(folder.name)} model.pt",
    )


def _why_not(other: _Form, chosen: _Form) -> str:
    """Return why a form of a model is not opened."""
    if other.variant and not chosen.variant:
        return f"a variant ({other.variant})"
    return "the same model in another format, by its name"


def _forms(folder: Path, files: list[Path]) -> list[tuple[str, _Form]]:
    indices = {file.name: file for file in files if suffix_of(file) in INDEX_SUFFIXES}
    shards: dict[str, list[Path]] = defaultdict(list)
    single = []
    listed = _listed_in(indices.values(), files)
    for file in files:
        number = SHARD_NUMBER.search(file.name)
        if file.name in indices:
            shards.setdefault(file.name, [])
        elif file in listed:
            shards[listed[file].name].append(file)
        elif number and (int(number["total"]) > 1 or index_of_shard(file.name) in indices):
            shards[index_of_shard(file.name)].append(file)
        else:
            single.append(file)
    forms = []
    for index, parts in shards.items():
        name, variant = _name_and_variant(stem_of(Path(index)))
        if index in indices:
            form = _Form(indices[index], (indices[index], *parts), variant)
        else:
            form = _Form(folder, tuple(parts), variant, _trouble_of(index, parts, files))
        forms.append((name, form))
    for file in single:
        name, variant = _name_and_variant(stem_of(file))
        forms.append((name, _Form(file, (file,), variant)))
    return forms


def _listed_in(indices: Iterable[Path], files: Iterable[Path]) -> dict[Path, Path]:
    """Return `{file: index}` of the listed shards whose own names are not those of shards."""
    unclear = [
        f for f in files if suffix_of(f) not in INDEX_SUFFIXES and not index_of_shard(f.name)
    ]
    listed: dict[Path, Path] = {}
    for index in indices if unclear else ():
        with index.open("rb") as opened:
            content = opened.read(LARGEST_INDEX)
        listed |= {file: index for file in unclear if json.dumps(file.name).encode() in content}
    return listed


def _name_and_variant(stem: str) -> tuple[str, str]:
    found = _VARIANT.search(stem)
    variant, name = "", stem
    if found and found.start():
        variant, name = found[1] or found[2], stem[: found.start()]
    return _NAMES.get(name, name), variant


def _trouble_of(index: str, parts: list[Path], files: list[Path]) -> Trouble | None:
    """Return why shards without their index cannot be opened; None if they are complete."""
    match = SHARD_NUMBER.search(parts[0].name)
    total = int(match["total"]) if match else 0
    if suffix_of(parts[0]) != ".safetensors" or len(parts) < len(files):
        shard = clean(parts[0].name)
        problem = f"holds shards of a checkpoint ({shard}, …) without their index, {clean(index)}"
        return problem, f"Copy it beside them. {WAIT}"
    if total != len(parts):
        problem = (
            f"holds {len(parts)} safetensors files and no index, but by its name "
            f"{clean(parts[0].name)} is one of {total}"
        )
        return problem, f"Copy the missing ones. {WAIT}"
    return None
