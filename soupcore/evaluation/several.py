"""Several points of a small network at once.

What a small network makes of a batch leaves most of a GPU idle. With the weights of several points
side by side, `torch.func.vmap` makes of each layer one operation over all of them. Whether that
takes less time is found in the course of the work, and so is whether it gives the same.
"""

import math
import time
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from soupcore.evaluation.batchnorm import Estimate
from soupcore.evaluation.devices import computing_on
from soupcore.evaluation.judging import Judge, Judged
from soupcore.evaluation.memory import is_out_of_memory
from soupcore.evaluation.network import Network
from soupcore.evaluation.passes import Passes
from soupcore.evaluation.progress import Progress, part
from soupcore.evaluation.shortcuts import agree
from soupcore.mixtures import Mixture

AT_ONCE = 8  # points

_LARGEST = 64 << 20  # bytes of weights: a larger network keeps a GPU busy by itself
_CLEAR = 0.9  # of the time of one point after the other: anything above is taken for chance
_TRIES = 2  # groups: in the first, libraries choose their ways


class Several:
    """Takes splits through a network at one point after another, or at several at once.

    Args:
        passes: Takes them through it at one.
        may_stack: Whether several at once are to be tried.
    """

    def __init__(self, passes: Passes, *, may_stack: bool) -> None:
        self._passes = passes
        self._may_stack = may_stack
        self._tried: list[float] = []  # seconds a point of the groups that were tried

    def run(
        self,
        points: Sequence[tuple[Mixture, bool]],
        split: str,
        *,
        estimate: Estimate | None,
        on_progress: Progress,
    ) -> Iterator[tuple[Judged, float]]:
        """Take a split through the network at some points.

        Args:
            points: Each with whether to keep the outputs of each example.
            split: Name of the split.
            estimate: As for `Passes.run`.
            on_progress: Called with examples done and in all, of all points; raise in it to stop.

        Yields:
            What was found at each point, in their order, and the seconds that it took.

        Raises:
            TaskError, CheckpointError: As for `Passes.run`.
        """
        index = 0
        while index < len(points):
            # The first is alone: it brings in the data, and the quickest way is found with it.
            group = points[index : index + AT_ONCE] if index and self._stacks() else []
            group = group if len(group) == AT_ONCE else points[index : index + 1]
            progress = part(on_progress, index, len(points), len(group))
            started = time.perf_counter()
            found = self._together(group, split, estimate, progress) if len(group) > 1 else None
            if found is None:
                group = group[:1]
                ((point, keep),) = group
                found = [
                    self._passes.run(
                        point, split, keep_outputs=keep, estimate=estimate, on_progress=progress
                    )
                ]
            seconds = (time.perf_counter() - started) / len(group)
            yield from ((judged, seconds) for judged in found)
            index += len(group)

    def _stacks(self) -> bool:
        if not self._may_stack:
            return False
        network = self._passes.network
        nbytes = sum(buffer.nbytes for buffer in network.buffers.values())
        return network.is_joined and nbytes <= _LARGEST

    def _together(
        self,
        points: Sequence[tuple[Mixture, bool]],
        split: str,
        estimate: Estimate | None,
        on_progress: Progress,
    ) -> list[Judged] | None:
        """Take a split through the network at some points at once, None where that cannot be."""
        started = time.perf_counter()
        try:
            found = self._stacked(points, split, estimate, on_progress)
        except _CannotStackError as error:
            self._give_up(str(error))
            return None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._give_up("several do not fit in memory")
            return None
        if len(self._tried) < _TRIES:
            self._tried.append((time.perf_counter() - started) / len(points))
            if not self._stands(found[-1], points[-1], split, estimate):
                return None
        return found

    def _stands(
        self, found: Judged, point: tuple[Mixture, bool], split: str, estimate: Estimate | None
    ) -> bool:
        """Return whether what was found of one of several points is what is found of it alone."""
        started = time.perf_counter()
        alone = self._passes.run(point[0], split, keep_outputs=point[1], estimate=estimate)
        seconds = time.perf_counter() - started
        if math.isfinite(alone.loss) and not agree(found, alone):
            self._give_up("several at once give other numbers")
            return False
        self._may_stack = len(self._tried) < _TRIES or min(self._tried) < _CLEAR * seconds
        return True

    def _give_up(self, reason: str) -> None:
        self._may_stack = False
        self._passes.notes.append(f"Points are computed one by one: {reason}.")

    @torch.inference_mode()
    def _stacked(
        self,
        points: Sequence[tuple[Mixture, bool]],
        split: str,
        estimate: Estimate | None,
        on_progress: Progress,
    ) -> list[Judged]:
        passes = self._passes
        data, settings = passes.data(split), passes.settings(split)
        judges = [Judge(passes.task, keep_outputs=keep) for _, keep in points]
        with computing_on(passes.device), warnings.catch_warnings():
            # Of operations that vmap takes point by point, which the clock tells, too.
            warnings.filterwarnings("ignore", message=".*performance drop")
            stack = _Stack(passes.network, len(points))
            for index, (point, _) in enumerate(points):
                passes.put(point, estimate)
                stack.put(index)
            for start in range(0, len(data), settings.batch):
                stop = min(start + settings.batch, len(data))
                outputs, targets = data.through(
                    stack, slice(start, stop), channels_last=settings.channels_last
                )
                for judge, at_one_point in zip(judges, outputs, strict=True):
                    judge.add(at_one_point, targets)
                on_progress(stop, len(data))
        return [judge.result for judge in judges]


class _Stack:
    """A network with the weights of several points.

    Args:
        network: The network.
        points: How many.
    """

    def __init__(self, network: Network, points: int) -> None:
        self._network = network
        self._rows = {d: b.new_empty(points, len(b)) for d, b in network.buffers.items()}

    def put(self, index: int) -> None:
        """Take the weights that the network has now for those of one of the points."""
        for dtype, buffer in self._network.buffers.items():
            self._rows[dtype][index].copy_(buffer)

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Return what the network puts out at each point, shape [points, batch, ...].

        Raises:
            _CannotStackError: There is an operation that cannot be taken at several points.
        """

        def at_one_point(weights: dict[str, Tensor]) -> Tensor:
            outputs: Tensor = functional_call(self._network.model, weights, arguments)
            return outputs

        try:
            outputs: Tensor = vmap(at_one_point)(self._network.tensors_in(self._rows))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise _CannotStackError(str(error).strip().partition("\n")[0]) from error
        return outputs


class _CannotStackError(Exception):
    """Several points cannot be computed at once."""
