"""Inner products of checkpoints, in one pass over their weights.

All geometric quantities (norms, angles, distances, coordinates) are inner products of mixtures, and
thus sums of inner products of a few vectors.

`inner_products` stores them per tensor and by digest, so each file is read only once. Its vectors
are the reference θ₀ and the differences θᵢ − θ₀ of the others: the difference of two floats of
similar size is nearly exact in float64, unlike that of two large inner products. It excludes
BatchNorm statistics (`running_mean`, `running_var`), which are not weights, and tensors that are
not floats, such as counters.

`gram_matrices` serves merges, which treat all float tensors alike. It includes BatchNorm
statistics. It excludes tensors that are not floats, and attention masks, which are tensors with
infinite values that are the same in all checkpoints.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.checkpoints.chunks import CHUNK
from soupcore.merges.task_vectors import read_wide, remembered, wide_dtype
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress

if TYPE_CHECKING:
    from soupcore.store import Store

Floats = npt.NDArray[np.float64]
Vector = Mapping[str, Fraction]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_BLOCK_BYTES = 8 << 20  # size of a block of float64 values of all checkpoints

# Elements of all checkpoints together that are read before their products are computed.
_READ = 1 << 20

# Multiplications of one matrix product. OpenBLAS distributes larger products over its threads, and
# the last digits of the sum would depend on the number of threads.
_PRODUCT = 1 << 18
_LARGEST = 16 << 10  # elements of each checkpoint in one product, so that a few rows fit the cache


@dataclass(frozen=True)
class Products:
    """The inner products of a reference and of the differences of checkpoints from it.

    Attributes:
        reference: Digest of the reference.
        digests: Digests of the k vectors: first the reference, for θ₀ itself, then each checkpoint,
            for its difference from the reference.
        tensors: Names of the T weight tensors.
        values: Shape [T, k, k].
    """

    reference: str
    digests: tuple[str, ...]
    tensors: tuple[str, ...]
    values: Floats

    def covers(self, mixture: Mixture) -> bool:
        """Return whether all sources of a mixture are among the vectors."""
        return mixture.coefficients.keys() <= self._at.keys()

    def vector(self, mixture: Mixture) -> dict[str, Fraction]:
        """Return a mixture as exact coefficients over the vectors.

        Raises:
            KeyError: A source of the mixture is not among the vectors.
        """
        vector = {self.reference: sum(mixture.coefficients.values(), Fraction())}
        for digest, coefficient in mixture.coefficients.items():
            if digest not in self._at:
                raise KeyError(digest)
            if digest != self.reference:
                vector[digest] = coefficient
        return vector

    def inner(self, one: Sequence[Vector], other: Sequence[Vector]) -> Floats:
        """Return the inner products of linear combinations, by tensor: [T, one, other]."""
        products: Floats = self._array(one) @ self.values @ self._array(other).T
        return products

    def _array(self, vectors: Sequence[Vector]) -> Floats:
        array = np.zeros((len(vectors), len(self.digests)))
        for row, vector in enumerate(vectors):
            for digest, coefficient in vector.items():
                if digest in self._at:
                    array[row, self._at[digest]] = float(coefficient)
        return array

    @cached_property
    def _at(self) -> dict[str, int]:
        return {digest: index for index, digest in enumerate(self.digests)}


def difference(one: Vector, other: Vector) -> dict[str, Fraction]:
    """Return the exact difference of two vectors."""
    return {key: one.get(key, Fraction()) - other.get(key, Fraction()) for key in {*one, *other}}


def inner_products(
    reference: Checkpoint,
    checkpoints: Iterable[Checkpoint],
    store: "Store",
    *,
    on_progress: Progress = no_progress,
) -> Products:
    """Return the inner products of checkpoints, reading files only if some are not stored.

    Memory use does not depend on the size of the checkpoints, since they are read in blocks.

    Args:
        reference: The reference, usually the base.
        checkpoints: The other checkpoints. Equal weights count once.
        store: Store of the inner products.
        on_progress: Called with the number of elements done and in total. Raise in it to cancel.

    Raises:
        CheckpointError: The checkpoints differ in tensors or shapes, or a file changed after it
            was opened.
    """
    others = _others(reference, checkpoints)
    known = stored_inner_products(reference, others.values(), store)
    if known is not None:
        return known
    names = weight_tensors(reference)
    for other in others.values():
        other.check_unchanged()
        _ = Mixture([(reference, 1), (other, 1)]).tensors  # raises if they do not fit
    values = _computed(reference, list(others.values()), names, on_progress)
    digests = (reference.digest, *others)
    store.add_inner_products(
        reference.digest,
        {
            (min(one, other), max(one, other)): values[:, i, j]
            for i, one in enumerate(digests)
            for j, other in enumerate(digests[: i + 1])
        },
    )
    return Products(reference.digest, digests, names, values)


def stored_inner_products(
    reference: Checkpoint,
    checkpoints: Iterable[Checkpoint],
    store: "Store",
    *,
    optional: Iterable[Checkpoint] = (),
) -> Products | None:
    """Return the inner products if all are stored, or None. Reads no weights.

    Args:
        reference: As for `inner_products`.
        checkpoints: As for `inner_products`.
        store: Store of the inner products.
        optional: Further checkpoints, each omitted if a product with it is not stored.
    """
    digests = [reference.digest, *_others(reference, checkpoints)]
    extra = [digest for digest in _others(reference, optional) if digest not in digests]
    known = store.inner_products(reference.digest, [*digests, *extra])
    pairs = combinations_with_replacement(sorted(digests), 2)
    if not all(pair in known for pair in pairs):
        return None
    for digest in extra:
        if all((min(digest, d), max(digest, d)) in known for d in [*digests, digest]):
            digests.append(digest)
    names = weight_tensors(reference)
    pairs = combinations_with_replacement(sorted(digests), 2)
    by_pair = np.array([known[pair] for pair in pairs])  # [k(k+1)/2, T]
    lower, higher = np.array(digests).argsort()[np.array(np.triu_indices(len(digests)))]
    values = np.empty((len(names), len(digests), len(digests)))
    values[:, lower, higher] = values[:, higher, lower] = by_pair.T
    return Products(reference.digest, tuple(digests), names, values)


def weight_tensors(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of the tensors that are weights, sorted, as their order in files varies."""
    return tuple(
        name
        for name, info in sorted(checkpoint.tensors.items())
        if (info.dtype.is_floating_point or info.dtype.is_complex)
        and name.rpartition(".")[2] not in _STATISTICS
    )


