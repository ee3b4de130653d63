from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from soupcore import Evaluator, Store
from soupcore.evaluation.replays import Play, Replays, record_on_cuda
from tests.evaluation.nets import NETS, kitchen

BATCH = torch.arange(6.0).reshape(3, 2)


class Recorder:
    """Records like a device that plays a pass back where the weights lay, whatever they are."""

    def __init__(self, *, off_by: float = 0.0, problem: str = "", is_empty: bool = False) -> None:
        self.recorded: list[torch.Size] = []
        self.played = 0
        self._off_by = off_by
        self._problem = problem
        self._is_empty = is_empty

    def __call__(self, forward: Callable[..., Tensor], arguments: Sequence[Tensor]) -> Play:
        if self._problem:
            raise RuntimeError(self._problem)
        self.recorded.append(arguments[0].shape)
        inputs = [argument.clone() for argument in arguments]
        outputs = forward(*inputs)

        def play(given: Sequence[Tensor]) -> Tensor:
            self.played += 1
            for place, argument in zip(inputs, given, strict=True):
                place.copy_(argument)
            return outputs if self._is_empty else forward(*inputs) + self._off_by

        return play


def test_what_comes_again_is_recorded_once_and_played_back() -> None:
    layer, recorder = nn.Linear(2, 1).requires_grad_(requires_grad=False), Recorder()
    notes: list[str] = []
    replays = Replays(recorder, notes)
    for factor in range(6):
        assert torch.equal(replays.call(layer, BATCH * factor), layer(BATCH * factor))
    assert recorder.recorded == [BATCH.shape]
    assert recorder.played == 1 + 3  # one to compare, and three of the six
    with torch.no_grad():
        layer.weight.fill_(2)
    assert torch.equal(replays.call(layer, BATCH), layer(BATCH))
    assert recorder.played == 5
    assert notes == []


def test_another_shape_or_network_has_a_recording_of_its_own() -> None:
    recorder = Recorder()
    replays = Replays(recorder, [])
    layers = [nn.Linear(2, 1).requires_grad_(requires_grad=False) for _ in range(2)]
    for batch in (BATCH, BATCH[:2], BATCH):
        for layer in layers:
            for _ in range(3):
                assert torch.equal(replays.call(layer, batch), layer(batch))
    assert recorder.recorded == [BATCH.shape] * 2 + [BATCH[:2].shape] * 2


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Recorder(off_by=1e-6), "it gave other numbers"),
        (Recorder(is_empty=True), "it gave other numbers"),
        (Recorder(problem="operation not permitted\nwhen recording"), "operation not permitted"),
    ],
    ids=["wrong", "empty", "impossible"],
)
def test_a_network_that_cannot_be_recorded_is_called_as_it_is(
    recorder: Recorder, reason: str
) -> None:
    notes: list[str] = []
    replays = Replays(recorder, notes)
    layer = nn.Linear(2, 1).requires_grad_(requires_grad=False)
    for batch in (BATCH, BATCH[:2]):
        for _ in range(5):
            assert torch.equal(replays.call(layer, batch), layer(batch))
    assert notes == [f"The network is not played back from a recording: {reason}."]


def test_numbers_that_are_nan_are_the_same_numbers() -> None:
    recorder = Recorder()
    notes: list[str] = []
    replays = Replays(recorder, notes)
    for _ in range(5):
        replays.call(torch.log, -torch.ones(2))
    assert recorder.played == 3
    assert notes == []


@pytest.mark.parametrize("net", NETS)
def test_points_are_what_the_plain_loop_finds_when_passes_are_played_back(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, net: str
) -> None:
    made = kitchen(tmp_path / "sweep", NETS[net], splits=("val", "test"))
    evaluator = Evaluator(made.task, store, device="cpu", batch_size=16)
    recorder = Recorder()
    monkeypatch.setattr(evaluator._passes, "replays", Replays(recorder, evaluator._passes.notes))
    for split in ("val", "test"):
        points = made.points()
        for point, found in zip(points, evaluator.evaluate_all(points, split), strict=True):
            assert made.agrees(found, point, split)
    assert recorder.played > len(recorder.recorded) > 0
    assert evaluator.notes == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_cuda_graph_computes_with_the_weights_of_the_moment() -> None:
    layer = nn.Linear(2, 1).cuda().requires_grad_(requires_grad=False)
    with torch.inference_mode():
        play = record_on_cuda(layer, [BATCH.cuda()], torch.cuda.graph_pool_handle())
        layer.weight.fill_(2)
        assert torch.equal(play([BATCH.cuda() + 1]), layer(BATCH.cuda() + 1))
