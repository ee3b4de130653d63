"""Mixtures Σ cᵢθᵢ: linear combinations of checkpoints.

Ingredients, points on a path, uniform and greedy soups, and WiSE-FT are all mixtures. Coefficients
are exact fractions, so that ½·a + ½·b is always the same point with the same key, and 1/k has no
rounding error.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import groupby

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo, are_known_alike
from soupcore.checkpoints.chunks import ranges, scratch
from soupcore.checkpoints.dtypes import common_dtype
from soupcore.errors import CheckpointError
from soupcore.weighted_sum import WeightedSum

Coefficient = int | float | Fraction

# Takes a checkpoint, a tensor name, and the first and last (exclusive) element; returns a 1-D
# tensor. The caller does not change it, and does not use it after it requests the next one.
ReadElements = Callable[[Checkpoint, str, int, int], torch.Tensor]


def as_fraction(coefficient: Coefficient) -> Fraction:
    """Return the exact value of a coefficient as written: 0.1 is 1/10, not the nearest double."""
    if isinstance(coefficient, float):
        if not math.isfinite(coefficient):
            raise ValueError(f"Coefficients must be finite, not {coefficient}.")
        return Fraction(repr(float(coefficient)))
    return Fraction(coefficient)


class Mixture:
    """A linear combination of checkpoints, with the same coefficients for all tensors.

    Args:
        terms: Pairs of checkpoint and coefficient, in any order. Terms with equal weights (by
            digest) are joined, and terms with coefficient 0 are dropped.

    Raises:
        CheckpointError: The checkpoints have different tensors or shapes.
        ValueError: No term is left, or a coefficient is not finite.
    """

    def __init__(self, terms: Iterable[tuple[Checkpoint, Coefficient]]) -> None:
        coefficients: dict[str, Fraction] = {}
        sources: dict[str, Checkpoint] = {}
        for checkpoint, coefficient in terms:
            digest = checkpoint.digest
            coefficients[digest] = coefficients.get(digest, Fraction()) + as_fraction(coefficient)
            sources.setdefault(digest, checkpoint)
        self.coefficients: Mapping[str, Fraction] = {
            digest: coefficients[digest] for digest in sorted(coefficients) if coefficients[digest]
        }
        self.sources: Mapping[str, Checkpoint] = {
            digest: sources[digest] for digest in self.coefficients
        }
        if not self.coefficients:
            raise ValueError("A mixture needs at least one non-zero coefficient.")
        self._infos: dict[str, TensorInfo] = {}

    @cached_property
    def key(self) -> str:
        """Hash that identifies the point in weight space: 64 hex digits."""
        lines = [f"{digest} {fraction}" for digest, fraction in self.coefficients.items()]
        return hashlib.sha256("\n".join(["mixture", *lines]).encode()).hexdigest()

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Tensors of the mixture: `{name: TensorInfo}`; see `info`."""
        first, *others = self.sources.values()
        for other in others:
            _check_same_names(first, other)
        return {name: self.info(name) for name in first.tensors}

    def info(self, name: str) -> TensorInfo:
        """Return shape and dtype of one mixed tensor.

        If the dtypes of sources differ, the result has the dtype that torch promotes them to.

        Raises:
            CheckpointError: A source lacks the tensor, or shapes differ, or dtypes cannot be mixed.
        """
        if name not in self._infos:
            self._infos[name] = _mixed_info(list(self.sources.values()), name)
        return self._infos[name]

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the source that the tensor `name` is copied from; None if it is a sum.

        Tensors that are not floats (counters, masks, ids) are not averaged, but copied from the
        source with the largest coefficient, or the lowest digest in a tie. If the coefficients sum
        to 1, tensors that are equal in all sources are copied too: the sum would be the same,
        except that it turns the infinities of an attention mask into NaN. With a single source and
        coefficient 1, all tensors are copied.
        """
        dtype = self.info(name).dtype
        if not (dtype.is_floating_point or dtype.is_complex) or self._is_shared(name):
            return self.sources[max(self.coefficients, key=self.coefficients.__getitem__)]
        return None

    def mix_into(
        self,
        name: str,
        out: torch.Tensor,
        start: int = 0,
        read: ReadElements | None = None,
        accumulate: torch.dtype = torch.float64,
    ) -> None:
        """Mix elements of the flattened tensor `name`, from `start` on, into a buffer.

        float32 and float64 weights are summed in float64, half types in float32. The sum is divided
        last, so that k equal tensors average to the same bits. Terms are added in the order of
        coefficients and digests, so the order of ingredients does not matter. Tensors that need no
        sum are copied (see `copied_from`).

        Args:
            name: Name of the tensor.
            out: The buffer: a 1-D contiguous CPU tensor with the dtype in `tensors`. Its length is
                the number of elements to mix.
            start: The first element.
            read: Reads elements of a source; by default, from its file.
            accumulate: With `torch.float32`, float32 weights are summed in float32, as differences
                from the first. This is faster. If weights differ by 1 % of their magnitude, about
                1 % of the elements differ in the last bit.

        Raises:
            ValueError: `out` has another dtype or is not 1-D.
        """
        info = self.info(name)
        if out.dtype != info.dtype or out.dim() != 1:
            raise ValueError(
                f"Tensor {name!r} is {info.dtype}; give a 1-D buffer of that dtype, not "
                f"{out.dtype} of shape {list(out.shape)}."
            )
        fill = self._filler(name, read, accumulate)
        for begin, end in ranges(out.numel()):
            fill(out[begin:end], start + begin)

    def chunks(
        self,
        name: str,
        read: ReadElements | None = None,
        accumulate: torch.dtype = torch.float64,
    ) -> Iterator[torch.Tensor]:
        """Mix the tensor `name` in chunks; see `mix_into`.

        Yields:
            1-D tensors with the elements in order, in the dtype in `tensors`. Each is valid until
            the next one is requested, so clone it to keep it.
        """
        info = self.info(name)
        fill = self._filler(name, read, accumulate)
        with scratch(info.dtype) as buffer:
            for start, stop in ranges(info.numel):
                chunk = buffer[: stop - start]
                fill(chunk, start)
                yield chunk

    def tensor(
        self,
        name: str,
        read: ReadElements | None = None,
        accumulate: torch.dtype = torch.float64,
    ) -> torch.Tensor:
        """Mix the whole tensor `name` in its own shape; see `mix_into`."""
        info = self.info(name)
        flat = torch.empty(info.numel, dtype=info.dtype)
        self.mix_into(name, flat, 0, read, accumulate)
        return flat.reshape(info.shape)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Mix all tensors into memory."""
        return {name: self.tensor(name) for name in self.tensors}

    def _filler(
        self, name: str, read: ReadElements | None, accumulate: torch.dtype
    ) -> Callable[[torch.Tensor, int], None]:
        """Return a function that fills a chunk with mixed elements, given the first one."""
        info = self.info(name)
        source = self.copied_from(name)
        if source is not None and read is None and source.tensors[name].dtype == info.dtype:
            return lambda out, start: source.read_into(name, start, out)

        def parts(sources: Iterable[Checkpoint], start: int, stop: int) -> Iterator[torch.Tensor]:
            if read is not None:
                yield from (read(source, name, start, stop) for source in sources)
                return
            for dtype, group in groupby(sources, lambda source: source.tensors[name].dtype):
                with scratch(dtype) as buffer:
                    part = buffer[: stop - start]
                    for source in group:
                        source.read_into(name, start, part)
                        yield part

        if source is not None:

            def fill(out: torch.Tensor, start: int) -> None:
                for part in parts([source], start, start + out.numel()):
                    out.copy_(part)

            return fill

        ordered = sorted(self.coefficients, key=self.coefficients.__getitem__)
        coefficients = [self.coefficients[digest] for digest in ordered]
        sources = [self.sources[digest] for digest in ordered]
        sum_into = WeightedSum(coefficients, info.dtype, accumulate)
        return lambda out, start: sum_into(out, parts(sources, start, start + out.numel()))

    def _is_shared(self, name: str) -> bool:
        """Return whether a tensor is known to be equal in the mixture and all of its sources."""
        sources = list(self.sources.values())
        return self._sums_to_one and (len(sources) == 1 or are_known_alike(sources, name))

    @cached_property
    def _sums_to_one(self) -> bool:
        return sum(self.coefficients.values()) == 1

    def __mul__(self, factor: Coefficient) -> Mixture:
        scale = as_fraction(factor)
        return Mixture((self.sources[d], c * scale) for d, c in self.coefficients.items())

    __rmul__ = __mul__

    def __add__(self, other: Mixture) -> Mixture:
        return Mixture(
            (mixture.sources[digest], coefficient)
            for mixture in (self, other)
            for digest, coefficient in mixture.coefficients.items()
        )

    def __sub__(self, other: Mixture) -> Mixture:
        return self + other * -1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mixture) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        terms = " + ".join(f"{c}·{digest[:8]}" for digest, c in self.coefficients.items())
        return f"Mixture({terms})"