def gram_matrices(
    checkpoints: Sequence[Checkpoint], origin: Checkpoint | None = None
) -> dict[str, Floats]:
    """Return ⟨θᵢ − θ₀, θⱼ − θ₀⟩ of each float tensor, as a symmetric matrix [k, k].

    Takes one pass over the weights and sums products in float64. Infinite attention masks that are
    the same in all checkpoints are excluded.

    Args:
        checkpoints: θᵢ.
        origin: θ₀; 0 if None.
    """
    digests = [checkpoint.digest for checkpoint in checkpoints]
    involved = [*checkpoints, origin] if origin else checkpoints

    def find() -> dict[str, Floats]:
        products = _GramMatrices(checkpoints, origin)
        return {
            name: products.of(name)
            for name, info in checkpoints[0].tensors.items()
            if info.dtype.is_floating_point and not _is_mask(involved, name)
        }

    return remembered(["inner products", digests, origin.digest if origin else None], find)


def _others(reference: Checkpoint, checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """Return the checkpoints with other weights than the reference, each once, by digest."""
    found = {checkpoint.digest: checkpoint for checkpoint in checkpoints}
    found.pop(reference.digest, None)
    return found


def _computed(
    reference: Checkpoint,
    others: Sequence[Checkpoint],
    names: Sequence[str],
    on_progress: Progress,
) -> Floats:
    """Return the inner products of tensors in one pass over the files, shape [T, k, k]."""
    k = 1 + len(others)
    block = max(_BLOCK_BYTES // (8 * k), 1024)
    total = sum(reference.tensors[name].numel for name in names)
    values = torch.zeros(len(names), k, k, dtype=torch.float64)
    done = 0
    for index, name in enumerate(names):
        numel = reference.tensors[name].numel
        for start in range(0, numel, block):
            stop = min(start + block, numel)
            parts = [_real(c.read_elements(name, start, stop)) for c in (reference, *others)]
            rows = torch.stack(parts)  # [k, elements]
            rows[1:] -= rows[0]
            values[index] += rows @ rows.T
            done += stop - start
            on_progress(done, total)
    return values.numpy()


def _real(part: torch.Tensor) -> torch.Tensor:
    """Return elements in float64; complex ones as pairs of real and imaginary parts."""
    if part.is_complex():
        part = torch.view_as_real(part.resolve_conj()).flatten()
    return part.double()


def _is_mask(checkpoints: Sequence[Checkpoint], name: str) -> bool:
    """Return whether a tensor is the same in all checkpoints and not finite, so not a weight."""
    known = checkpoints[0].known(name)
    return bool(known and known.nonfinite) and are_known_alike(checkpoints, name)


class _GramMatrices:
    """Computes the inner products of one tensor after another, reusing its buffers.

    New memory for each tensor would add about a third to the time.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], origin: Checkpoint | None) -> None:
        self._checkpoints = checkpoints
        self._origin = origin
        k = len(checkpoints)
        self._read = max(1, min(CHUNK, _READ // (k + 1)))
        self._length = min(_LARGEST, max(1, _PRODUCT // k**2))
        self._buffers: dict[torch.dtype, torch.Tensor] = {}
        # The first row is repeated at the end, so that the two factors are different matrices:
        # OpenBLAS takes several times as long for a matrix times its own transpose.
        self._ring = np.empty((k + 1, self._length))

    def of(self, name: str) -> Floats:
        """Return the products of a tensor."""
        k = len(self._checkpoints)
        dtypes = {wide_dtype(checkpoint.tensors[name].dtype) for checkpoint in self._checkpoints}
        dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        if dtype not in self._buffers:
            self._buffers[dtype] = torch.empty(1 + k, self._read, dtype=dtype)
        origins, *vectors = self._buffers[dtype]
        numbers = self._buffers[dtype].numpy()
        products = np.zeros((k, k))
        numel = self._checkpoints[0].tensors[name].numel
        for start in range(0, numel, self._read):
            count = min(self._read, numel - start)
            for row, checkpoint in zip(vectors, self._checkpoints, strict=True):
                read_wide(checkpoint, name, start, row[:count])
            if self._origin is not None:
                read_wide(self._origin, name, start, origins[:count])
            for begin in range(0, count, self._length):
                products += self._of(numbers[:, begin : min(begin + self._length, count)])
        products = np.roll(products, 1, axis=1)
        return np.tril(products) + np.tril(products, -1).T

    def _of(self, numbers: npt.NDArray[np.floating[Any]]) -> Floats:
        """Return the products of a block; entry [i, j] belongs to i and (j + 1) mod k.

        Args:
            numbers: The origin, then the checkpoints, shape [1 + k, n].
        """
        rows = self._ring[:, : numbers.shape[1]]
        if self._origin is None:
            rows[:-1] = numbers[1:]
        else:  # subtract in their own dtype, then convert
            np.subtract(numbers[1:], numbers[0], out=rows[:-1])
        rows[-1] = rows[0]
        products: Floats = rows[:-1] @ rows[1:].T
        return products
