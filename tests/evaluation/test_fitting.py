from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from soupcore import (
    Checkpoint,
    CheckpointError,
    ClassificationTask,
    Evaluator,
    Mixture,
    Split,
    Store,
    Sweep,
    mean,
)
from soupcore.evaluation.fitting import Fitting
from tests.helpers import State, build_model, moved, random_state, same_weights, save_sweep

CheckpointOf = Callable[[Mapping[str, Tensor]], Checkpoint]


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "net.", "model.bert."])
def test_a_point_is_seen_under_the_names_of_the_network(
    checkpoint_of: CheckpointOf, prefix: str
) -> None:
    states = [random_state(seed) for seed in (1, 2)]
    point = mean(Mixture([(checkpoint_of(prefixed(state, prefix)), 1)]) for state in states)
    seen = Fitting(build_model().state_dict(), "toy").under_own_names(point)
    assert seen.key == point.key
    plain = mean(Mixture([(checkpoint_of(state), 1)]) for state in states)
    assert same_weights(seen.state_dict(), plain.state_dict())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: nn.ModuleDict({"net": model})])
def test_the_network_may_be_wrapped_too(
    checkpoint_of: CheckpointOf, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    network = wrap(build_model()).state_dict()
    point = Mixture([(checkpoint_of(random_state(1)), 1)])
    assert Fitting(network, "toy").under_own_names(point).tensors.keys() == network.keys()


def test_wrapped_and_plain_ingredients_are_evaluated_one_after_the_other(
    tmp_path: Path, evaluator: Evaluator, passes: list[int]
) -> None:
    base = random_state(0)
    states = {name: moved(base, 0.3, seed) for seed, name in enumerate("ab", start=1)}
    plain = Sweep.from_folder(save_sweep(tmp_path / "plain", states))
    wrapped = {name: prefixed(state, "module.") for name, state in states.items()}
    other = Sweep.from_folder(save_sweep(tmp_path / "wrapped", wrapped))
    evaluator.evaluate(plain["a"].mixture, "val")
    evaluator.evaluate(other["b"].mixture, "val")
    halves = [evaluator.evaluate(s.mixture({"a": 0.5, "b": 0.5}), "val") for s in (plain, other)]
    assert halves[0].loss == halves[1].loss
    assert len(passes) == 3


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 3, bias=False)
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.head(self.embed(inputs))
        return output


@pytest.mark.parametrize("kept", ["embed.weight", "head.weight"])
def test_of_tensors_that_the_network_ties_one_is_enough(
    checkpoint_of: CheckpointOf, store: Store, kept: str
) -> None:
    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    inputs = torch.eye(3)
    split = Split("select", inputs, (inputs @ weight.T @ weight.T).argmax(1))
    task = ClassificationTask(Tied, {"val": split})
    point = Mixture([(checkpoint_of({kept: weight}), 1)])
    assert Evaluator(task, store, device="cpu").evaluate(point, "val").score == 1


def test_of_tensors_that_the_network_does_not_tie_both_are_needed(
    checkpoint_of: CheckpointOf,
) -> None:
    network = {"embed.weight": torch.ones(3, 3), "head.weight": torch.ones(3, 3)}
    point = Mixture([(checkpoint_of({"embed.weight": torch.ones(3, 3)}), 1)])
    with pytest.raises(CheckpointError, match=r"'head\.weight' is only in the network \(1 such"):
        Fitting(network, "toy").under_own_names(point)