def mean(mixtures: Iterable[Mixture]) -> Mixture:
    """Return (1/k)Σθᵢ over k mixtures."""
    mixtures = list(mixtures)
    if not mixtures:
        raise ValueError("A mean needs at least one mixture.")
    share = Fraction(1, len(mixtures))
    return Mixture(
        (mixture.sources[digest], coefficient * share)
        for mixture in mixtures
        for digest, coefficient in mixture.coefficients.items()
    )


def interpolate(start: Mixture, end: Mixture, alpha: Coefficient) -> Mixture:
    """Return (1−α)θ₀ + αθ₁. α outside [0, 1] extrapolates."""
    fraction = as_fraction(alpha)
    return Mixture(
        (mixture.sources[digest], coefficient * share)
        for mixture, share in ((start, 1 - fraction), (end, fraction))
        for digest, coefficient in mixture.coefficients.items()
    )


def check_have(checkpoints: Iterable[Checkpoint], names: Iterable[str]) -> None:
    """Check that checkpoints have tensors of these names.

    Raises:
        CheckpointError: One lacks a tensor.
    """
    sources, wanted = list(checkpoints), list(names)
    for name in wanted:
        having = [source for source in sources if name in source.tensors]
        if not having:
            raise CheckpointError(f"Tensor {name!r} is not in the checkpoints.")
        if len(having) < len(sources):
            raise _lacks(next(s for s in sources if name not in s.tensors), name, having[0])


