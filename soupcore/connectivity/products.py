"""Inner products between checkpoints, streamed once and kept.

Everything that is measured in weight space, be it a norm, an angle, a distance or a coordinate, is
an inner product of mixtures, and so a sum of inner products of the vectors they are mixed of.
These are the reference θ₀ itself and the differences θᵢ − θ₀ of the others from it: the difference
of two floats of one size is nearly exact in float64, where that of two large inner products of raw
weights is not. They are kept tensor by tensor, by digest, so that no file is read twice for them.

Statistics that networks keep of their data (BatchNorm's means and variances) are no weights and
are left out, as are counters and other tensors that are no floats.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from soupcore.checkpoints import Checkpoint
from soupcore.connectivity.bracket import Floats
from soupcore.evaluation import Progress, no_progress
from soupcore.mixtures import Mixture
from soupcore.store import Store

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_BLOCK_BYTES = 8 << 20  # of float64 at a time, over all checkpoints

Vector = Mapping[str, Fraction]


@dataclass(frozen=True)
class Products:
    """The inner products of a reference and of the differences of checkpoints from it.

    Attributes:
        reference: Digest of the reference.
        digests: Of the vectors: the reference first, for θ₀ itself, then each checkpoint, for its
            difference from the reference; k in all.
        tensors: Names of the weight tensors, T of them.
        values: Shape [T, k, k].
    """

    reference: str
    digests: tuple[str, ...]
    tensors: tuple[str, ...]
    values: Floats

    def vector(self, mixture: Mixture) -> dict[str, Fraction]:
        """Return a mixture as exact coefficients over the vectors.

        Raises:
            KeyError: It has a source that is not among them.
        """
        found = {self.reference: sum(mixture.coefficients.values(), Fraction())}
        for digest, coefficient in mixture.coefficients.items():
            if digest not in self.digests:
                raise KeyError(digest)
            if digest != self.reference:
                found[digest] = coefficient
        return found

    def inner(self, one: Sequence[Vector], other: Sequence[Vector]) -> Floats:
        """Return the inner products of sums of the vectors, by tensor: [T, one, other]."""
        found: Floats = self._array(one) @ self.values @ self._array(other).T
        return found

    def _array(self, vectors: Sequence[Vector]) -> Floats:
        return np.array(
            [[float(vector.get(digest, 0)) for digest in self.digests] for vector in vectors]
        ).reshape(len(vectors), len(self.digests))


def difference(one: Vector, other: Vector) -> dict[str, Fraction]:
    """Return one vector less the other, exactly."""
    return {key: one.get(key, Fraction()) - other.get(key, Fraction()) for key in {*one, *other}}


def inner_products(
    reference: Checkpoint,
    checkpoints: Iterable[Checkpoint],
    store: Store,
    *,
    on_progress: Progress = no_progress,
) -> Products:
    """Return the inner products of checkpoints, reading files only for what is not stored.

    Memory is bounded by a block of each tensor, whatever the size of the checkpoints.

    Args:
        reference: What the others are measured from; the base, where there is one.
        checkpoints: The others; equal weights count once.
        store: Where inner products are kept.
        on_progress: Called with elements done and in all; raise in it to stop.

    Raises:
        CheckpointError: They do not hold the same tensors in the same shapes, or a file changed
            after it was opened.
    """
    others = _others(reference, checkpoints)
    known = stored_inner_products(reference, others.values(), store)
    if known is not None:
        return known
    names = weight_tensors(reference)
    for other in others.values():
        other.check_unchanged()
        _ = Mixture([(reference, 1), (other, 1)]).tensors  # raises where they do not fit
    values = _stream(reference, list(others.values()), names, on_progress)
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
    reference: Checkpoint, checkpoints: Iterable[Checkpoint], store: Store
) -> Products | None:
    """Return the inner products if the store has them all, else None. Reads no weights."""
    digests = (reference.digest, *_others(reference, checkpoints))
    known = store.inner_products(reference.digest, digests)
    if len(known) < len(digests) * (len(digests) + 1) // 2:
        return None
    names = weight_tensors(reference)
    values = np.empty((len(names), len(digests), len(digests)))
    position = {digest: index for index, digest in enumerate(digests)}
    for (one, other), by_tensor in known.items():
        i, j = position[one], position[other]
        values[:, i, j] = values[:, j, i] = by_tensor
    return Products(reference.digest, digests, names, values)


def weight_tensors(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of the tensors that are weights, sorted: files may order them otherwise."""
    return tuple(
        name
        for name, info in sorted(checkpoint.tensors.items())
        if (info.dtype.is_floating_point or info.dtype.is_complex)
        and name.rpartition(".")[2] not in _STATISTICS
    )


def _others(reference: Checkpoint, checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    found = {checkpoint.digest: checkpoint for checkpoint in checkpoints}
    found.pop(reference.digest, None)
    return found


def _stream(
    reference: Checkpoint,
    others: Sequence[Checkpoint],
    names: Sequence[str],
    on_progress: Progress,
) -> Floats:
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
    if part.is_complex():
        part = torch.view_as_real(part.resolve_conj()).flatten()
    return part.double()
