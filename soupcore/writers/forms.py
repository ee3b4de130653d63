"""The forms in which a user can download the weights of a soup, and ZIP archives of folders."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from soupcore.writers.output import Output

_AT_ONCE = 1 << 20  # bytes
_DATE = (1980, 1, 1, 0, 0, 0)  # so that equal files give equal archives


class Writable(Protocol):
    """A soup: its recipe, its id and its weights for files."""

    @property
    def recipe(self) -> str:
        """Name of its recipe."""

    @property
    def id(self) -> str:
        """A short text, unique for each soup."""

    @property
    def output(self) -> Output:
        """Its weights, as written to files."""


@dataclass(frozen=True)
class Form:
    """A form of a soup's files.

    Attributes:
        as_ingredient: The form of ingredient 1's file, instead of safetensors.
        dtype: The dtype of floats, see `soupcore.checkpoints.dtypes.OUTPUT_DTYPES`; None for that
            of ingredient 1.
        shard_size: Maximum size of a shard in bytes; None for one file.
        as_folder: A Hugging Face folder (see `Soup.save`), instead of files.
        as_adapter: A folder with a low-rank adapter (see `soupcore.save_adapter`), instead of the
            weights.
        rank: Largest rank of the adapter's changes; None for the sum of the ranks.
    """

    as_ingredient: bool = False
    dtype: str | None = None
    shard_size: int | None = None
    as_folder: bool = False
    as_adapter: bool = False
    rank: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, which is downloaded as an archive."""
        return self.as_folder or self.as_adapter

    @property
    def key(self) -> str:
        """Name of a folder, unique for each form."""
        if self.as_ingredient:
            return "as-ingredient"
        if self.as_folder:
            return f"folder-{self.dtype}" if self.dtype else "folder"
        if self.as_adapter:
            return f"adapter-{self.rank}" if self.rank else "adapter"
        shards = f"shards-{self.shard_size}" if self.shard_size else "safetensors"
        return f"{shards}-{self.dtype}" if self.dtype else shards

    def file_name(self, soup: Writable) -> str:
        """Return the name of the file or folder to pass to `Soup.save`."""
        if self.as_folder:
            return f"{soup.recipe}-{soup.id}"
        if self.as_adapter:
            rank = f"-rank-{self.rank}" if self.rank else ""
            return f"{soup.recipe}-{soup.id}-adapter{rank}"
        if self.shard_size:
            return "model.safetensors"  # the name that from_pretrained expects
        suffix = soup.output.pt_suffix if self.as_ingredient else ".safetensors"
        dtype = f"-{self.dtype}" if self.dtype else ""
        return f"{soup.recipe}-{soup.id}{dtype}{suffix}"

    def nbytes(self, soup: Writable) -> int:
        """Return the approximate size of all files in bytes, without their recipes.

        The size of an adapter depends on more than the weights of the soup; see
        `soupcore.provenance.adapter_folder`.
        """
        output = soup.output
        if self.as_ingredient and output.pt_form is not None:
            return output.pt_form.nbytes
        return sum(info.nbytes for info in output.tensors(self.dtype).values())

    def to_json(self) -> dict[str, Any]:
        """Return the form as JSON, for `Form(**body)`."""
        return asdict(self)


def zip_of(files: Mapping[str, Path]) -> Iterator[bytes]:
    """Yield a ZIP archive in pieces, which are created while the archive is sent.

    It is not compressed, since weights do not compress.

    Args:
        files: `{name in the archive: path}`.
    """
    sent = _Sent()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                while block := source.read(_AT_ONCE):
                    entry.write(block)
                    yield sent.take()
            yield sent.take()
    yield sent.take()


class _Sent:
    """A file without `seek`, whose content is removed piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is no buffer to write."""

    def close(self) -> None:
        """Do nothing: there is no file."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
