"""The task's network on a device, and the ingredients in memory.

The network's weights are in one buffer, into which points are mixed directly. Ingredients stay in
memory as far as a budget allows, so that mixing reads no files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.display import in_words
from soupcore.errors import CheckpointError, StockpotError
from soupcore.evaluation.data import is_out_of_memory
from soupcore.mixtures import Mixture
from soupcore.name_map import NameMap, memory_of
from soupcore.progress import Progress, no_progress, part
from soupcore.tasks import Task
from soupcore.tasks.networks import cast_dtype


def choose_device(name: str = "auto") -> torch.device:
    """Return a device by name; `auto` selects CUDA, else Apple's MPS, else the CPU.

    Raises:
        StockpotError: This machine has no such device, or torch cannot use it.
    """
    if name != "auto":
        try:
            device = torch.device(name)
        except RuntimeError:
            raise StockpotError(
                f"{name!r} is not a device. Choose cpu, cuda, cuda:1, mps or auto."
            ) from None
        cuda, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
        if device.type == "cuda" and (device.index or 0) >= cuda:
            there = f"torch finds {cuda} CUDA devices here"
        elif device.type == "mps" and not mps:
            there = "torch finds no MPS device here"
        else:
            return device
        raise StockpotError(f"There is no device {name!r}: {there}. Choose another, such as cpu.")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Make a device the current one, with deterministic convolutions in full float32."""
    exactly = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with exactly, torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        yield


class Row(Checkpoint):
    """The weights of a checkpoint in memory, concatenated to one tensor per dtype.

    Mixing one large tensor is faster than mixing the many small tensors of a network.

    Args:
        checkpoint: The checkpoint.
        names: Names of its tensors, in the order of concatenation.
        dropped: A row whose memory is reused if it has the same size. The allocator neither returns
            freed blocks of this size to the system nor always reuses them.

    Attributes:
        joined: `{name of the joined tensor: names of the tensors in it}`.
    """

    def __init__(
        self, checkpoint: Checkpoint, names: Sequence[str], dropped: Row | None = None
    ) -> None:
        self._digest = checkpoint.digest
        self.joined: dict[str, list[str]] = {}
        for name in names:
            self.joined.setdefault(str(checkpoint.tensors[name].dtype), []).append(name)
        self._elements: dict[str, Tensor] = {}
        tensors = {}
        for key, members in self.joined.items():
            infos = [checkpoint.tensors[name] for name in members]
            numel = sum(info.numel for info in infos)
            data = dropped._elements.get(key) if dropped else None
            if data is None or data.numel() != numel:
                data = torch.empty(numel, dtype=infos[0].dtype)
            places = torch.split(data, [info.numel for info in infos])
            for name, place in zip(members, places, strict=True):
                checkpoint.read_into(name, 0, place)
            tensors[key] = TensorInfo((len(data),), data.dtype)
            self._elements |= {key: data, **dict(zip(members, places, strict=True))}
        super().__init__(checkpoint.path, tensors, {}, files=())

    @property
    def digest(self) -> str:
        """Digest of the checkpoint."""
        return self._digest

    def read_elements(self, name: str, start: int, stop: int) -> Tensor:
        """Return part of a joined tensor, or of one in it, without a copy."""
        return self._elements[name][start:stop]