def _check_same_names(first: Checkpoint, other: Checkpoint) -> None:
    for name in first.tensors.keys() ^ other.tensors.keys():
        having, lacking = (first, other) if name in first.tensors else (other, first)
        raise _lacks(lacking, name, having)


def _lacks(lacking: Checkpoint, name: str, having: Checkpoint) -> CheckpointError:
    return CheckpointError(
        f"{lacking.path} has no tensor {name!r}, which {having.path} has; "
        "these two cannot be mixed."
    )


def _mixed_info(sources: Sequence[Checkpoint], name: str) -> TensorInfo:
    first, *others = sources
    mixed = first.tensors[name]
    for other in others:
        info = other.tensors.get(name)
        if info is None:
            raise _lacks(other, name, first)
        if info.shape != mixed.shape:
            raise CheckpointError(
                f"Tensor {name!r} has shape {list(mixed.shape)} in {first.path} and "
                f"{list(info.shape)} in {other.path}; these two cannot be mixed."
            )
        dtype = common_dtype(mixed.dtype, info.dtype)
        if dtype is None:
            raise CheckpointError(
                f"Tensor {name!r} is {mixed.dtype} in {first.path} and {info.dtype} in "
                f"{other.path}; these two cannot be mixed. Save both in one dtype."
            )
        mixed = TensorInfo(mixed.shape, dtype)
    return mixed
