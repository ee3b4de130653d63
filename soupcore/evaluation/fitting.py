"""Points under the tensor names of the network that is to hold them."""

from collections.abc import Mapping

from torch import Tensor

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.renamed import named_like
from soupcore.errors import CheckpointError
from soupcore.mixtures import Mixture


def under_names_of(network: Mapping[str, Tensor], mixture: Mixture, task: str) -> Mixture:
    """Return the same point, with the same key, under a network's tensor names.

    Wrappers' prefixes make no difference, and of tensors that the network ties, one name is enough.

    Args:
        network: The network's state dict.
        mixture: The point.
        task: Whose network it is, for people.

    Raises:
        CheckpointError: The weights do not fit the network.
    """
    ties = _ties(network)
    renamed = []
    for digest, coefficient in mixture.coefficients.items():
        source = named_like(mixture.sources[digest], network.keys(), ties)
        _check_fit(network, source, task)
        renamed.append((source, coefficient))
    return Mixture(renamed)


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
