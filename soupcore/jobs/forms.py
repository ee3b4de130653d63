"""In which form a soup's weights are written for a user to take home."""

from dataclasses import asdict, dataclass
from typing import Any

from soupcore.recipes import Soup


@dataclass(frozen=True)
class Form:
    """A form of a soup's files.

    Attributes:
        as_ingredient: A copy of ingredient 1's file with other weights, instead of safetensors.
        dtype: What floats are written in, see `soupcore.checkpoints.dtypes.OUTPUT_DTYPES`; None
            for that of ingredient 1.
        shard_size: The most bytes of a shard; None for one file.
    """

    as_ingredient: bool = False
    dtype: str | None = None
    shard_size: int | None = None

    @property
    def key(self) -> str:
        """What tells it from other forms; a name for a folder."""
        if self.as_ingredient:
            return "as-ingredient"
        shards = f"shards-{self.shard_size}" if self.shard_size else "safetensors"
        return f"{shards}-{self.dtype}" if self.dtype else shards

    def file_name(self, soup: Soup) -> str:
        """Return the name of the file that `Soup.save` is given."""
        if self.shard_size:
            return "model.safetensors"  # what from_pretrained looks for in a folder
        suffix = soup.output.pt_suffix if self.as_ingredient else ".safetensors"
        dtype = f"-{self.dtype}" if self.dtype else ""
        return f"{soup.recipe}-{soup.id}{dtype}{suffix}"

    def nbytes(self, soup: Soup) -> int:
        """Return about how large the files are in all, in bytes: their recipes come on top."""
        output = soup.output
        if self.as_ingredient:
            return output.file.path.stat().st_size
        return sum(info.nbytes for info in output.tensors(self.dtype).values())

    def to_json(self) -> dict[str, Any]:
        """Return the form as JSON; `Form(**body)` makes it again."""
        return asdict(self)
