import copy
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
from soupcore.name_map import NameMap, load_into
from tests.helpers import State, average, same_weights, save_sweep
from tests.toy import build_model, moved, random_state

CheckpointOf = Callable[[Mapping[str, Tensor]], Checkpoint]


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "net.", "model.bert."])
def test_a_point_is_seen_under_the_names_of_the_network(
    checkpoint_of: CheckpointOf, prefix: str
) -> None:
    states = [random_state(seed) for seed in (1, 2)]
    point = mean(Mixture([(checkpoint_of(prefixed(state, prefix)), 1)]) for state in states)
    seen = NameMap(build_model().state_dict(), "toy").under_own_names(point)
    assert seen.key == point.key
    plain = mean(Mixture([(checkpoint_of(state), 1)]) for state in states)
    assert same_weights(seen.state_dict(), plain.state_dict())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: nn.ModuleDict({"net": model})])
def test_the_network_may_be_wrapped_too(
    checkpoint_of: CheckpointOf, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    network = wrap(build_model()).state_dict()
    point = Mixture([(checkpoint_of(random_state(1)), 1)])
    assert NameMap(network, "toy").under_own_names(point).tensors.keys() == network.keys()


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
def test_one_of_two_tied_tensors_is_enough(
    checkpoint_of: CheckpointOf, store: Store, kept: str
) -> None:
    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    inputs = torch.eye(3)
    split = Split("select", inputs, (inputs @ weight.T @ weight.T).argmax(1))
    task = ClassificationTask(Tied, {"val": split})
    point = Mixture([(checkpoint_of({kept: weight}), 1)])
    assert Evaluator(task, store, device="cpu").evaluate(point, "val").score == 1


def test_both_tensors_are_needed_if_the_network_does_not_tie_them(
    checkpoint_of: CheckpointOf,
) -> None:
    network = {"embed.weight": torch.ones(3, 3), "head.weight": torch.ones(3, 3)}
    point = Mixture([(checkpoint_of({"embed.weight": torch.ones(3, 3)}), 1)])
    with pytest.raises(CheckpointError, match=r"'head\.weight' is only in the network \(1 unm"):
        NameMap(network, "toy").under_own_names(point)


IDS = torch.arange(8)[None]
FREQUENCIES = 1 / 10_000 ** (torch.arange(8.0) / 8)


class WithBuffers(nn.Module):
    """A network with buffers that it saves or not, by version."""

    ids: Tensor
    inv_freq: Tensor
    mean: Tensor

    def __init__(self, persistent: bool = True, base: float = 10_000) -> None:
        super().__init__()
        self.net = build_model()
        frequencies = 1 / base ** (torch.arange(8.0) / 8)
        self.register_buffer("ids", IDS.clone(), persistent=persistent)
        self.register_buffer("inv_freq", frequencies, persistent=persistent)
        self.register_buffer("mean", torch.tensor([0.5, 0.25]), persistent=persistent)

    def forward(self, inputs: Tensor) -> Tensor:
        ids, frequencies, mean = self.ids, self.inv_freq, self.mean
        assert torch.equal(ids, IDS), "a point left its own ids here"
        output: Tensor = self.net(inputs) * frequencies.sum() + mean.sum()
        return output


def evaluated(
    checkpoint: Checkpoint, network: Callable[[], nn.Module], splits: dict[str, Split], store: Store
) -> float:
    task = ClassificationTask(network, splits, name=f"toy {id(network)}")
    evaluator = Evaluator(task, store, device="cpu")
    return evaluator.evaluate(Mixture([(checkpoint, 1)]), "val").loss


@pytest.mark.parametrize("prefix", ["", "module."])
def test_buffers_may_be_saved_or_not(
    checkpoint_of: CheckpointOf, prefix: str, splits: dict[str, Split], store: Store
) -> None:
    whole = random_state(1)
    full = {f"net.{n}": t for n, t in whole.items()}
    full |= {"ids": IDS, "inv_freq": FREQUENCIES, "mean": torch.tensor([0.5, 0.25])}
    brief = {n: t for n, t in full.items() if n.startswith("net.") and "num_batches" not in n}
    states = [prefixed(state, prefix) for state in (full, brief)]
    old, new = (checkpoint_of(state) for state in states)
    today = evaluated(new, lambda: WithBuffers(persistent=False), splits, store)
    assert evaluated(old, lambda: WithBuffers(persistent=False), splits, store) == today
    assert evaluated(old, lambda: WithBuffers(persistent=True), splits, store) == today


def test_buffers_of_the_network_that_files_lack_keep_their_values(
    checkpoint_of: CheckpointOf, splits: dict[str, Split], store: Store
) -> None:
    """The buffers of one point are not left to the next."""
    states = [random_state(seed) for seed in (1, 2)]
    with_counter = checkpoint_of(states[0] | {"1.num_batches_tracked": torch.tensor(99)})
    without = checkpoint_of({n: t for n, t in states[1].items() if "num_batches" not in n})
    mixture = Mixture([(with_counter, 0.25), (without, 0.75)])
    name_map = NameMap(build_model().state_dict(), "toy")
    seen = name_map.under_own_names(mixture)
    assert seen.key == mixture.key
    assert seen.tensor("1.num_batches_tracked").item() == 0  # of the larger coefficient
    alone = name_map.under_own_names(Mixture([(with_counter, 1)]))
    assert alone.tensor("1.num_batches_tracked").item() == 99


def test_a_buffer_with_other_values_than_the_network_s_is_an_error(
    checkpoint_of: CheckpointOf,
) -> None:
    """Rotary frequencies of another base: the network would not be the one that was trained."""
    model = WithBuffers(persistent=False, base=500_000)
    name_map = NameMap(model.state_dict(), "toy", dict(model.named_buffers()))
    state = {f"net.{n}": t for n, t in random_state(1).items()} | {"inv_freq": FREQUENCIES}
    with pytest.raises(CheckpointError, match="'inv_freq' differs from the buffer that"):
        name_map.under_own_names(Mixture([(checkpoint_of(state), 1)]))


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"ids": torch.linspace(-1, 0.7, 8)[None]}, r"'ids' is only in the checkpoint \(1 unm"),
        ({"head.weight": torch.ones(3, 3)}, r"'head\.weight' is only in the checkpoint"),
        (
            {"criterion.weight": torch.tensor([0.3, -1.1, 0.5])},
            r"'criterion\.weight' is only in the checkpoint",
        ),
    ],
    ids=["ids", "head", "criterion"],
)
def test_weights_that_the_network_lacks_are_an_error(
    checkpoint_of: CheckpointOf, more: State, problem: str
) -> None:
    point = Mixture([(checkpoint_of(random_state(1) | more), 1)])
    with pytest.raises(CheckpointError, match=problem):
        NameMap(build_model().state_dict(), "toy").under_own_names(point)


