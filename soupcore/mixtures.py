"""Σ cᵢθᵢ: the one kind of point in weight space that everything linear is.

An ingredient, a point on a path, a uniform or greedy soup, WiSE-FT: each is a `Mixture`. Its
coefficients are exact fractions, so that ½·a + ½·b is the same point, with the same key, wherever
it comes from, and 1/k stands for itself.
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

# From checkpoint, name, first element and the one after the last to a 1-D tensor of them. It is not
# written to, and done with before the next is read.
ReadElements = Callable[[Checkpoint, str, int, int], torch.Tensor]


def as_fraction(coefficient: Coefficient) -> Fraction:
    """Return the exact number that a coefficient names: 0.1 is 1/10, not its binary neighbour."""
    if isinstance(coefficient, float):
        if not math.isfinite(coefficient):
            raise ValueError(f"A coefficient must be a finite number, not {coefficient}.")
        return Fraction(repr(float(coefficient)))
    return Fraction(coefficient)


class Mixture:
    """Coefficients over checkpoints, the same for all tensors.

    Args:
        terms: Pairs of checkpoint and coefficient. Equal weights (by digest) are joined into one
            term, terms of coefficient 0 are dropped, and the order does not matter.

    Raises:
        CheckpointError: The checkpoints do not hold the same tensors in the same shapes.
        ValueError: Nothing is left, or a coefficient is not finite.
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
            raise ValueError("A mixture needs a checkpoint with a coefficient other than 0.")
        self._infos: dict[str, TensorInfo] = {}

    @cached_property
    def key(self) -> str:
        """Identity of the point in weight space: 64 hex digits."""
        lines = [f"{digest} {fraction}" for digest, fraction in self.coefficients.items()]
        return hashlib.sha256("\n".join(["mixture", *lines]).encode()).hexdigest()

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """What the mixed checkpoint holds: `{name: TensorInfo}`; see `info`."""
        first, *others = self.sources.values()
        for other in others:
            check_same_names(first, other)
        return {name: self.info(name) for name in first.tensors}

    def info(self, name: str) -> TensorInfo:
        """Return shape and dtype of one mixed tensor.

        Where sources differ in dtype, the result has the one that torch promotes them to.

        Raises:
            CheckpointError: A source lacks it, or they hold it in different shapes, or in dtypes
                that cannot be mixed.
        """
        if name not in self._infos:
            self._infos[name] = _mixed_info(list(self.sources.values()), name)
        return self._infos[name]

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the source that the tensor `name` is copied from, None where it is a sum.

        Tensors that are not floats (counters, masks, ids) are not averaged: they come from the
        source with the largest coefficient, the lower digest where several are equal. From it too
        come tensors that all sources hold alike, where the coefficients add up to 1: the sum would
        be the same, except that it makes NaN of the infinities of an attention mask. All tensors
        do where there is one source, with the coefficient 1.
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
        """Mix elements of the flattened tensor `name`, from `start` on, into the caller's buffer.

        float32 and float64 weights are summed in float64, half types in float32; the sum is
        divided last, so that k equal tensors average to the same bits. The terms are added in
        the order of coefficients and digests, so that the order of ingredients changes nothing.
        One source alone with the coefficient 1 is copied as it is, and so is what needs no sum
        (see `copied_from`).

        Args:
            name: Which tensor.
            out: Where they go: a 1-D contiguous CPU tensor of the dtype that `tensors` says, as
                long as what is mixed.
            start: The first element.
            read: How to read elements of a source; from its file unless given.
            accumulate: `torch.float32` sums float32 weights in their own type, as differences from
                the first. That takes less time; where the weights differ by a hundredth of their
                size, one element in a hundred comes out with another last bit.

        Raises:
            ValueError: `out` has another dtype or shape.
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
        """Mix the tensor `name` piece by piece; see `mix_into`.

        Yields:
            1-D tensors with the elements in order, in the dtype that `tensors` says. Each is good
            until the next one; clone what is to stay.
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
        """Mix the tensor `name` whole, in its own shape; see `mix_into`."""
        info = self.info(name)
        flat = torch.empty(info.numel, dtype=info.dtype)
        self.mix_into(name, flat, 0, read, accumulate)
        return flat.reshape(info.shape)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Mix every tensor, into memory."""
        return {name: self.tensor(name) for name in self.tensors}

    def _filler(
        self, name: str, read: ReadElements | None, accumulate: torch.dtype
    ) -> Callable[[torch.Tensor, int], None]:
        """Return what fills a chunk with the mixed elements from a given one on."""
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
        sources = list(self.sources.values())
        return self._keeps_what_is_shared and (len(sources) == 1 or are_known_alike(sources, name))

    @cached_property
    def _keeps_what_is_shared(self) -> bool:
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


def check_same_names(first: Checkpoint, other: Checkpoint) -> None:
    """Make sure that two checkpoints hold tensors of the same names.

    Raises:
        CheckpointError: One has a tensor that the other lacks.
    """
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
