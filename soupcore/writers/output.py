"""Write a point in weight space to files in the format of its first ingredient."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.checkpoints.dtypes import all_finite, output_dtype
from soupcore.checkpoints.recognition import TORCH_SUFFIXES, stem_of, suffix_of
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import CheckpointError
from soupcore.mixtures import Mixture
from soupcore.new_files import NewFile, check_space, remove_leftovers
from soupcore.safe_torch.names import MARKER
from soupcore.writers.safetensors import write_safetensors, write_sharded
from soupcore.writers.torch_files import RewrittenForm, rewritten_form, why_not_like, write_like

_Chunks = Callable[[str], Iterator[torch.Tensor]]


class Output:
    """The weights at a point, as written to files.

    Args:
        mixture: The point.
        form: The first ingredient. Its file determines names, order, dtypes and metadata, and the
            structure of a `.pt`.
        replaced: Tensors that replace those of the mixture.

    Attributes:
        file: The first ingredient with the names of its file.
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
        self._set_aside = set(form.set_aside)

    def tensors(self, dtype: torch.dtype | str | None = None) -> dict[str, TensorInfo]:
        """Return the tensors of a file, in the order of the first ingredient.

        Args:
            dtype: Dtype of floats; by default, as in the first ingredient.

        Raises:
            ValueError: The dtype is not supported.
        """
        chosen = output_dtype(dtype)
        tensors = {}
        for name, info in self.file.tensors.items():
            if name in self._set_aside:
                tensors[name] = info
            if name not in self._names:
                continue
            mixed = self._mixture.tensors[self._names[name]]
            wanted = chosen or info.dtype
            # Never to integers: tensors with an integer dtype in one file may have a fractional
            # mean.
            among_floats = mixed.dtype.is_floating_point and wanted.is_floating_point
            tensors[name] = TensorInfo(mixed.shape, wanted if among_floats else mixed.dtype)
        return tensors

    @cached_property
    def why_no_pt(self) -> str | None:
        """Why no `.pt` can be written, in sentences; None if one can.

        Tied tensors whose values differ in other ingredients are found only when writing.
        """
        return why_not_like(self.file, self.tensors())

    @cached_property
    def pt_form(self) -> RewrittenForm | None:
        """The entries of the first ingredient's file that a `.pt` keeps and changes.

        None if no `.pt` can be written.
        """
        if self.why_no_pt is not None or not isinstance(self.file, TorchCheckpoint):
            return None
        return rewritten_form(self.file)

    @property
    def pt_suffix(self) -> str:
        """The suffix of the first ingredient's file if it is one of torch's, else `.pt`."""
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
            path: Path of the file.
            recipe: JSON for the metadata of a `.safetensors`, for the entry "stockpot" of a `.pt`
                that is a dict, and for the file beside a `.pt`.
            dtype: Dtype of floats.
            shard_size: Largest size of a shard in bytes.
            on_bytes: Called with the number of bytes written since the last call.

        Returns:
            The files that were written.

        Raises:
            CheckpointError: The folder does not exist, no `.pt` can be written, a value is not
                finite, or an ingredient was changed.
            FullDiskError: The disk is too small.
            ValueError: The suffix, the dtype or the shard size is not supported.
        """
        is_safetensors = suffix_of(path) == ".safetensors"
        if not is_safetensors and suffix_of(path) not in TORCH_SUFFIXES:
            raise ValueError(
                f"Unsupported extension: {path}. Use .safetensors or {', '.join(TORCH_SUFFIXES)}."
            )
        if not is_safetensors and (dtype or shard_size):
            raise ValueError(f"dtype and shard_size apply to .safetensors only, not to {path}.")
        if shard_size is not None and shard_size < 1:
            raise ValueError(f"shard_size must be positive, got {shard_size}.")
        if not path.parent.is_dir():
            raise CheckpointError(f"Folder {path.parent} does not exist.", "Create it first.")
        tensors = self.tensors(dtype)
        for checkpoint in (*self._mixture.sources.values(), self._form):
            checkpoint.check_unchanged()
        remove_leftovers(path.parent)
        check_space(path, sum(info.nbytes for info in tensors.values()))

        def chunks(name: str) -> Iterator[torch.Tensor]:
            if name in self._set_aside:
                return Mixture([(self.file, 1)]).chunks(name)
            return self._finite_chunks(name, tensors[name].dtype)

        if not is_safetensors:
            return self._save_as_form(path, recipe, chunks, on_bytes)
        metadata = {"format": "pt"} | self.file.metadata
        metadata |= {MARKER: json.dumps(recipe, ensure_ascii=False)}
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
        """Write a `.pt` in the form of the first ingredient, and its recipe beside it."""
        form = self.pt_form
        if form is None or not isinstance(self.file, TorchCheckpoint):
            raise CheckpointError(f"{path}: {self.why_no_pt} Save the soup as .safetensors.")
        beside = path.with_name(f"{stem_of(path)}.recipe.json")
        with NewFile(path) as new, NewFile(beside) as new_beside:
            text = json.dumps(recipe, ensure_ascii=False)
            write_like(new, self.file, self._names, chunks, text, on_bytes)
            body = dict(recipe) | {"pt": self._described(form)}
            new_beside.file.write(json.dumps(body, indent=2, ensure_ascii=False).encode())
            new.finish()
            new_beside.finish()
            beside.unlink(missing_ok=True)  # a crash must not leave the recipe of another soup
            new.publish()
            new_beside.publish()
        return [path, beside]

    def _described(self, form: RewrittenForm) -> dict[str, Any]:
        return {
            "form_of": self.file.path.name,
            "weights": self.file.weights,
            "changes": [asdict(change) for change in form.changes],
            "kept": list(form.kept),
        }

    def _finite_chunks(self, name: str, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        here = self._names[name]
        copied = self._mixture.copied_from(here)
        # Attention masks may hold −inf. If all ingredients share the mask, it is copied.
        known = copied.known(here) if copied is not None else None
        as_it_is = known is not None and known.nonfinite > 0
        for chunk in self._chunks(here):
            converted = chunk.to(dtype)
            if not as_it_is and not all_finite(converted):
                way_out = "Choose smaller coefficients."
                if all_finite(chunk):
                    way_out = "Choose bfloat16 or float32, which have a larger range."
                raise CheckpointError(
                    f"Tensor {name!r} of the soup has a value that is NaN, infinite or too large "
                    f"for {dtype}. No file was written. {way_out}"
                )
            yield converted

    def _chunks(self, name: str) -> Iterator[torch.Tensor]:
        replaced = self._replaced.get(name)
        if replaced is None:
            return self._mixture.chunks(name)
        return iter([replaced.reshape(-1).to(self._mixture.tensors[name].dtype)])