class Ingredients:
    """The most recently used ingredients, in memory as far as they fit a budget.

    Args:
        names: Names of the tensors to hold, in the order of concatenation.
        budget: Maximum size in bytes.
    """

    def __init__(self, names: Iterable[str], budget: int) -> None:
        self._names = list(names)
        self._budget = budget
        self._rows: OrderedDict[str, Row] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Size of the ingredients in memory, in bytes."""
        return sum(row.nbytes for row in self._rows.values())

    def unread(self, mixture: Mixture) -> int:
        """Return the size in bytes of the sources of a mixture that are not in memory."""
        return sum(c.nbytes for digest, c in mixture.sources.items() if digest not in self._rows)

    def hold(self, mixture: Mixture, on_progress: Progress = no_progress) -> None:
        """Load the sources of a mixture as far as they fit, dropping other ingredients.

        Args:
            mixture: The mixture.
            on_progress: Called with the number of bytes read and in total. It may load others.

        Raises:
            CheckpointError: A file to be read was changed since it was opened.
        """
        done, total = 0, self.unread(mixture)
        for digest, checkpoint in mixture.sources.items():
            if digest in self._rows:
                self._rows.move_to_end(digest)
                continue
            checkpoint.check_unchanged()
            dropped = self._make_room(checkpoint.nbytes, mixture)
            if self.nbytes + checkpoint.nbytes <= self._budget:
                self._load(digest, checkpoint, dropped)
                done += checkpoint.nbytes
                on_progress(min(done, total), total)

    def joined(self, mixture: Mixture) -> Mixture | None:
        """Return a mixture of joined tensors, or None unless all of its sources are in memory.

        Its elements are equal to those of the mixture, bit for bit. The result is also None if a
        source has infinite elements, which a mixture may have to copy, since their sum is NaN.
        """
        if any(c.is_scanned and c.nonfinite for c in mixture.sources.values()):
            return None
        rows = [self._rows.get(digest) for digest in mixture.sources]
        held = [row for row in rows if row is not None]
        if len(held) < len(rows) or any(row.joined != held[0].joined for row in held):
            return None
        return Mixture(zip(held, mixture.coefficients.values(), strict=True))

    def read(self, checkpoint: Checkpoint, name: str, start: int, stop: int) -> Tensor:
        """Read elements of a source from memory if it is held, else from its file."""
        row = self._rows.get(checkpoint.digest)
        return (row or checkpoint).read_elements(name, start, stop)

    def _load(self, digest: str, checkpoint: Checkpoint, dropped: Row | None) -> None:
        try:
            row = Row(checkpoint, self._names, dropped)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return  # less free memory than the budget: the file is read at each point
        checkpoint.check_unchanged()
        self._rows[digest] = row

    def _make_room(self, nbytes: int, mixture: Mixture) -> Row | None:
        """Drop ingredients that a mixture does not need until `nbytes` fit, or none is left.

        Returns:
            The ingredient that was dropped last.
        """
        dropped = None
        while self.nbytes + nbytes > self._budget:
            idle = next((digest for digest in self._rows if digest not in mixture.sources), None)
            if idle is None:
                break
            dropped = self._rows.pop(idle)
        return dropped


class Network:
    """The network of a task on a device, in evaluation mode.

    Its parameters and buffers are moved into one buffer per dtype, in the order of its state dict,
    so that mixing a point allocates no tensor, and needs a single copy to an accelerator.

    Args:
        task: The task.
        device: Device of the network.
        memory_budget: Size in bytes of the ingredients to keep in memory.

    Attributes:
        model: The module, with the weights of the last `put`.
        name_map: The names of its tensors.
        buffers: Its parameters and buffers, one flat tensor per dtype.
    """

    def __init__(self, task: Task, device: torch.device, memory_budget: int) -> None:
        self._task_name = task.name
        model = task.new_model().to(device=device, dtype=cast_dtype(task.precision))
        self.model = model.requires_grad_(requires_grad=False).eval()
        buffers = dict(self.model.named_buffers(remove_duplicate=False))
        self.name_map = NameMap(_state(self.model), task.name, buffers)
        own = _without_aliases(_state(self.model))
        self._members: dict[torch.dtype, list[str]] = {}
        for name in own:
            self._members.setdefault(own[name].dtype, []).append(name)
        sizes = {name: tensor.numel() for name, tensor in own.items()}
        names = {memory_of(tensor): name for name, tensor in own.items() if tensor.numel()}
        del own, buffers  # so that each tensor is freed as soon as it is moved
        self.buffers, inside = self._join(sizes, device)
        _move(self.model, names, inside)
        self._outside = {
            name: tensor
            for name, tensor in _state(self.model).items()
            if name in sizes and tensor.data_ptr() != inside[name].data_ptr()
        }
        # On the CPU, points are mixed directly into the network's memory. For an accelerator, they
        # are mixed into pinned memory and copied from there.
        self._mixed, self._places = self.buffers, inside
        if device.type != "cpu":
            pinned = device.type == "cuda"
            self._mixed, self._places = self._join(sizes, torch.device("cpu"), pinned=pinned)
        self._ingredients = Ingredients(sizes, memory_budget)
        self._puts = 0  # counts the calls of `put`

    def unread(self, mixture: Mixture) -> int:
        """Return the number of bytes that `put` reads from files."""
        return self._ingredients.unread(mixture)

    def put(self, mixture: Mixture, on_progress: Progress = no_progress) -> None:
        """Set the weights to those of a point.

        Args:
            mixture: The point.
            on_progress: Called with the number of bytes done and in total while files are read.
                Raise in it to cancel. It may put other points; then this one is mixed again.

        Raises:
            CheckpointError: They do not fit the network, a file was changed since it was opened,
                or a tensor does not fit in memory.
        """
        mixture = self.name_map.under_own_names(mixture)
        self._puts += 1
        self._ingredients.hold(mixture, part(on_progress, 0, 2))
        joined = self._ingredients.joined(mixture)
        if joined is not None:
            self._mix_joined(joined)
        else:
            self._mix_each(mixture, part(on_progress, 1, 2))
        if self._mixed is not self.buffers:
            for dtype, buffer in self.buffers.items():
                # A blocking copy, since the next point is mixed into the same memory.
                buffer.copy_(self._mixed[dtype])
        for name, tensor in self._outside.items():
            tensor.copy_(self._places[name].view(tensor.shape))

    def _mix_joined(self, joined: Mixture) -> None:
        row = next(iter(joined.sources.values()))
        assert isinstance(row, Row)  # noqa: S101 - all sources of `Ingredients.joined` are
        for key, names in row.joined.items():
            dtype = joined.tensors[key].dtype
            if self._members.get(dtype) == names:
                joined.mix_into(key, self._mixed[dtype])
                continue
            # The weights have another dtype than the network, and are mixed in their own.
            places = [self._places[name] for name in names]
            mixed = torch.split(joined.tensor(key), [len(place) for place in places])
            for place, elements in zip(places, mixed, strict=True):
                place.copy_(elements)

    def _mix_each(self, mixture: Mixture, on_progress: Progress) -> None:
        total = sum(place.nbytes for place in self._places.values())
        done, puts = 0, self._puts
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
                    f"There is too little memory to mix tensor {name!r} ({size}). Free memory on "
                    "this machine, or use a smaller memory budget."
                ) from error
            done += place.nbytes
            on_progress(done, total)
            if self._puts != puts:  # the callback has put another point into the same memory
                self._mix_each(mixture, on_progress)
                return

    def _join(
        self, numels: Mapping[str, int], device: torch.device, *, pinned: bool = False
    ) -> tuple[dict[torch.dtype, Tensor], dict[str, Tensor]]:
        """Return one buffer per dtype, and the view of each tensor in it.

        Args:
            numels: Number of elements of each tensor.
            device: Device of the buffers.
            pinned: Whether to pin their memory.
        """
        buffers: dict[torch.dtype, Tensor] = {}
        places: dict[str, Tensor] = {}
        for dtype, names in self._members.items():
            sizes = [numels[name] for name in names]
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
    """Keep the last name of each tensor, whose value remains after a state dict is loaded."""
    last = {memory_of(tensor) if tensor.numel() else name: name for name, tensor in state.items()}
    return {name: state[name] for name in last.values()}


def _move(
    model: nn.Module, names: Mapping[tuple[object, ...], str], places: Mapping[str, Tensor]
) -> None:
    """Move the parameters and buffers of a model to other memory, with their values.

    Args:
        model: The model.
        names: Their names, by the memory that they are views of.
        places: The other memory, by name.
    """
    for tensor in _parameters_and_buffers(model):
        name = names.get(memory_of(tensor))
        if name is not None:
            places[name].copy_(tensor.reshape(-1))
            tensor.data = places[name].view(tensor.shape)


def _parameters_and_buffers(model: nn.Module) -> Iterable[Tensor]:
    yield from list(model.parameters())
    yield from list(model.buffers())
