"""Low-rank adapters merged into their base while they are read.

LoRA (arXiv:2106.09685) changes a weight W to W + s·B·A, with s = α/r, or α/√r for rsLoRA
(arXiv:2312.03732). The change is not linear in the factors, so the average of adapters is the
average of merged weights, and not that of their A and B. A merged adapter is a checkpoint like any
other, so all recipes work on it.

The product is summed over the rank, term by term, in float64 (float32 for half types). A matrix
product could give other bits for other ranges of rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.checkpoints.digest import (
    Scan,
    TensorScan,
    cached_scan,
    remember_scan,
    scan_tensors,
)
from soupcore.errors import CheckpointError
from soupcore.merges.derived import Derived, NameOf


@dataclass(frozen=True)
class LowRank:
    """The change s·B·A of one weight.

    Attributes:
        a: Name of A in the adapter, of shape [r, columns] (further dimensions are flattened).
        b: Name of B in the adapter, of shape [rows, r].
        scale: s.
        transposed: Whether the weight has the shape of (B·A)ᵀ, as embeddings have.
    """

    a: str
    b: str
    scale: float
    transposed: bool = False


class MergedAdapter(Derived):
    """The weights of a base with a low-rank adapter.

    Args:
        base: The network that the adapter was trained on.
        adapter: The adapter.
        changes: `{tensor of the base: LowRank}`.
        replaced: `{tensor: tensor of the adapter}` of weights that were trained in full. The base
            need not have them.

    Raises:
        CheckpointError: The shapes of factors do not fit the weight.
    """

    method = "lora"

    def __init__(
        self,
        base: Checkpoint,
        adapter: Checkpoint,
        changes: Mapping[str, LowRank],
        replaced: Mapping[str, str],
    ) -> None:
        self.base = base
        self.adapter = adapter
        self.changes = dict(changes)
        self.replaced = dict(replaced)
        tensors: dict[str, TensorInfo] = dict(base.tensors)
        tensors |= {name: adapter.tensors[there] for name, there in replaced.items()}
        super().__init__([base, adapter], tensors)
        self.path = adapter.path
        self.metadata = base.metadata
        self.details = adapter.details
        for name in changes:
            self._check(name)

    def _check(self, name: str) -> None:
        change, weight = self.changes[name], self.tensors[name].shape
        a, b = self.adapter.tensors[change.a].shape, self.adapter.tensors[change.b].shape
        product = (b[0], _row_length(a)) if len(a) > 1 and len(b) > 1 else ()
        found = (weight[0], _row_length(weight)) if weight else ()
        if (
            len(b) < 2
            or a[0] != _row_length(b)
            or product != (found[::-1] if change.transposed else found)
        ):
            raise CheckpointError(
                f"{self.path}: the factors {change.b} {list(b)} and {change.a} {list(a)} do not "
                f"fit {name!r} of the base, which has shape {list(weight)}.",
                "Use the base that the adapter was trained on.",
            )

    def to_json(self, name_of: NameOf) -> dict[str, Any]:
        """Return the description of the merge; see `Derived.to_json`."""
        return {
            "method": self.method,
            "base": name_of(self.base),
            "adapter": name_of(self.adapter),
            "changes": {name: asdict(change) for name, change in sorted(self.changes.items())},
            "replaced": dict(sorted(self.replaced.items())),
        }

    @classmethod
    def from_json(
        cls, body: Mapping[str, Any], checkpoint_of: Callable[[str], Checkpoint]
    ) -> "MergedAdapter":
        """Recreate the merge from the JSON of `to_json`."""
        return cls(
            checkpoint_of(body["base"]),
            checkpoint_of(body["adapter"]),
            {name: LowRank(**change) for name, change in body["changes"].items()},
            body["replaced"],
        )

    @property
    def scan_name(self) -> str:
        """The digest; the scan is stored under it, beside that of the adapter's file."""
        return self.digest

    def scan(self, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Scan:
        """Scan both files and, once only, the changed tensors; see `Checkpoint.scan`."""
        if self._scan is None:
            self._scan = cached_scan(self)
        if self._scan is None:
            base, adapter = self.base.scan(on_bytes), self.adapter.scan(on_bytes)
            changed = scan_tensors(self, on_bytes, names=self.changes)
            replaced = {name: adapter[there] for name, there in self.replaced.items()}
            found = {**base, **changed, **replaced}
            self._scan = {name: found[name] for name in self.tensors}
            remember_scan(self, self._scan)
        return self._scan

    def known(self, name: str) -> TensorScan | None:
        """Return the scan of a tensor; see `Checkpoint.known`."""
        return self._scan[name] if self._scan is not None else super().known(name)

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the base for a tensor that the adapter does not change; else None."""
        return None if name in self.changes or name in self.replaced else self.base

    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Compute part of a tensor into a buffer; see `Checkpoint.read_into`."""
        stop = start + out.numel()
        if name in self.replaced:
            out.copy_(self.adapter.read_elements(self.replaced[name], start, stop))
            return
        own = self.base.read_elements(name, start, stop)
        if name not in self.changes:
            out.copy_(own)
            return
        change = self.changes[name]
        wide = torch.float64 if out.dtype.itemsize >= 4 else torch.float32
        columns = _row_length(self.tensors[name].shape)
        left, right = self._factors(change, wide)
        first, last = start // columns, -(-stop // columns)
        delta = torch.zeros(last - first, columns, dtype=wide)
        for k in range(left.shape[1]):  # rank
            delta.addcmul_(left[first:last, k, None], right[None, k])
        flat = delta.flatten()[start - first * columns : stop - first * columns]
        out.copy_(flat.mul_(change.scale).add_(own))

    def _factors(self, change: LowRank, wide: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors [rows, r] and [r, columns] of the weight as stored."""
        a = self.adapter.read(change.a).to(wide).flatten(1)
        b = self.adapter.read(change.b).to(wide).flatten(1)
        return (a.T, b.T) if change.transposed else (b, a)


def _row_length(shape: Sequence[int]) -> int:
    """Return the number of elements of a row."""
    return math.prod(shape[1:])
