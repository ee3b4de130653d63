"""What a file is by its first bytes: a checkpoint under any name, or something else."""

import codecs
import os
import re
from pathlib import Path

from soupcore.errors import CheckpointError

BEGINNING = 512  # bytes that are looked at

_UNPACK = "Unpack it."
_CONVERT = "Convert the weights to safetensors."
# First bytes, what the file is, and the way out.
_BINARY_KINDS = (
    (b"\x1f\x8b", "packed with gzip, not a checkpoint as it is", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed with zstd, not a checkpoint as it is", _UNPACK),
    (b"\xfd7zXZ\0", "packed with xz, not a checkpoint as it is", _UNPACK),
    (b"BZh", "packed with bzip2, not a checkpoint as it is", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, not a checkpoint as it is", _UNPACK),
    (b"Rar!", "a RAR archive, not a checkpoint as it is", _UNPACK),
    (b"\x89HDF", "an HDF5 file, not a checkpoint of torch or safetensors", _CONVERT),
    (b"\x93NUMPY", "an array of NumPy, not a checkpoint of torch or safetensors", _CONVERT),
    (b"GGUF", "a GGUF file, not weights to average", "Take the file that it was converted from."),
)
# Version of the format, then the name of the program that wrote it.
_ONNX = re.compile(rb"\x08[\x03-\x0f]\x12[\x03-\x40][ -~]{3}")
# The beginning of texts in lower case, instead of the weights, and the way out.
_TEXT_KINDS = (
    (
        ("version https://git-lfs", "version https://hawser"),
        "a Git LFS pointer, not the weights",
        "Run `git lfs pull` in its folder.",
    ),
    (
        ("<",),
        "a web page, not the weights: the download was answered with an error or a login page",
        "Open it in a browser to see which, and download it again.",
    ),
    (
        ("{", "["),
        "text (JSON), not the weights: the download was perhaps answered with an error",
        "Look into it, and download it again.",
    ),
)
_SHORTEST = 8  # characters of another text; fewer may be what is left of a file of weights
_SHOWN = 60  # of them

# Names of text and pictures, which need no look.
_NEVER = re.compile(
    r".*\.(txt|md|rst|log|out|err|ya?ml|jsonl?|toml|ini|cfg|csv|tsv|xml|html?|py|ipynb|sh|png|jpe?g|"
    r"gif|bmp|tiff?|svg|webp|wav|flac|mp3|mp4|avi|pdf|npy|npz|h5|parquet|arrow|tfrecord|zip|gz|bz2|"
    r"xz|zst)",
    re.IGNORECASE,
)
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch before 1.6: its magic number, pickled
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
# A zip whose first record is one of torch.save's: its name is behind 30 bytes of header.
_ARCHIVE = re.compile(
    rb"PK\x03\x04.{26}[^/\0]+/(data\.pkl|\.format_version|byteorder|version)", re.DOTALL
)


def looks_like_checkpoint(path: Path, by_suffix: tuple[str, ...] = ()) -> bool:
    """Whether the first bytes of a file are those of safetensors or torch.

    Args:
        path: The file.
        by_suffix: Suffixes under which any pickle counts, as tools pickle weights too.
    """
    if _NEVER.fullmatch(path.name):
        return False
    try:
        with path.open("rb") as file:
            beginning = file.read(BEGINNING)
            size = file.seek(0, os.SEEK_END)
    except OSError:
        return False
    if (
        is_safetensors(beginning, size)
        or beginning.startswith(_LEGACY)
        or _ARCHIVE.match(beginning)
    ):
        return True
    return path.name.lower().endswith(by_suffix) and _PICKLE.match(beginning) is not None


def is_safetensors(beginning: bytes, size: int) -> bool:
    """Whether a file of a size begins with the header of safetensors."""
    return beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") <= size - 8


def check_beginning(path: Path, beginning: bytes) -> None:
    """Make sure that a file does not begin as something else than a checkpoint.

    Args:
        path: The file, for people.
        beginning: Its first `BEGINNING` bytes, or all of them.

    Raises:
        CheckpointError: It does; what it is and the way out are said.
    """
    if not beginning:
        raise CheckpointError(f"{path} is empty.", "Copy or download it again.")
    for signature, what, way_out in _BINARY_KINDS:
        if beginning.startswith(signature):
            raise CheckpointError(f"{path} is {what}.", way_out)
    if _ONNX.match(beginning):
        raise CheckpointError(
            f"{path} is an ONNX file, not weights to average.",
            "Take the checkpoint that it was exported from.",
        )
    if len(beginning) == BEGINNING and not beginning.strip(b"\0"):
        raise CheckpointError(
            f"{path} begins with zeros only: the download or copy was not finished.",
            "Do it again.",
        )
    if beginning[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive.",
            "If a checkpoint was packed into it, unpack it; if torch before 0.1.10 wrote it, load "
            "it with torch and save it again.",
        )
    _check_no_text(path, _text(beginning))


def _check_no_text(path: Path, text: str) -> None:
    for signatures, what, way_out in _TEXT_KINDS:
        if text.lower().startswith(signatures):
            raise CheckpointError(f"{path} is {what}.", way_out)
    if len(text) >= _SHORTEST and "\N{REPLACEMENT CHARACTER}" not in text:
        raise CheckpointError(
            f"{path} is a text file, not weights: it begins with "
            f"{text.splitlines()[0][:_SHOWN]!r}.",
            "If it was downloaded, do that again, and log in first where the server asks for it.",
        )


def _text(beginning: bytes) -> str:
    """Return what a file begins with as text, stripped; "" where it is none."""
    encoding = "utf-8"
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in beginning[:2]:
        encoding = "utf-16"
        beginning = (codecs.BOM_UTF16_LE if beginning[0] else codecs.BOM_UTF16_BE) + beginning
    text = beginning.removeprefix(codecs.BOM_UTF8).decode(encoding, "replace")
    text = text.rstrip("\N{REPLACEMENT CHARACTER}").strip()  # the last character may be cut
    # All files of weights have control characters near their beginning, texts have none.
    return text if all(mark.isprintable() or mark.isspace() for mark in text) else ""
