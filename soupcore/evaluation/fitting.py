"""Points under the tensor names of the network that is to hold them."""

from collections.abc import Mapping

from torch import Tensor

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.renamed import named_like
from soupcore.errors import CheckpointError
from soupcore.mixtures import Mixture


class Fitting:
    """The tensor names of a network, and points under them.

    Args:
        network: Its state dict.
        task: Whose network it is, for people.
    """

    def __init__(self, network: Mapping[str, Tensor], task: str) -> None:
        self._network = dict(network)
        self._ties = _ties(network)
        self._task = task
        self._known: dict[str, tuple[Checkpoint, Checkpoint]] = {}

    def under_own_names(self, mixture: Mixture) -> Mixture:
        """Return the same point, with the same key, under the network's tensor names.

        Wrappers' prefixes make no difference, and of tensors that the network ties, one name is
        enough.

        Raises:
            CheckpointError: The weights do not fit the network.
        """
        return Mixture(
            (self._named(mixture.sources[digest]), coefficient)
            for digest, coefficient in mixture.coefficients.items()
        )

    def names_in(self, mixture: Mixture) -> dict[str, str]:
        """Return the names that a point has for the network's tensors: `{network's: point's}`."""
        first = next(iter(mixture.sources.values()))
        named = self._named(first)
        return {name: name for name in first.tensors} if named is first else named.original_names

    def _named(self, checkpoint: Checkpoint) -> Checkpoint:
        known = self._known.get(checkpoint.digest)
        if known is None or known[0] is not checkpoint:
            named = named_like(checkpoint, self._network.keys(), self._ties)
            _check_fit(self._network, named, self._task)
            known = self._known[checkpoint.digest] = checkpoint, named
        return known[1]


def _ties(network: Mapping[str, Tensor]) -> list[list[str]]:
    tied: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in network.items():
        if tensor.numel():
            memory = (tensor.data_ptr(), tensor.shape, tensor.stride())
            tied.setdefault(memory, []).append(name)
    return [names for names in tied.values() if len(names) > 1]


def _check_fit(network: Mapping[str, Tensor], checkpoint: Checkpoint, task: str) -> None:
    problem = f"{checkpoint.path} does not fit the network of the task {task!r}"
    way_out = "Choose the task that these checkpoints were trained for."
    differing = network.keys() ^ checkpoint.tensors.keys()
    if differing:
        name = min(differing)
        where = "only in the network" if name in network else "only in the checkpoint"
        raise CheckpointError(
            f"{problem}: tensor {name!r} is {where} ({len(differing)} such in all).", way_out
        )
    for name, tensor in network.items():
        shape = checkpoint.tensors[name].shape
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{problem}: tensor {name!r} has shape {list(shape)}, the network's has "
                f"{list(tensor.shape)}.",
                way_out,
            )
