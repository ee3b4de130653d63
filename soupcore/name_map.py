"""Mapping of checkpoints to the tensor names of a network, and loading into a network."""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from soupcore.checkpoints import Checkpoint, RenamedCheckpoint, TensorInfo
from soupcore.checkpoints.buffers import why_no_weight, why_no_weight_in
from soupcore.checkpoints.digest import Scan, TensorScan
from soupcore.checkpoints.dtypes import raw_bytes
from soupcore.checkpoints.names import align, tied
from soupcore.checkpoints.renamed import named_like
from soupcore.errors import CheckpointError
from soupcore.mixtures import Mixture

_EVALUATING = "Choose the task that these checkpoints were trained for."
_LOADING = (
    "Build the model with the settings of these checkpoints, or pass strict=False to load only the "
    "tensors that fit."
)


class NameMap:
    """The tensor names of a network, and the mapping of points to them.

    Tensors that are not trained may or may not be saved (see `soupcore.checkpoints.buffers`). If
    only the checkpoint has such a tensor, it is omitted; if only the network has it, the network
    keeps its own.

    Args:
        network: State dict of the network as it was built.
        task: Name of the network's task; None for a network that the user built.
        buffers: All buffers of the network from `named_buffers()`, including those that it does not
            save. Without it, tensors are recognised as buffers by their values alone.
    """

    def __init__(
        self,
        network: Mapping[str, Tensor],
        task: str | None,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._ties = tied({name: memory_of(t) for name, t in network.items() if t.numel()})
        self._described = "the model" if task is None else f"the network of the task {task!r}"
        self._advice = _LOADING if task is None else _EVALUATING
        # Not the tensors, which would keep the memory that a network is moved from.
        infos = {name: TensorInfo(tuple(t.shape), t.dtype) for name, t in network.items()}
        self._network = infos
        candidates = network if buffers is None else network.keys() & buffers.keys()
        # Copies, because points are mixed into the network's own memory.
        self._own = {
            name: _Own(network[name])
            for name in candidates
            if why_no_weight(name, infos, _reader(network[name]))
        }
        self._unsaved = {
            name: tensor.detach().cpu().clone()
            for name, tensor in (buffers or {}).items()
            if name not in network
        }
        self._known: dict[str, tuple[Checkpoint, Checkpoint]] = {}

    def under_own_names(self, mixture: Mixture) -> Mixture:
        """Return the same point, with the same key, under the network's tensor names.

        Prefixes of wrappers are ignored. Of tied tensors, the checkpoint needs only one.

        Raises:
            CheckpointError: The weights do not fit the network.
        """
        return Mixture(
            (self._named(mixture.sources[digest]), coefficient)
            for digest, coefficient in mixture.coefficients.items()
        )

    def names_in(self, mixture: Mixture) -> dict[str, str]:
        """Return the point's name for each tensor of the network: `{network's: point's}`.

        Tensors for which the network keeps its own values are omitted.
        """
        first = next(iter(mixture.sources.values()))
        named = self._named(first)
        return {name: name for name in first.tensors} if named is first else named.original_names

    def _named(self, checkpoint: Checkpoint) -> Checkpoint:
        known = self._known.get(checkpoint.digest)
        if known is None or known[0] is not checkpoint:
            named = self._reconciled(
                checkpoint, named_like(checkpoint, self._network.keys(), self._ties)
            )
            _check_fit(self._network, named, self._described, self._advice)
            known = self._known[checkpoint.digest] = checkpoint, named
        return known[1]

    def _reconciled(self, checkpoint: Checkpoint, named: Checkpoint) -> Checkpoint:
        """Omit tensors that the network does not save, and add those that only the network has."""
        needless = {
            name
            for name, info in named.tensors.items()
            if name not in self._network or self._network[name].shape != info.shape
            if self._is_needless(named, name)
        }
        needed = [name for name in named.tensors if name not in needless]
        added = {name: own for name, own in self._own.items() if name not in needed}
        if not needless and not added:
            return named
        original = (
            named.original_names if named is not checkpoint else {name: name for name in needed}
        )
        return _Completed(checkpoint, {name: original[name] for name in needed}, added)

    def _is_needless(self, named: Checkpoint, name: str) -> bool:
        if name in self._network:  # in another shape
            return name in self._own and bool(why_no_weight_in(named, name))
        unsaved = self._unsaved.get(name)
        if unsaved is None or tuple(unsaved.shape) != named.tensors[name].shape:
            return bool(why_no_weight_in(named, name))
        if _are_close(named.read(name), unsaved):
            return True
        raise CheckpointError(
            f"{named.path} does not fit {self._described}: tensor {name!r} "
            "differs from the buffer that the network computes itself.",
            "Build the network with the settings of these checkpoints.",
        )


def memory_of(tensor: Tensor) -> tuple[object, ...]:
    """Return the memory that a tensor is a view of, which tied tensors share."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def load_into(
    model: nn.Module,
    mixture: Mixture,
    *,
    strict: bool = True,
    replaced: Mapping[str, Tensor] = MappingProxyType({}),
) -> list[str]:
    """Load the weights of a point into a network, tensor by tensor.

    Names are matched as for a task's network: prefixes of wrappers are ignored, and tensors that
    are not trained may be missing on either side. If the weights do not fit, the network stays
    unchanged.

    Args:
        model: The network. It keeps its dtypes and its device.
        mixture: The point.
        strict: Whether all weights must fit. If not, tensors of the network without a counterpart
            of the same shape stay unchanged.
        replaced: `{name in the point: tensor}` to load instead of the point's tensors, such as
            re-estimated BatchNorm statistics.

    Returns:
        Names of the network's tensors that stayed unchanged; empty if `strict`.

    Raises:
        CheckpointError: The weights do not fit, or the network is on the meta device.
    """
    state = {n: t for n, t in model.state_dict().items() if isinstance(t, Tensor)}
    if without := [name for name, tensor in state.items() if tensor.is_meta]:
        raise CheckpointError(
            f"{len(without)} tensors of the model, such as {without[0]!r}, are on the meta device, "
            "which holds no values.",
            "Call model.to_empty(device=...) first.",
        )
    if strict:
        name_map = NameMap(state, None, dict(model.named_buffers(remove_duplicate=False)))
        point, names = name_map.under_own_names(mixture), name_map.names_in(mixture)
        sources = {name: (point, name) for name in point.tensors}
    else:
        names = align(list(mixture.tensors), state.keys())
        fitting = {name: there for name, there in names.items() if name in state}
        sources = {
            name: (mixture, there)
            for name, there in fitting.items()
            if mixture.tensors[there].shape == tuple(state[name].shape)
        }
        if not sources:
            example = next(iter(mixture.sources.values()))
            raise CheckpointError(
                f"{example.path} has none of the {len(state)} tensors of the model with the same "
                "name and shape.",
                _LOADING,
            )
    with torch.no_grad():
        for name, (point, there) in sources.items():
            instead = replaced.get(names.get(name, ""))
            state[name].copy_(point.tensor(there) if instead is None else instead)
    filled = {memory_of(state[name]) for name in sources}
    return [name for name, t in state.items() if name not in sources and memory_of(t) not in filled]


class _Own:
    """A tensor of the network, flattened on the CPU, and its scan."""

    def __init__(self, tensor: Tensor) -> None:
        self.values = tensor.detach().cpu().reshape(-1).clone()
        self.info = TensorInfo(tuple(tensor.shape), tensor.dtype)
        nonfinite = 0
        if tensor.is_floating_point() or tensor.is_complex():
            nonfinite = int((~self.values.isfinite()).sum())
        self.scan = TensorScan(hashlib.sha256(raw_bytes(self.values)).hexdigest(), nonfinite)


class _Completed(RenamedCheckpoint):
    """A checkpoint under the network's names, completed with tensors of the network."""

    def __init__(
        self, original: Checkpoint, names: Mapping[str, str], own: Mapping[str, _Own]
    ) -> None:
        super().__init__(original, names)
        self._own = dict(own)
        self.tensors |= {name: added.info for name, added in own.items()}

    def read_elements(self, name: str, start: int, stop: int) -> Tensor:
        """Read part of a tensor; see `Checkpoint.read_elements`."""
        if name in self._own:
            return self._own[name].values[start:stop]
        return super().read_elements(name, start, stop)

    def read_into(self, name: str, start: int, out: Tensor) -> None:
        """Read part of a tensor into a buffer; see `Checkpoint.read_into`."""
        if name in self._own:
            out.copy_(self._own[name].values[start : start + out.numel()])
        else:
            super().read_into(name, start, out)

    def scan(self, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Scan:
        """Scan the original, see `Checkpoint.scan`."""
        return {**super().scan(on_bytes), **{name: own.scan for name, own in self._own.items()}}

    def known(self, name: str) -> TensorScan | None:
        """Return the scan of a tensor if it is available, see `Checkpoint.known`."""
        return self._own[name].scan if name in self._own else super().known(name)


def _reader(tensor: Tensor) -> Callable[[int, int], Tensor]:
    flat = tensor.detach().reshape(-1)
    return lambda start, stop: flat[start:stop].cpu()


def _are_close(one: Tensor, other: Tensor) -> bool:
    # Frequencies and masks are recomputed on every machine, and sometimes saved in half precision.
    return torch.allclose(one.double(), other.double(), rtol=1e-2, atol=1e-6, equal_nan=True)


def _check_fit(
    network: Mapping[str, TensorInfo], checkpoint: Checkpoint, described: str, advice: str
) -> None:
    problem = f"{checkpoint.path} does not fit {described}"
    differing = network.keys() ^ checkpoint.tensors.keys()
    if differing:
        name = min(differing)
        where = "only in the network" if name in network else "only in the checkpoint"
        raise CheckpointError(
            f"{problem}: tensor {name!r} is {where} ({len(differing)} unmatched in all).",
            advice,
        )
    for name, info in network.items():
        shape = checkpoint.tensors[name].shape
        if info.shape != shape:
            raise CheckpointError(
                f"{problem}: tensor {name!r} has shape {list(shape)}, the network's has "
                f"{list(info.shape)}.",
                advice,
            )