def test_a_parameter_that_begins_with_sinusoids_is_no_buffer(checkpoint_of: CheckpointOf) -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build_model()
            angles = torch.arange(20)[:, None] * FREQUENCIES
            self.positions = nn.Parameter(torch.cat([angles.sin(), angles.cos()], dim=1))

    model = Learned()
    state = {f"net.{n}": t for n, t in random_state(1).items()}
    name_map = NameMap(model.state_dict(), "toy", dict(model.named_buffers()))
    with pytest.raises(CheckpointError, match="'positions' is only in the network"):
        name_map.under_own_names(Mixture([(checkpoint_of(state), 1)]))


def mixed(checkpoint_of: CheckpointOf) -> tuple[Mixture, State]:
    states: list[Mapping[str, Tensor]] = [random_state(seed) for seed in (1, 2)]
    return Mixture([(checkpoint_of(s), 0.5) for s in states]), average(states)


def test_a_point_goes_into_a_network_in_its_own_dtype(checkpoint_of: CheckpointOf) -> None:
    point, expected = mixed(checkpoint_of)
    model = build_model().double()
    parameters = [*model.parameters()]
    assert load_into(model, point) == []
    assert [*model.parameters()] == parameters  # those that an optimizer may hold
    rounded = {n: t.double() if t.is_floating_point() else t for n, t in expected.items()}
    assert same_weights(model.state_dict(), rounded)


class WithHead(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*[*build_model().children()][:3], nn.Linear(8, classes))
        self.extra = nn.Parameter(torch.ones(2))


def test_misfits_are_named_and_the_network_stays_unchanged(
    checkpoint_of: CheckpointOf,
) -> None:
    point, expected = mixed(checkpoint_of)
    model = WithHead(classes=7)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match="does not fit the model: tensor 'extra' is only in"):
        load_into(model, point)
    del model.extra
    with pytest.raises(CheckpointError, match=r"'net\.3\.(weight|bias)' has shape .* strict"):
        load_into(model, point)
    assert same_weights(model.state_dict(), {n: t for n, t in before.items() if n != "extra"})
    assert sorted(load_into(model, point, strict=False)) == ["net.3.bias", "net.3.weight"]
    assert torch.equal(model.state_dict()["net.0.weight"], expected["0.weight"])
    assert torch.equal(model.state_dict()["net.3.weight"], before["net.3.weight"])


def test_a_network_of_another_kind_is_refused_even_if_not_strict(
    checkpoint_of: CheckpointOf,
) -> None:
    point, _ = mixed(checkpoint_of)
    with pytest.raises(CheckpointError, match="has none of the 2 tensors of the model"):
        load_into(nn.Conv2d(1, 1, 1), point, strict=False)


def test_a_network_on_the_meta_device_is_refused(checkpoint_of: CheckpointOf) -> None:
    point, _ = mixed(checkpoint_of)
    with torch.device("meta"):
        model = build_model()
    with pytest.raises(CheckpointError, match=r"'0\.weight', are on the meta device, .* Call"):
        load_into(model, point)


def test_one_name_of_a_tied_tensor_is_enough_to_fill_it(checkpoint_of: CheckpointOf) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    point = Mixture([(checkpoint_of({"embedding.weight": weight}), 1)])
    for strict in (True, False):
        model = Tied()
        assert load_into(model, point, strict=strict) == []
        assert torch.equal(model.head.weight, weight)
