"""File names of checkpoints: which files hold weights, and their stems."""

import re
from pathlib import Path

from soupcore.checkpoints.not_weights import looks_like_checkpoint

INDEX_SUFFIX = ".safetensors.index.json"
INDEX_SUFFIXES = (INDEX_SUFFIX, ".bin.index.json")
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pt.tar", ".pth.tar")
LARGEST_INDEX = 32 << 20  # bytes
SUFFIXES = (".safetensors", *TORCH_SUFFIXES, *INDEX_SUFFIXES)
# Suffixes of torch files and of other files. The first bytes decide.
OTHER_SUFFIXES = (".t7", ".tar", ".th", ".pyth", ".pkl", ".pickle", ".model", ".weights")
SHARD_NUMBER = re.compile(r"-\d+-of-(?P<total>\d+)(?P<suffix>\.(safetensors|bin))$", re.IGNORECASE)

# Files that training tools write beside the weights: states of optimizer, scheduler and random
# numbers, and arguments (Hugging Face's Trainer, Accelerate, DeepSpeed).
_LEFTOVER = re.compile(
    r"(optimizer|scheduler|scaler|sampler)(_\d+)?\.(pt|bin|ckpt)|rng_state(_\d+)?\.pth|"
    r"random_states_\d+\.pkl|training_args\.bin|.+_optim_states\.pt"
)
_LEFT_BY_SPEECHBRAIN = re.compile(
    r"(optimizer|scheduler|lr_annealing|dataloader|counter|epoch_counter|brain|normalizer|noam|"
    r"modelopt).*\.ckpt"
)


def suffix_of(path: Path) -> str:
    """Return the suffix of a checkpoint in lower case, such as `.pth.tar`; "" for other files."""
    name = path.name.lower()
    return next((end for end in SUFFIXES if name.endswith(end) and name != end), "")


def stem_of(path: Path) -> str:
    """Return the name of a checkpoint without its suffix."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_checkpoint_name(path: Path) -> bool:
    """Return whether a file is a checkpoint, shard or shard index by its name."""
    return suffix_of(path) != ""


def holds_weights(path: Path) -> bool:
    """Return whether a file holds weights by its name, or else by its first bytes."""
    if is_checkpoint_name(path):
        return True
    # Parts of a distributed checkpoint begin like files of torch.save.
    return not is_distributed(path) and looks_like_checkpoint(path, by_suffix=OTHER_SUFFIXES)


def is_leftover(path: Path) -> bool:
    """Return whether a file's exact name is that of a training state beside the weights."""
    if path.parent.name.startswith("CKPT+") and _LEFT_BY_SPEECHBRAIN.fullmatch(path.name):
        return True
    return _LEFTOVER.fullmatch(path.name) is not None


def is_distributed(path: Path) -> bool:
    """Return whether a file is a part of a distributed checkpoint of torch, by its name."""
    return path.suffix == ".distcp"


def index_of_shard(name: str) -> str:
    """Return the name of a shard's index, derived from the shard's name; "" for other files."""
    number = SHARD_NUMBER.search(name)
    return f"{name[: number.start()]}{number['suffix']}.index.json" if number else ""
