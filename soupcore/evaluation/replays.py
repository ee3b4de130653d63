"""Forward passes recorded once and played back, as CUDA graphs.

Launching the kernels of a small network one by one takes a GPU longer than computing them; a graph
launches all of them at once. The weights of every point lie in the same memory (see `network`), so
what was recorded at one point is right at all others.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

Play = Callable[[Sequence[Tensor]], Tensor]
Record = Callable[[Callable[..., Tensor], Sequence[Tensor]], Play]

_OFTEN = 3  # a batch of a shape seen so many times is taken to come again
_MOST = 16  # recordings that are kept: each holds the memory of its inputs and activations
_WARM_UP = 3  # passes, in which libraries choose their ways and ask for memory


class Replays:
    """Calls networks, from recordings where there are any.

    A recording is compared with a pass before it is used. A network whose recording gives
    other numbers, or that cannot be recorded (it waits for the GPU inside, say), is called as it
    is from then on.

    Args:
        record: Records the pass of a network over some arguments.
        notes: Takes what is not recorded and why, for people.
    """

    def __init__(self, record: Record, notes: list[str]) -> None:
        self._record = record
        self._notes = notes
        self._seen: OrderedDict[Hashable, int] = OrderedDict()
        self._plays: OrderedDict[Hashable, Play] = OrderedDict()
        self._refused = False

    def call(self, forward: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        """Return what a network makes of some arguments."""
        key = (forward, *((a.shape, a.stride(), a.dtype) for a in arguments))
        play = self._plays.get(key)
        if play is not None:
            self._plays.move_to_end(key)
            return play(arguments)
        kept = [argument.clone() for argument in arguments] if self._is_due(key) else None
        outputs = forward(*arguments)
        if kept is not None:
            self._try(key, forward, kept)
        return outputs

    def _is_due(self, key: Hashable) -> bool:
        if self._refused:
            return False
        self._seen[key] = self._seen.pop(key, 0) + 1
        if len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        return self._seen[key] == _OFTEN

    def _try(
        self,
        key: Hashable,
        forward: Callable[..., Tensor],
        arguments: Sequence[Tensor],
    ) -> None:
        try:
            play = self._record(forward, arguments)
            # With other examples than it was made of, which a recording of nothing would not tell.
            others = [argument.flip(0) for argument in arguments]
            expected = forward(*(argument.clone() for argument in others))
            found = play(others)
            same = torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True)
            reason = None if same else "it gave other numbers"
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
        if reason is not None:
            self._refused = True
            self._plays.clear()
            self._notes.append(f"The network is not played back from a recording: {reason}.")
            return
        self._plays[key] = play
        if len(self._plays) > _MOST:
            self._plays.popitem(last=False)


def record_on_cuda(forward: Callable[..., Tensor], arguments: Sequence[Tensor], pool: Any) -> Play:
    """Record a pass as a CUDA graph.

    Args:
        forward: The network.
        arguments: What it is given, on the device.
        pool: Memory for activations, which recordings may share that are not played at a time.

    Raises:
        RuntimeError: It does something that a graph cannot, or there is too little memory.
    """
    inputs = [argument.clone() for argument in arguments]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            forward(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        outputs = forward(*inputs)

    def play(given: Sequence[Tensor]) -> Tensor:
        for place, argument in zip(inputs, given, strict=True):
            place.copy_(argument)
        graph.replay()
        return outputs.clone()  # the next pass writes where these are

    return play
