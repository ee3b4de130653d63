"""Names of files: which ones hold weights, and what they are called without their suffix."""

import re
from pathlib import Path

from soupcore.checkpoints.not_weights import looks_like_checkpoint

INDEX_SUFFIX = ".safetensors.index.json"
INDEX_SUFFIXES = (INDEX_SUFFIX, ".bin.index.json")
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pt.tar", ".pth.tar")
LARGEST_INDEX = 32 << 20  # bytes
SUFFIXES = (".safetensors", *TORCH_SUFFIXES, *INDEX_SUFFIXES)
# What tools also call files of torch, and other files too: their first bytes decide.
OTHER_SUFFIXES = (".t7", ".tar", ".th", ".pyth", ".pkl", ".pickle", ".model", ".weights")
SHARD_NUMBER = re.compile(r"-\d+-of-(?P<total>\d+)(?P<suffix>\.(safetensors|bin))$", re.IGNORECASE)

# What training tools leave beside the weights: states of the optimizer, of the learning rate and of
# random numbers, and arguments (Hugging Face's Trainer, Accelerate, DeepSpeed).
_LEFTOVER = re.compile(
    r"(optimizer|scheduler|scaler|sampler)(_\d+)?\.(pt|bin|ckpt)|rng_state(_\d+)?\.pth|"
    r"random_states_\d+\.pkl|training_args\.bin|.+_optim_states\.pt"
)
_LEFT_BY_SPEECHBRAIN = re.compile(
    r"(optimizer|scheduler|lr_annealing|dataloader|counter|epoch_counter|brain|normalizer|noam|"
    r"modelopt).*\.ckpt"
)


def suffix_of(path: Path) -> str:
    """Return the suffix of a file of weights, in lower case: `.pth.tar`; "" for other files."""
    name = path.name.lower()
    return next((end for end in SUFFIXES if name.endswith(end) and name != end), "")


def stem_of(path: Path) -> str:
    """Return the name of a file of weights without the whole of its suffix."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_checkpoint_name(path: Path) -> bool:
    """Whether a file's name says that it holds weights (a shard index counts, its shards too)."""
    return suffix_of(path) != ""


def holds_weights(path: Path) -> bool:
    """Whether a file holds weights by its name, or by its first bytes where that says nothing."""
    return is_checkpoint_name(path) or looks_like_checkpoint(path, by_suffix=OTHER_SUFFIXES)


def is_leftover(path: Path) -> bool:
    """Whether a file is one that training tools leave beside the weights, by its exact name."""
    if path.parent.name.startswith("CKPT+") and _LEFT_BY_SPEECHBRAIN.fullmatch(path.name):
        return True
    return _LEFTOVER.fullmatch(path.name) is not None


def index_of_shard(name: str) -> str:
    """Return the name of the index that a shard belongs to by its name; "" where it is none."""
    number = SHARD_NUMBER.search(name)
    return f"{name[: number.start()]}{number['suffix']}.index.json" if number else ""
