"""Recognition of files with weights, by their names and by their first bytes."""

import codecs
import os
import re
from pathlib import Path

from soupcore.errors import CheckpointError
from soupcore.safe_torch.refusal import INCOMPLETE

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

BEGINNING = 512  # bytes that are read

_UNPACK = "Unpack it."
_CONVERT = "Convert the weights to safetensors."
# First bytes, a description of the file, and the solution.
_BINARY_KINDS = (
    (b"\x1f\x8b", "compressed with gzip, not a checkpoint", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd, not a checkpoint", _UNPACK),
    (b"\xfd7zXZ\0", "compressed with xz, not a checkpoint", _UNPACK),
    (b"BZh", "compressed with bzip2, not a checkpoint", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, not a checkpoint", _UNPACK),
    (b"Rar!", "a RAR archive, not a checkpoint", _UNPACK),
    (b"\x89HDF", "an HDF5 file, not a torch or safetensors checkpoint", _CONVERT),
    (b"\x93NUMPY", "a NumPy array, not a torch or safetensors checkpoint", _CONVERT),
    (b"GGUF", "a GGUF file, which cannot be averaged", "Use the file that it was converted from."),
)
# Version of the format, then the name of the program that wrote it.
_ONNX = re.compile(rb"\x08[\x03-\x0f]\x12[\x03-\x40][ -~]{3}")
# The first characters of texts in lower case, a description, and the solution.
_TEXT_KINDS = (
    (
        ("version https://git-lfs", "version https://hawser"),
        "a Git LFS pointer, not the weights",
        "Run `git lfs pull` in its folder.",
    ),
    (
        ("<",),
        "a web page, not the weights: the server probably sent an error or a login page",
        "Open it in a browser, and download the weights again.",
    ),
    (
        ("{", "["),
        "JSON, not the weights: the server probably sent an error message",
        "Open it in an editor, and download the weights again.",
    ),
)
_SHORTEST = 8  # characters of other texts; a shorter file may be truncated weights
_SHOWN = 60  # characters that an error shows

# Names of texts, images and other files that are never opened.
_NEVER = re.compile(
    r".*\.(txt|md|rst|log|out|err|ya?ml|jsonl?|toml|ini|cfg|csv|tsv|xml|html?|py|ipynb|sh|png|jpe?g|"
    r"gif|bmp|tiff?|svg|webp|wav|flac|mp3|mp4|avi|pdf|npy|npz|h5|parquet|arrow|tfrecord|zip|gz|bz2|"
    r"xz|zst)",
    re.IGNORECASE,
)
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch before 1.6: its magic number, pickled
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
# A zip whose first record is one of torch.save's. The name follows a header of 30 bytes.
_ARCHIVE = re.compile(
    rb"PK\x03\x04.{26}[^/\0]+/(data\.pkl|\.format_version|byteorder|version)", re.DOTALL
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
    return not is_distributed(path) and _begins_like_checkpoint(path)


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


def is_legacy(beginning: bytes) -> bool:
    """Return whether a file begins like one that torch before 1.6 wrote."""
    return beginning.startswith(_LEGACY)


def is_safetensors(beginning: bytes, size: int) -> bool:
    """Return whether a file of `size` bytes begins with a safetensors header."""
    return beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") <= size - 8


def check_beginning(path: Path, beginning: bytes) -> None:
    """Check that the first bytes of a file are not those of another kind of file.

    Args:
        path: The file, for the error.
        beginning: Its first `BEGINNING` bytes, or all of them.

    Raises:
        CheckpointError: The file is empty, text, an archive or of another format.
    """
    if not beginning:
        raise CheckpointError(f"{path} is empty.", INCOMPLETE)
    for signature, what, way_out in _BINARY_KINDS:
        if beginning.startswith(signature):
            raise CheckpointError(f"{path} is {what}.", way_out)
    if _ONNX.match(beginning):
        raise CheckpointError(
            f"{path} is an ONNX file, which cannot be averaged.",
            "Use the checkpoint that it was exported from.",
        )
    if len(beginning) == BEGINNING and not beginning.strip(b"\0"):
        raise CheckpointError(
            f"{path} begins with {BEGINNING} zeros: the download or copy is incomplete.",
            INCOMPLETE,
        )
    if beginning[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive.",
            "If it contains a checkpoint, unpack it. If torch before 0.1.10 wrote it, load it with "
            "torch and save it again.",
        )
    _check_no_text(path, _text(beginning))


def _begins_like_checkpoint(path: Path) -> bool:
    """Return whether the first bytes of a file are those of safetensors or torch.

    With one of `OTHER_SUFFIXES` any pickle counts, since some tools pickle weights.
    """
    if _NEVER.fullmatch(path.name):
        return False
    try:
        with path.open("rb") as file:
            beginning = file.read(BEGINNING)
            size = file.seek(0, os.SEEK_END)
    except OSError:
        return False
    if is_safetensors(beginning, size) or is_legacy(beginning) or _ARCHIVE.match(beginning):
        return True
    return path.name.lower().endswith(OTHER_SUFFIXES) and _PICKLE.match(beginning) is not None


def _check_no_text(path: Path, text: str) -> None:
    for signatures, what, way_out in _TEXT_KINDS:
        if text.lower().startswith(signatures):
            raise CheckpointError(f"{path} is {what}.", way_out)
    if len(text) >= _SHORTEST and "\N{REPLACEMENT CHARACTER}" not in text:
        raise CheckpointError(
            f"{path} is a text file, not weights: it begins with "
            f"{text.splitlines()[0][:_SHOWN]!r}.",
            "If you downloaded it, download it again, and log in first if the server requires it.",
        )


def _text(beginning: bytes) -> str:
    """Decode and strip the first bytes of a file; returns "" if they are not text."""
    encoding = "utf-8"
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in beginning[:2]:
        encoding = "utf-16"
        beginning = (codecs.BOM_UTF16_LE if beginning[0] else codecs.BOM_UTF16_BE) + beginning
    text = beginning.removeprefix(codecs.BOM_UTF8).decode(encoding, "replace")
    text = text.rstrip("\N{REPLACEMENT CHARACTER}").strip()  # the last character may be cut
    # Unlike texts, checkpoints have control characters in their first bytes.
    return text if all(mark.isprintable() or mark.isspace() for mark in text) else ""
