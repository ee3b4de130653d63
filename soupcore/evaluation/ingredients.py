"""Ingredients held in memory, so that a point costs no reading."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.evaluation.memory import is_out_of_memory
from soupcore.mixtures import Mixture


class Row(Checkpoint):
    """The weights of a checkpoint in memory, joined to one tensor a dtype.

    Joined, the many small tensors of a network are mixed at the pace of a large one.

    Args:
        checkpoint: Whose weights.
        names: Which of its tensors, in the order in which they are joined.
        dropped: A row whose memory this one takes over where it has the same size. Freed memory of
            this size is not given back to the system, nor always found again.

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
        """Identity of the weights, that of the checkpoint."""
        return self._digest

    def read_elements(self, name: str, start: int, stop: int) -> Tensor:
        """Return part of a joined tensor, or of one in it, without a copy."""
        return self._elements[name][start:stop]


class Ingredients:
    """The ingredients used last, in memory as far as they fit a budget.

    Args:
        names: The tensors to hold, in the order in which to join them.
        budget: Bytes that they may take.
    """

    def __init__(self, names: Iterable[str], budget: int) -> None:
        self._names = list(names)
        self._budget = budget
        self._rows: OrderedDict[str, Row] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """What is held now."""
        return sum(row.nbytes for row in self._rows.values())

    def hold(self, mixture: Mixture) -> None:
        """Load the sources of a mixture as far as they fit, in place of what it does not need.

        Raises:
            CheckpointError: A file that had to be read was changed since it was opened.
        """
        for digest, checkpoint in mixture.sources.items():
            if digest in self._rows:
                self._rows.move_to_end(digest)
                continue
            checkpoint.check_unchanged()
            dropped = self._make_room(checkpoint.nbytes, mixture)
            if self.nbytes + checkpoint.nbytes <= self._budget:
                self._load(digest, checkpoint, dropped)

    def joined(self, mixture: Mixture) -> Mixture | None:
        """Return a mixture as one of joined tensors, None unless all of its sources are held.

        Its tensors are the same numbers as those of the mixture, to the bit. It is None too where
        a source holds infinities, which a mixture may have to copy and a sum makes NaN of.
        """
        if any(c.is_scanned and c.nonfinite for c in mixture.sources.values()):
            return None
        rows = [self._rows.get(digest) for digest in mixture.sources]
        held = [row for row in rows if row is not None]
        if len(held) < len(rows) or any(row.joined != held[0].joined for row in held):
            return None
        return Mixture(zip(held, mixture.coefficients.values(), strict=True))

    def read(self, checkpoint: Checkpoint, name: str, start: int, stop: int) -> Tensor:
        """Read elements of a source from memory where it is held, else from its file."""
        row = self._rows.get(checkpoint.digest)
        return (row or checkpoint).read_elements(name, start, stop)

    def _load(self, digest: str, checkpoint: Checkpoint, dropped: Row | None) -> None:
        try:
            row = Row(checkpoint, self._names, dropped)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return  # less is free than the budget says: its file is read at each point
        checkpoint.check_unchanged()
        self._rows[digest] = row

    def _make_room(self, nbytes: int, mixture: Mixture) -> Row | None:
        """Drop what a mixture does not need until so many bytes fit, if they do then.

        Returns:
            What was dropped last.
        """
        dropped = None
        while self.nbytes + nbytes > self._budget:
            idle = next((digest for digest in self._rows if digest not in mixture.sources), None)
            if idle is None:
                break
            dropped = self._rows.pop(idle)
        return dropped
