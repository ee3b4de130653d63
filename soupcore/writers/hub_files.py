"""The files beside the weights in a Hugging Face folder: configuration, tokenizer, processor.

They are found beside the weights of an ingredient, or in the run's folder above `checkpoint-N`. No
file with code is copied.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.bounded_json import parse_object
from soupcore.errors import CheckpointError

CONFIG, CARD = "config.json", "README.md"

_WEIGHTS = re.compile(
    r"(?:pytorch_)?(model|diffusion_pytorch_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)"
)
_BESIDE = re.compile(
    r"generation_config\.json|tokenizer[\w.-]*\.(?:json|model)|vocab[\w.-]*\.(?:json|txt)"
    r"|merges\.txt|special_tokens_map\.json|added_tokens\.json|normalizer\.json|spiece\.model"
    r"|sentencepiece[\w.-]*\.model|source\.spm|target\.spm|chat_template[\w.-]*\.(?:json|jinja)"
    r"|(?:(?:video_)?pre|image_)?processor_config\.json|feature_extractor_config\.json"
)
# Entries of a configuration that describe the location of a run, not its network.
_PLACES = ("_name_or_path", "_commit_hash")
_OF_RUN = (*_PLACES, "transformers_version")
_LARGEST_CONFIG = 4 << 20  # bytes
_LARGEST_CARD = 1 << 20
_AT_ONCE = 1 << 20

_TASKS = {
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
    "CausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "MaskedLM": "fill-mask",
    "ImageClassification": "image-classification",
    "ObjectDetection": "object-detection",
    "SemanticSegmentation": "image-segmentation",
    "AudioClassification": "audio-classification",
    "CTC": "automatic-speech-recognition",
    "SpeechSeq2Seq": "automatic-speech-recognition",
}


@dataclass(frozen=True)
class HubFiles:
    """The files and metadata of a Hugging Face model besides its weights.

    Attributes:
        stem: Name of the files of weights, `model` or `diffusion_pytorch_model`.
        config: The configuration of the first ingredient, without the path of its run.
        copied: `{name: path}` of files to copy from the first ingredient.
        notes: Sentences on files that differ between ingredients, or that are not copied.
        card: Entries of the front matter of the ingredients' cards, if they agree: `license`,
            `datasets`, `base_model` and `language`.
    """

    stem: str
    config: Mapping[str, Any]
    copied: Mapping[str, Path]
    notes: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def library_name(self) -> str:
        """The library that opens the folder: `transformers`, `diffusers` or `timm`."""
        if "_class_name" in self.config or "_diffusers_version" in self.config:
            return "diffusers"
        return "timm" if "architecture" in self.config else "transformers"

    @property
    def pipeline_tag(self) -> str:
        """The Hub's name of the network's task; "" if unknown."""
        if self.library_name == "timm":
            return "image-classification"
        names = self.config.get("architectures")
        name = str(names[0]) if isinstance(names, list) and names else ""
        return next((task for end, task in _TASKS.items() if name.endswith(end)), "")

    def config_text(self, dtype: torch.dtype | None) -> str:
        """Return the text of `config.json`.

        Args:
            dtype: Dtype of the weights, if chosen.
        """
        config = {name: value for name, value in self.config.items() if name not in _PLACES}
        if dtype is not None:
            named = [name for name in ("dtype", "torch_dtype") if name in config] or ["dtype"]
            config |= dict.fromkeys(named, str(dtype).removeprefix("torch."))
        return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def hub_files(ingredients: Mapping[str, Checkpoint], root: Path) -> HubFiles | None:
    """Return the files and metadata of a folder for `from_pretrained`.

    Args:
        ingredients: `{name: checkpoint}`, the first ingredient first.
        root: The folder of the sweep; nothing above it is read.

    Returns:
        None if the first ingredient is not from a folder with a `config.json`.
    """
    (first, checkpoint), *others = ingredients.items()
    weights = _WEIGHTS.fullmatch(checkpoint.files[0].name) if checkpoint.files else None
    found = _beside(checkpoint, root)
    config = _config(found.get(CONFIG))
    if weights is None or config is None:
        return None
    copied = {name: path for name, path in found.items() if _BESIDE.fullmatch(name)}
    notes = []
    for name, other in others:
        there = _beside(other, root)
        theirs = _config(there.get(CONFIG))
        if theirs is not None and _network(theirs) != _network(config):
            notes.append(f"{CONFIG} of {name} differs; that of {first} is used.")
        notes += [
            f"{file} of {name} differs; that of {first} is used."
            for file, path in copied.items()
            if file in there and not _same(path, there[file])
        ]
        extra = sorted(file for file in there if _BESIDE.fullmatch(file) and file not in copied)
        notes += [f"{file} of {name} is omitted, since {first} has none." for file in extra]
    code = sorted(path.name for path in checkpoint.files[0].parent.glob("*.py"))
    if code:
        notes.append(f"Code is not copied: {', '.join(code)}.")
    return HubFiles(weights[1], config, copied, tuple(notes), _card([*ingredients.values()], root))


def copy_file(source: Path, target: BinaryIO) -> None:
    """Copy the contents of a file into an open one."""
    with source.open("rb") as file:
        while block := file.read(_AT_ONCE):
            target.write(block)


def _beside(checkpoint: Checkpoint, root: Path) -> dict[str, Path]:
    """Return the files beside the weights, and in the folder above a snapshot."""
    if not checkpoint.files:
        return {}
    folder = checkpoint.files[0].parent
    folders = [folder]
    if folder.parent.is_relative_to(root) and folder.parent != root and folder != root:
        folders.insert(0, folder.parent)
    return {
        path.name: path
        for place in folders
        for path in sorted(place.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


def _config(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return parse_object(file.read(_LARGEST_CONFIG))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a JSON object ({error}).") from None


def _network(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _OF_RUN}


def _same(one: Path, other: Path) -> bool:
    stamps = [(s.st_size, s.st_mtime_ns) for s in (one.stat(), other.stat())]
    return stamps[0][0] == stamps[1][0] and _same_bytes(one, other, *stamps)


@lru_cache(4096)  # pages call it at every rerun
def _same_bytes(one: Path, other: Path, *stamps: tuple[int, int]) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while block := first.read(_AT_ONCE):
            if block != second.read(len(block)):
                return False
    return True


def _card(checkpoints: list[Checkpoint], root: Path) -> dict[str, Any]:
    """Return the entries on which the cards of the ingredients that have one agree."""
    cards = [card for checkpoint in checkpoints for card in _front_matter(checkpoint, root)]
    found = {}
    for name in ("license", "datasets", "base_model", "language"):
        values = [card[name] for card in cards if card.get(name)]
        if values and all(value == values[0] for value in values):
            found[name] = values[0]
    return found


def _front_matter(checkpoint: Checkpoint, root: Path) -> Iterator[dict[str, Any]]:
    path = _beside(checkpoint, root).get(CARD)
    if path is None or path.stat().st_size > _LARGEST_CARD:
        return
    parts = path.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return
    import yaml

    try:
        loaded = yaml.load(parts[1], yaml.BaseLoader)  # noqa: S506 - it constructs no objects
    except (yaml.YAMLError, RecursionError):
        return
    if isinstance(loaded, dict):
        yield {
            name: value
            for name, value in loaded.items()
            if isinstance(value, str)
            or (isinstance(value, list) and all(isinstance(each, str) for each in value))
        }
