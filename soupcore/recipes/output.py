"""Writing a point in weight space to files in the form of one of its ingredients."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo, write_safetensors
from soupcore.checkpoints.dtypes import all_finite, output_dtype
from soupcore.checkpoints.opening import TORCH_SUFFIXES, stem_of, suffix_of
from soupcore.checkpoints.sharded_output import write_sharded
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.checkpoints.torch_output import why_not_like, write_like
from soupcore.errors import CheckpointError
from soupcore.mixtures import Mixture
from soupcore.new_files import NewFile, remove_leftovers

_Chunks = Callable[[str], Iterator[torch.Tensor]]


METADATA_KEY = "stockpot"


class Output:
    """The weights at a point as files have them.

    Args:
        mixture: The point.
        form: Ingredient 1: the names, the order, the dtypes and the metadata are those in its file,
            and a `.pt` is a copy of it with other weights.
        replaced: Tensors that take the place of those at the point.

    Attributes:
        file: Ingredient 1 as it is in its file.
    """

    def __init__(
        self,
        mixture: Mixture,
        form: Checkpoint,
        replaced: Mapping[str, torch.Tensor] = MappingProxyType({}),
    ) -> None:
        self._mixture = mixture
        self._form = form
        self._replaced = replaced
        self.file = form.original
        here = {there: name for name, there in form.original_names.items()}
        self._names = {there: here[there] for there in self.file.tensors if there in here}

    def tensors(self, dtype: torch.dtype | str | None = None) -> dict[str, TensorInfo]:
        """Return what a file holds, in the order of ingredient 1.

        Args:
            dtype: What floats are to be written in; as in ingredient 1 unless given.

        Raises:
            ValueError: It is no dtype that weights are written in.
        """
        chosen = output_dtype(dtype)
        tensors = {}
        for name, here in self._names.items():
            mixed = self._mixture.tensors[here]
            wanted = chosen or self.file.tensors[name].dtype
            # Between floats only: a mean of numbers that are whole in one file need not be whole.
            among_floats = mixed.dtype.is_floating_point and wanted.is_floating_point
            tensors[name] = TensorInfo(mixed.shape, wanted if among_floats else mixed.dtype)
        return tensors

    @cached_property
    def why_no_pt(self) -> str | None:
        """Why no `.pt` can be written, as sentences; None where one can.

        Tied tensors that other ingredients gave different values show only when it is written.
        """
        return why_not_like(self.file, self.tensors())

    @property
    def pt_suffix(self) -> str:
        """The suffix of ingredient 1's file where torch's files have it, else `.pt`."""
        suffix = suffix_of(self.file.path)
        return suffix if suffix in TORCH_SUFFIXES else ".pt"

    def save(
        self,
        path: Path,
        recipe: Mapping[str, Any],
        dtype: torch.dtype | str | None = None,
        shard_size: int | None = None,
        *,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
    ) -> list[Path]:
        """Write the weights; see `Soup.save`.

        Args:
            path: Where.
            recipe: What goes into the metadata of a `.safetensors`, and beside a `.pt`, as JSON.
            dtype: What floats are to be written in.
            shard_size: The most bytes of a shard.
            on_bytes: Called with the number of bytes written since the last call.
        """
        is_safetensors = suffix_of(path) == ".safetensors"
        if not is_safetensors and suffix_of(path) not in TORCH_SUFFIXES:
            raise ValueError(f"{path}: name it .safetensors or {', '.join(TORCH_SUFFIXES)}.")
        if not is_safetensors and (dtype or shard_size):
            raise ValueError(f"{path}: dtype and shards are for .safetensors; leave them out.")
        if shard_size is not None and shard_size < 1:
            raise ValueError(f"A shard holds at least one byte, not {shard_size}.")
        if not path.parent.is_dir():
            raise CheckpointError(
                f"{path}: there is no folder {path.parent}.", "Make it, or choose another."
            )
        tensors = self.tensors(dtype)
        for checkpoint in (*self._mixture.sources.values(), self._form):
            checkpoint.check_unchanged()
        remove_leftovers(path.parent)

        def chunks(name: str) -> Iterator[torch.Tensor]:
            return self._finite_chunks(name, tensors[name].dtype)

        if not is_safetensors:
            return self._save_as_form(path, recipe, chunks, on_bytes)
        metadata = {"format": "pt"} | self.file.metadata
        metadata |= {METADATA_KEY: json.dumps(recipe, ensure_ascii=False)}
        if shard_size is not None:
            return write_sharded(path, tensors, chunks, metadata, shard_size, on_bytes)
        write_safetensors(path, tensors, chunks, metadata, on_bytes)
        return [path]

    def _save_as_form(
        self,
        path: Path,
        recipe: Mapping[str, Any],
        chunks: _Chunks,
        on_bytes: Callable[[int], None],
    ) -> list[Path]:
        if self.why_no_pt is not None or not isinstance(self.file, TorchCheckpoint):
            raise CheckpointError(f"{path}: {self.why_no_pt} Save the soup as .safetensors.")
        beside = path.with_name(f"{stem_of(path)}.recipe.json")
        with NewFile(path) as new, NewFile(beside) as new_beside:
            write_like(new, self.file, self._names, chunks, on_bytes)
            new_beside.file.write(json.dumps(recipe, indent=2, ensure_ascii=False).encode())
            new.finish()
            new_beside.finish()
            beside.unlink(missing_ok=True)  # no recipe is better than that of another soup
            new.publish()
            new_beside.publish()
        return [path, beside]

    def _finite_chunks(self, name: str, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        here = self._names[name]
        copied = self._mixture.copied_from(here)
        # An attention mask may hold −inf, the same in every ingredient; it is copied as it is.
        known = copied.known(here) if copied is not None else None
        as_it_is = known is not None and known.nonfinite > 0
        for chunk in self._chunks(here):
            converted = chunk.to(dtype)
            if not as_it_is and not all_finite(converted):
                way_out = "Choose smaller coefficients."
                if all_finite(chunk):
                    way_out = "Choose bfloat16 or float32, which reach further."
                raise CheckpointError(
                    f"Tensor {name!r} of the soup has a value that is NaN, infinite or too large "
                    f"for {dtype}; nothing was written. {way_out}"
                )
            yield converted

    def _chunks(self, name: str) -> Iterator[torch.Tensor]:
        replaced = self._replaced.get(name)
        if replaced is None:
            return self._mixture.chunks(name)
        return iter([replaced.reshape(-1).to(self._mixture.tensors[name].dtype)])
