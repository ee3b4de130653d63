"""The task's network, whose weights lie in one buffer that points are mixed straight into."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from soupcore.errors import CheckpointError
from soupcore.evaluation.fitting import Fitting
from soupcore.evaluation.ingredients import Ingredients, Row
from soupcore.evaluation.memory import in_words, is_out_of_memory
from soupcore.mixtures import Mixture
from soupcore.tasks import Task


class Network:
    """The network of a task on a device, in evaluation mode.

    Its parameters and buffers are moved into one buffer a dtype, in the order of its state dict,
    so that mixing a point makes no new tensor, and on an accelerator needs one copy.

    Args:
        task: Whose network.
        device: Where it computes.
        memory_budget: Bytes of ingredients to keep in memory.

    Attributes:
        model: The module; it computes with the weights that were put in last.
        fitting: The names of its tensors.
        buffers: What it computes with, one flat tensor a dtype.
    """

    def __init__(self, task: Task, device: torch.device, memory_budget: int) -> None:
        self._task_name = task.name
        self.model = task.build_model().to(device).requires_grad_(requires_grad=False).eval()
        self.fitting = Fitting(_state(self.model), task.name)
        own = _without_aliases(_state(self.model))
        self._members: dict[torch.dtype, list[str]] = {}
        self._shapes = {name: tensor.shape for name, tensor in own.items()}
        for name, tensor in own.items():
            self._members.setdefault(tensor.dtype, []).append(name)
        self.buffers, inside = self._join(own, device)
        _move(self.model, own, inside)
        self._outside = {
            name: tensor
            for name, tensor in _state(self.model).items()
            if name in own and tensor.data_ptr() != inside[name].data_ptr()
        }
        # On the CPU points are mixed where the network reads. An accelerator gets them by a copy
        # of memory that it can read at its full pace.
        self._mixed, self._places = self.buffers, inside
        if device.type != "cpu":
            pinned = device.type == "cuda"
            self._mixed, self._places = self._join(own, torch.device("cpu"), pinned=pinned)
        self._ingredients = Ingredients(own, memory_budget)

    def put(self, mixture: Mixture) -> None:
        """Set the weights to those of a point.

        Raises:
            CheckpointError: They do not fit the network, a file was changed since it was opened,
                or a tensor does not fit in memory.
        """
        mixture = self.fitting.under_own_names(mixture)
        self._ingredients.hold(mixture)
        joined = self._ingredients.joined(mixture)
        if joined is None:
            self._mix_each(mixture)
        else:
            self._mix_joined(joined)
        if self._mixed is not self.buffers:
            for dtype, buffer in self.buffers.items():
                # Waits until it is there: the next point is mixed into the memory it comes from.
                buffer.copy_(self._mixed[dtype])
        for name, tensor in self._outside.items():
            tensor.copy_(self._places[name].view(tensor.shape))

    @property
    def is_joined(self) -> bool:
        """Whether all of its tensors lie in the buffers."""
        return not self._outside

    def tensors_in(self, rows: Mapping[torch.dtype, Tensor]) -> dict[str, Tensor]:
        """Return the tensors in several copies of the buffers: `{name: [copies, *shape]}`.

        Args:
            rows: The copies, [copies, length] a dtype.
        """
        found = {}
        for dtype, names in self._members.items():
            parts = torch.split(rows[dtype], [self._shapes[name].numel() for name in names], dim=1)
            for name, part in zip(names, parts, strict=True):
                found[name] = part.view(len(part), *self._shapes[name])
        return found

    def _mix_joined(self, joined: Mixture) -> None:
        row = next(iter(joined.sources.values()))
        assert isinstance(row, Row)  # noqa: S101 - Ingredients.joined says so
        for key, names in row.joined.items():
            dtype = joined.tensors[key].dtype
            if self._members.get(dtype) == names:
                joined.mix_into(key, self._mixed[dtype])
                continue
            # The weights have another dtype than the network: they are mixed in their own.
            places = [self._places[name] for name in names]
            parts = torch.split(joined.tensor(key), [len(place) for place in places])
            for place, part in zip(places, parts, strict=True):
                place.copy_(part)

    def _mix_each(self, mixture: Mixture) -> None:
        for name, place in self._places.items():
            try:
                if mixture.tensors[name].dtype == place.dtype:
                    mixture.mix_into(name, place, 0, self._ingredients.read)
                else:
                    place.copy_(mixture.tensor(name, self._ingredients.read).view(-1))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                size = in_words(mixture.tensors[name].nbytes)
                raise CheckpointError(
                    f"There is too little memory to mix tensor {name!r} ({size}). Close what else "
                    "runs on this machine, or give a smaller memory budget."
                ) from error

    def _join(
        self, tensors: Mapping[str, Tensor], device: torch.device, *, pinned: bool = False
    ) -> tuple[dict[torch.dtype, Tensor], dict[str, Tensor]]:
        """Return one buffer a dtype, and the place of each tensor in it."""
        buffers: dict[torch.dtype, Tensor] = {}
        places: dict[str, Tensor] = {}
        for dtype, names in self._members.items():
            sizes = [tensors[name].numel() for name in names]
            try:
                buffer = torch.empty(sum(sizes), dtype=dtype, device=device, pin_memory=pinned)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                size = in_words(sum(sizes) * dtype.itemsize)
                raise CheckpointError(
                    f"The weights of the task {self._task_name!r} ({size}) do not fit in the "
                    f"memory of the device {str(device)!r}. Choose another device."
                ) from error
            buffers[dtype] = buffer
            places |= dict(zip(names, torch.split(buffer, sizes), strict=True))
        return buffers, places


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {n: t for n, t in model.state_dict().items() if isinstance(t, Tensor)}


def _without_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the last of the names that stand for one tensor, as loading a state dict would."""
    last = {_memory(tensor) or name: name for name, tensor in state.items()}
    return {name: state[name] for name in last.values()}


def _memory(tensor: Tensor) -> tuple[object, ...]:
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else ()


def _move(model: nn.Module, own: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
    """Let the parameters and buffers of a model lie in other memory, with the values they have."""
    names = {_memory(tensor): name for name, tensor in own.items() if tensor.numel()}
    for tensor in _parameters_and_buffers(model):
        name = names.get(_memory(tensor))
        if name is not None:
            places[name].copy_(tensor.reshape(-1))
            tensor.data = places[name].view(tensor.shape)


def _parameters_and_buffers(model: nn.Module) -> Iterable[Tensor]:
    yield from list(model.parameters())
    yield from list(model.buffers())
