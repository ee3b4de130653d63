"""Σ cᵢθᵢ: the one kind of point in weight space that everything linear is.

An ingredient, a point on a path, a uniform or greedy soup, WiSE-FT: each is a `Mixture`. Its
coefficients are exact fractions, so that ½·a + ½·b is the same point, with the same key, wherever
it comes from, and 1/k stands for itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cached_property

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.checkpoints.dtypes import common_dtype
from soupcore.errors import CheckpointError

Coefficient = int | float | Fraction
ReadElements = Callable[[Checkpoint, str, int, int], torch.Tensor]

# Elements mixed at a time: 128 KiB of float32, with its float64 sum still inside the L2 cache.
CHUNK = 1 << 15

# Below this, numerator × float32 is exact in float64, so a sum of them hardly ever rounds.
_LARGEST_EXACT_DENOMINATOR = 1 << 20


def as_fraction(coefficient: Coefficient) -> Fraction:
    """Return the exact number that a coefficient names: 0.1 is 1/10, not its binary neighbour."""
    if isinstance(coefficient, float):
        if not math.isfinite(coefficient):
            raise ValueError(f"A coefficient must be a finite number, not {coefficient}.")
        return Fraction(repr(float(coefficient)))
    return Fraction(coefficient)


def _read_from_file(checkpoint: Checkpoint, name: str, start: int, stop: int) -> torch.Tensor:
    return checkpoint.read_elements(name, start, stop)


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

    @cached_property
    def key(self) -> str:
        """Identity of the point in weight space: 64 hex digits."""
        lines = [f"{digest} {fraction}" for digest, fraction in self.coefficients.items()]
        return hashlib.sha256("\n".join(["mixture", *lines]).encode()).hexdigest()

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """What the mixed checkpoint holds: `{name: TensorInfo}`.

        Where sources differ in dtype, the result has the one that torch promotes them to.
        """
        first, *others = self.sources.values()
        mixed = dict(first.tensors)
        for other in others:
            _check_same_shapes(first, other)
            for name, info in mixed.items():
                dtype = common_dtype(info.dtype, other.tensors[name].dtype)
                if dtype is None:
                    raise CheckpointError(
                        f"Tensor {name!r} is {info.dtype} in {first.path} and "
                        f"{other.tensors[name].dtype} in {other.path}; these two cannot be mixed. "
                        "Save both in one dtype."
                    )
                mixed[name] = TensorInfo(info.shape, dtype)
        return mixed

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the source that the tensor `name` is copied from, None where it is a sum.

        Tensors that are not floats (counters, masks, ids) are not averaged: they come from the
        source with the largest coefficient, the lower digest where several are equal. From it too
        come tensors that all sources hold alike, where the coefficients add up to 1: the sum would
        be the same, except that it makes NaN of the infinities of an attention mask.
        """
        info = self.tensors[name]
        is_float = info.dtype.is_floating_point or info.dtype.is_complex
        if not is_float or name in self._shared:
            return self.sources[max(self.coefficients, key=self.coefficients.__getitem__)]
        return None

    def chunks(self, name: str, read: ReadElements = _read_from_file) -> Iterator[torch.Tensor]:
        """Mix the tensor `name` piece by piece.

        float32 and float64 weights are summed in float64, half types in float32; the sum is
        divided last, so that k equal tensors average to the same bits. The terms are added in
        the order of their digests, so that the order of ingredients changes nothing. One source
        alone with the coefficient 1 is copied as it is, and so is what needs no sum (see
        `copied_from`).

        Args:
            name: Which tensor.
            read: How to read elements of a source; from its file unless given.

        Yields:
            1-D tensors with the elements in order, in the dtype that `tensors` says.
        """
        info = self.tensors[name]
        only = self.copied_from(name)
        if only is not None:
            for start, stop in _ranges(info.numel):
                yield read(only, name, start, stop).to(info.dtype)
            return
        factors, divisor, total = self._factors
        sources = list(self.sources.values())
        for start, stop in _ranges(info.numel):
            parts = (read(source, name, start, stop) for source in sources)
            if info.dtype == torch.float64:
                yield _shifted_sum(parts, factors, divisor, total)
            else:
                yield _weighted_sum(parts, factors, divisor, info.dtype)

    def tensor(self, name: str, read: ReadElements = _read_from_file) -> torch.Tensor:
        """Mix the tensor `name` whole, in its own shape."""
        info = self.tensors[name]
        pieces = list(self.chunks(name, read))
        flat = torch.cat(pieces) if pieces else torch.empty(0, dtype=info.dtype)
        return flat.reshape(info.shape)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Mix every tensor, into memory."""
        return {name: self.tensor(name) for name in self.tensors}

    @cached_property
    def _shared(self) -> frozenset[str]:
        scans = [source.known_scan for source in self.sources.values()]
        if sum(self.coefficients.values()) != 1 or None in scans:
            return frozenset()
        return frozenset(
            name
            for name in self.tensors
            if len({source.tensors[name].dtype for source in self.sources.values()}) == 1
            and len({scan[name].digest for scan in scans if scan is not None}) == 1
        )

    @cached_property
    def _factors(self) -> tuple[list[float], float, float]:
        fractions = list(self.coefficients.values())
        total = float(sum(fractions))
        denominator = math.lcm(*(fraction.denominator for fraction in fractions))
        if denominator <= _LARGEST_EXACT_DENOMINATOR:
            factors = [float(fraction * denominator) for fraction in fractions]
            return factors, float(denominator), total
        return [float(fraction) for fraction in fractions], 1.0, total

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


def _weighted_sum(
    parts: Iterable[torch.Tensor], factors: list[float], divisor: float, dtype: torch.dtype
) -> torch.Tensor:
    if dtype.is_complex:
        wide = torch.complex128
    else:
        wide = torch.float64 if dtype.itemsize >= 4 else torch.float32
    # Product and sum are rounded apart (no fused multiply-add), so that the bits do not depend
    # on how a tensor is cut into chunks.
    terms = zip(parts, factors, strict=True)
    part, factor = next(terms)
    total = part.to(wide) * factor
    for part, factor in terms:
        total.add_(part.to(wide) if factor == 1 else part.to(wide) * factor)
    if divisor != 1:
        total.div_(divisor)
    return total.to(dtype)


def _shifted_sum(
    parts: Iterable[torch.Tensor], factors: list[float], divisor: float, total: float
) -> torch.Tensor:
    # float64 has no wider type to sum in. The differences from the first term are 0 where all
    # terms are equal, so that here too equal tensors average to the same bits.
    terms = zip(parts, factors, strict=True)
    first = next(terms)[0].double()
    difference = torch.zeros_like(first)
    for part, factor in terms:
        difference.add_((part.double() - first) * factor)
    return difference.div_(divisor).add_(first * total)


def _ranges(numel: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + CHUNK, numel)) for start in range(0, numel, CHUNK))


def _check_same_shapes(first: Checkpoint, other: Checkpoint) -> None:
    for name in first.tensors.keys() ^ other.tensors.keys():
        having, lacking = (first, other) if name in first.tensors else (other, first)
        raise CheckpointError(
            f"{lacking.path} has no tensor {name!r}, which {having.path} has; "
            "these two cannot be mixed."
        )
    for name, info in first.tensors.items():
        if other.tensors[name].shape != info.shape:
            raise CheckpointError(
                f"Tensor {name!r} has shape {list(info.shape)} in {first.path} and "
                f"{list(other.tensors[name].shape)} in {other.path}; these two cannot be mixed."
            )
