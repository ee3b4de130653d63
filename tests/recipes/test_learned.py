import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import scipy
import torch
from torch import Tensor, nn
from torch.nn import functional

from soupcore import (
    Cancelled,
    ClassificationTask,
    Evaluator,
    Pass,
    RecipeError,
    Soup,
    Split,
    Store,
    Sweep,
    Task,
    learned,
    uniform,
)
from soupcore.recipes.descent import hold_back
from soupcore.recipes.gradients import Objective, least_loss
from tests.helpers import State, average, same_weights, save_sweep
from tests.toy import build_model, logits

Floats = npt.NDArray[np.float64]

PARTS = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"} | {
    "3.weight",
    "3.bias",
}
GROUPS = {
    "ingredient": {"all": sorted(PARTS)},
    "layer": {n: sorted(name for name in PARTS if name.startswith(n)) for n in "013"},
    "tensor": {name: [name] for name in sorted(PARTS)},
}


class Dense:
    """The toy with all ingredients in memory, mixed by autograd."""

    def __init__(self, states: Sequence[State], groups: dict[str, list[str]], split: Split) -> None:
        self.stacks = {n: torch.stack([state[n].double() for state in states]) for n in PARTS}
        self.label_of = {name: label for label, names in groups.items() for name in names}
        self.labels = list(groups)
        self.inputs, self.targets = split.inputs.double(), split.targets

    def loss(self, coefficients: Tensor, temperature: Tensor, examples: Tensor) -> Tensor:
        rows = dict(zip(self.labels, coefficients, strict=True))
        t = {n: torch.tensordot(rows[self.label_of[n]], s, 1) for n, s in self.stacks.items()}
        hidden = functional.linear(self.inputs[examples], t["0.weight"], t["0.bias"])
        normal = (hidden - t["1.running_mean"]) / torch.sqrt(t["1.running_var"] + 1e-5)
        hidden = functional.relu(normal * t["1.weight"] + t["1.bias"])
        outputs = functional.linear(hidden, t["3.weight"], t["3.bias"])
        return functional.cross_entropy(temperature * outputs, self.targets[examples])


def coefficients_of(raw: Tensor, space: str) -> Tensor:
    if space == "softmax":
        return raw.softmax(1)
    return 1 / raw.shape[1] + raw - raw.mean(1, keepdim=True)


def of_each(soup: Soup, names: Sequence[str], groups: dict[str, list[str]]) -> Floats:
    """The soup's coefficients, shape [groups, k]."""
    if soup.coefficients:
        return np.array([[float(soup.coefficients.get(name, 0)) for name in names]])
    body = soup.to_json()["merge"]["groups"]
    rows = []
    for tensors in groups.values():
        (found,) = [group for group in body.values() if tensors[0] in group["tensors"]]
        fractions = {
            n: int(a) / int(b or 1) for n, a, b in map(_split, found["coefficients"].items())
        }
        rows.append([fractions.get(name, 0.0) for name in names])
    return np.array(rows)


def _split(item: tuple[str, str]) -> tuple[str, str, str]:
    numerator, _, denominator = item[1].partition("/")
    return item[0], numerator, denominator


@pytest.fixture
def states(states: dict[str, State]) -> dict[str, State]:
    """With variances that differ as well."""
    for scale, state in zip((0.5, 1.0, 2.0), states.values(), strict=True):
        state["1.running_var"] = state["1.running_var"] * scale
    return states


@pytest.fixture
def dense(
    sweep: Sweep, states: dict[str, State], task: ClassificationTask
) -> Callable[[str], tuple[Dense, list[str]]]:
    def make(per: str) -> tuple[Dense, list[str]]:
        names = sorted(states, key=lambda name: sweep[name].digest)
        return Dense([states[n] for n in names], GROUPS[per], task.split("val")), names

    return make


# Its coefficients


@pytest.mark.parametrize("memory_budget", [0, 1 << 30], ids=["streamed", "resident"])
@pytest.mark.parametrize("per", GROUPS)
@pytest.mark.parametrize("space", ["softmax", "hyperplane"])
def test_adamw_finds_the_coefficients_of_plain_autograd(
    sweep: Sweep,
    evaluator: Evaluator,
    dense: Callable[[str], tuple[Dense, list[str]]],
    per: Literal["ingredient", "layer", "tensor"],
    space: Literal["softmax", "hyperplane"],
    memory_budget: int,
) -> None:
    model, names = dense(per)
    raw = torch.zeros(len(model.labels), len(names), dtype=torch.float64, requires_grad=True)
    temperature = torch.ones((), dtype=torch.float64, requires_grad=True)
    rate = 0.1 if per == "ingredient" else 0.05
    optimizer = torch.optim.AdamW([raw, temperature], lr=rate, weight_decay=0)
    everything = torch.arange(100)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model.loss(coefficients_of(raw, space), temperature, everything)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    soup = learned(
        sweep,
        evaluator,
        per=per,
        space=space,
        optimizer="adamw",
        passes=4,
        held_back=0,
        restart=False,
        memory_budget=memory_budget,
    )
    assert [found.loss for found in soup.passes[1:]] == pytest.approx(losses, abs=1e-5)
    assert soup.passes[-1].temperature == pytest.approx(float(temperature.detach()), abs=1e-5)
    best = max(soup.passes, key=lambda found: found.number if found.best else -1)
    if best is soup.passes[-1]:
        expected = coefficients_of(raw, space).detach().numpy()
        np.testing.assert_allclose(of_each(soup, names, GROUPS[per]), expected, atol=1e-5)


@pytest.mark.parametrize("per", GROUPS)
@pytest.mark.parametrize("space", ["softmax", "hyperplane"])
def test_lbfgs_finds_the_coefficients_of_scipy_over_plain_autograd(
    sweep: Sweep,
    evaluator: Evaluator,
    dense: Callable[[str], tuple[Dense, list[str]]],
    per: Literal["ingredient", "layer", "tensor"],
    space: Literal["softmax", "hyperplane"],
) -> None:
    model, names = dense(per)
    shape = (len(model.labels), len(names))
    points: list[Floats] = []

    def value_and_gradient(point: Floats) -> tuple[float, Floats]:
        if len(points) > 5:  # the start, and five passes more
            raise StopIteration
        points.append(point.copy())
        raw = torch.from_numpy(point[:-1].reshape(shape)).requires_grad_()
        temperature = torch.tensor(point[-1], requires_grad=True)
        loss = model.loss(coefficients_of(raw, space), temperature, torch.arange(100))
        by_raw, by_temperature = torch.autograd.grad(loss, [raw, temperature])
        return float(loss.detach()), np.append(by_raw.numpy().ravel(), float(by_temperature))

    accepted: list[Floats] = []
    with pytest.raises(StopIteration):
        scipy.optimize.minimize(
            value_and_gradient,
            np.append(np.zeros(math.prod(shape)), 1.0),
            jac=True,
            method="L-BFGS-B",
            callback=lambda x: accepted.append(x.copy()),
        )
    soup = learned(sweep, evaluator, per=per, space=space, passes=5, held_back=0, restart=False)
    raw = torch.from_numpy(accepted[-1][:-1].reshape(shape))
    expected = coefficients_of(raw, space).numpy()
    np.testing.assert_allclose(of_each(soup, names, GROUPS[per]), expected, atol=1e-5)
    assert len(soup.passes) == len(accepted) + 1


@pytest.mark.parametrize("memory_budget", [0, 1 << 30], ids=["streamed", "resident"])
@pytest.mark.parametrize("per", GROUPS)
def test_the_gradient_is_that_of_autograd(
    sweep: Sweep,
    task: ClassificationTask,
    dense: Callable[[str], tuple[Dense, list[str]]],
    per: str,
    memory_budget: int,
) -> None:
    model, names = dense(per)
    objective = Objective(
        task,
        "val",
        [sweep[name].checkpoint for name in names],
        GROUPS[per],
        device=torch.device("cpu"),
        batch_size=32,
        memory_budget=memory_budget,
    )
    generator = np.random.default_rng(0)
    point = generator.dirichlet(np.ones(3), size=len(model.labels))
    examples = torch.arange(0, 100, 3)
    found = objective.gradient(point, 1.3, examples, lambda count: None)
    coefficients = torch.from_numpy(point).requires_grad_()
    temperature = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    loss = model.loss(coefficients, temperature, examples)
    expected, by_temperature = torch.autograd.grad(loss, [coefficients, temperature])
    assert objective.labels == model.labels
    assert found.loss == pytest.approx(float(loss.detach()), abs=1e-6)
    assert found.by_temperature == pytest.approx(float(by_temperature), abs=1e-5)
    # Up to a constant for each group, which coefficients that sum to one do not feel.
    difference = found.by_coefficients - expected.numpy()
    assert np.ptp(difference, axis=1).max() < 2e-5
    with torch.no_grad():
        judged = objective.loss_and_score(point, 1.3, examples, lambda count: None)
    assert judged[0] == pytest.approx(float(loss.detach()), abs=1e-6)


def test_the_gradient_of_ingredients_in_half_precision_is_that_of_autograd(
    tmp_path: Path, states: dict[str, State], task: ClassificationTask
) -> None:
    halves = {
        name: {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}
        for name, state in states.items()
    }
    sweep = Sweep.from_folder(save_sweep(tmp_path / "halves", halves))
    objective = Objective(
        task,
        "val",
        [sweep[name].checkpoint for name in halves],
        GROUPS["tensor"],
        device=torch.device("cpu"),
        batch_size=32,
        memory_budget=0,
    )
    model = Dense(list(halves.values()), GROUPS["tensor"], task.split("val"))
    point = np.random.default_rng(1).dirichlet(np.ones(3), size=len(model.labels))
    found = objective.gradient(point, 1.0, torch.arange(100), lambda count: None)
    coefficients = torch.from_numpy(point).requires_grad_()
    loss = model.loss(coefficients, torch.ones((), dtype=torch.float64), torch.arange(100))
    (expected,) = torch.autograd.grad(loss, coefficients)
    assert found.loss == pytest.approx(float(loss.detach()), abs=1e-6)
    assert np.ptp(found.by_coefficients - expected.numpy(), axis=1).max() < 2e-5


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = build_model()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.net(inputs)
        return outputs


@pytest.mark.parametrize("per", GROUPS)
def test_names_of_a_wrapper_around_the_network_make_no_difference(
    sweep: Sweep, evaluator: Evaluator, splits: dict[str, Split], per: Any
) -> None:
    wrapped = Evaluator(ClassificationTask(Wrapped, splits), evaluator.store, device="cpu")
    plain = learned(sweep, evaluator, per=per, passes=2)
    found = learned(sweep, wrapped, per=per, passes=2)
    assert found.mixture == plain.mixture


# What it says and keeps


def test_buffers_of_the_network_make_no_difference(
    tmp_path: Path, states: dict[str, State], sweep: Sweep, evaluator: Evaluator
) -> None:
    """Neither what ingredients have beside the weights, nor what the network has of its own."""

    class WithBuffers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build_model()
            self.register_buffer("inv_freq", 0.1 ** torch.arange(4.0))
            self.register_buffer("ids", torch.arange(4))

        def forward(self, inputs: Tensor) -> Tensor:
            output: Tensor = self.net(inputs)
            return output

    more = {name: state | {"criterion.weight": torch.ones(3)} for name, state in states.items()}
    other = Sweep.from_folder(save_sweep(tmp_path / "more", more))
    network = ClassificationTask(WithBuffers, evaluator.task.splits, name="with buffers")
    plain = learned(sweep, evaluator, passes=2)
    found = learned(other, Evaluator(network, evaluator.store, device="cpu"), passes=2)
    for name, coefficient in plain.coefficients.items():
        assert float(found.coefficients[name]) == pytest.approx(float(coefficient), abs=1e-6)


def test_learned_coefficients_lower_the_loss_on_the_examples_they_learn_from(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = learned(sweep, evaluator, held_back=0)
    assert sum(soup.coefficients.values()) == 1
    start, *_, last = soup.passes
    assert (start.number, start.temperature, start.best) == (0, 1, True)
    assert math.isnan(last.held_back_loss)
    assert last.loss < start.loss


def test_without_a_temperature_the_loss_learned_is_that_of_the_soup(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = learned(sweep, evaluator, held_back=0, temperature=False)
    assert {found.temperature for found in soup.passes} == {1}
    best = [found for found in soup.passes if found.best][-1]
    after = soup.evaluations["val"].loss
    assert after == pytest.approx(best.loss, abs=1e-5)
    assert after < uniform(sweep).evaluate(evaluator, ["val"]).evaluations["val"].loss


def test_the_best_pass_on_held_back_examples_is_kept(
    sweep: Sweep, evaluator: Evaluator, task: ClassificationTask
) -> None:
    soup = learned(sweep, evaluator, per="tensor", passes=60, temperature=False, held_back=0.3)
    held = [found.held_back_loss for found in soup.passes]
    best = max(index for index, found in enumerate(soup.passes) if found.best)
    assert held[best] == min(held)
    assert len(held) - 1 - best <= 3
    _, rest = hold_back(task.split("val"), 0.3, seed=0)
    data = task.split("val")
    loss = functional.cross_entropy(
        logits(soup.state_dict(), data.inputs[rest]), data.targets[rest]
    )
    assert float(loss) == pytest.approx(held[best], abs=1e-5)


def test_tensors_that_all_share_are_left_alone(
    sweep: Sweep, evaluator: Evaluator, base_state: State
) -> None:
    names = ["run1", "run2"]
    for name in names:
        path = sweep[name].checkpoint.path
        state = dict(sweep[name].checkpoint.state_dict()) | {
            n: t for n, t in base_state.items() if n.startswith("0.")
        }
        save_sweep(path.parent, {name: state})
    again = Sweep.from_folder(sweep.folder)
    soup = learned(again, evaluator, names, per="tensor", passes=3)
    groups = soup.to_json()["merge"]["groups"]
    assert groups["0.weight"]["coefficients"] == dict.fromkeys(
        groups["0.weight"]["coefficients"], "1/2"
    )
    assert groups["3.weight"]["coefficients"] != groups["0.weight"]["coefficients"]
    assert same_weights(
        {"0.weight": soup.state_dict()["0.weight"]}, {"0.weight": base_state["0.weight"]}
    )


def test_ingredients_that_are_all_the_same_make_themselves(
    tmp_path: Any, evaluator: Evaluator, base_state: State
) -> None:
    sweep = Sweep.from_folder(save_sweep(tmp_path / "same", dict.fromkeys("ab", base_state)))
    for optimizer in ("lbfgs", "adamw"):
        soup = learned(sweep, evaluator, optimizer=optimizer, passes=2)
        assert same_weights(soup.state_dict(), base_state)


def test_a_learned_soup_of_one_ingredient_is_that_ingredient(
    sweep: Sweep, evaluator: Evaluator, states: dict[str, State]
) -> None:
    soup = learned(sweep, evaluator, ["run2"], passes=2)
    assert same_weights(soup.state_dict(), states["run2"])


# Stopping


@pytest.mark.parametrize("stop", [Cancelled, KeyboardInterrupt])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
def test_the_best_pass_before_a_stop_makes_the_soup(
    sweep: Sweep, evaluator: Evaluator, stop: type[BaseException], optimizer: Any
) -> None:
    told: list[list[Pass]] = []

    def interrupt(done: int, total: int) -> None:
        if told and len(told[-1]) == 3:
            raise stop

    whole = learned(sweep, evaluator, optimizer=optimizer, passes=8)
    soup = learned(
        sweep,
        evaluator,
        optimizer=optimizer,
        passes=8,
        on_progress=interrupt,
        on_step=lambda passes: told.append(list(passes)),
    )
    assert soup.passes == tuple(told[-1]) == whole.passes[:3]
    assert soup.evaluations["val"].n == 100


def test_stopped_before_the_first_pass_there_is_no_soup(sweep: Sweep, evaluator: Evaluator) -> None:
    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        learned(sweep, evaluator, on_progress=stop)


def test_progress_rises_and_stays_within_the_announced_total(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    progress: list[float] = []
    learned(
        sweep, evaluator, passes=3, on_progress=lambda done, total: progress.append(done / total)
    )
    assert progress == sorted(progress)
    assert progress[-1] <= 1


# Its parts


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.5])
def test_a_share_of_each_class_is_held_back(share: float) -> None:
    targets = torch.arange(300) % 10 // 7  # classes of 210 and 90
    split = Split("select", torch.zeros(300, 1), targets)
    learn, held = hold_back(split, share, seed=1)
    assert sorted([*learn.tolist(), *held.tolist()]) == list(range(300))
    assert abs(len(held) - share * 300) < 1
    for label, n in ((0, 210), (1, 90)):
        assert abs(int((targets[held] == label).sum()) - share * n) <= 1
    if share:
        assert not torch.equal(held, hold_back(split, share, seed=2)[1])
    assert torch.equal(held, hold_back(split, share, seed=1)[1])


def test_targets_that_are_no_classes_are_held_back_at_random() -> None:
    split = Split("select", torch.zeros(40, 1), torch.rand(40))
    learn, held = hold_back(split, 0.25, seed=0)
    assert (len(learn), len(held)) == (30, 10)


def test_other_tasks_learn_without_a_temperature(
    sweep: Sweep, store: Any, splits: dict[str, Split]
) -> None:
    class Distance(Task):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs - functional.one_hot(targets, 3)).square().sum(1)

        def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return -self.loss(outputs, targets)

    evaluator = Evaluator(Distance(build_model, splits), store, device="cpu")
    soup = learned(sweep, evaluator, held_back=0, passes=3)
    assert {found.temperature for found in soup.passes} == {1}
    assert soup.passes[-1].loss < soup.passes[0].loss


def test_parameters_out_of_range_are_refused(sweep: Sweep, evaluator: Evaluator) -> None:
    for wrong in ({"held_back": 0.6}, {"passes": 0}, {"per": "neuron"}, {"space": "sphere"}):
        with pytest.raises(RecipeError):
            learned(sweep, evaluator, **wrong)


# Sweeps with a run that diverged


def small_net() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2))


def train(model: nn.Module, split: Split, rate: float, generator: torch.Generator) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(40):
        rows = torch.randint(0, len(split), (64,), generator=generator)
        loss = functional.cross_entropy(model(split.inputs[rows]), split.targets[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, ClassificationTask]:
    """Three runs that learned a rare class, and one whose steps were a thousand times too long."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(800, 10, generator=generator)
    margin = inputs @ torch.randn(10, generator=generator)
    targets = (margin > margin.quantile(0.85)).long()
    training = Split("train", inputs[:400], targets[:400])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = train(small_net(), training, 1e-2, generator)
    states = {}
    for name, rate in {"a": 3e-3, "b": 5e-3, "c": 8e-3, "diverged": 10.0}.items():
        model = small_net()
        model.load_state_dict(base.state_dict())
        states[name] = train(model, training, rate, generator).state_dict()
    folder = tmp_path_factory.mktemp("diverged")
    save_sweep(folder, states)
    splits = {"val": Split("select", inputs[400:], targets[400:])}
    return Sweep.from_folder(folder), ClassificationTask(small_net, splits, name="rare")


@pytest.mark.parametrize("per", ["ingredient", "layer"])
@pytest.mark.parametrize("space", ["softmax", "hyperplane"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
@pytest.mark.parametrize("temperature", [True, False])
def test_a_diverged_run_does_not_spoil_the_learned_soup(
    diverged: tuple[Sweep, ClassificationTask],
    store: Store,
    per: Any,
    space: Any,
    optimizer: Any,
    temperature: bool,
) -> None:
    sweep, task = diverged
    evaluator = Evaluator(task, store, device="cpu", batch_size=256)
    alone = {name: evaluator.evaluate(sweep[name].mixture, "val") for name in sweep.names()}
    majority = float((task.split("val").targets == 0).double().mean())
    best = max(found.score for found in alone.values())
    assert best > majority + 0.08
    soup = learned(
        sweep, evaluator, per=per, space=space, optimizer=optimizer, temperature=temperature
    )
    found = soup.evaluations["val"]
    assert found.score >= best - 0.01
    least = min(each.loss for each in alone.values() if math.isfinite(each.loss))
    assert found.loss <= least + 0.01
    told = any("It was repeated with" in note for note in soup.notes)
    assert told == ("diverged" not in soup.ingredients)
    assert any("below the best ingredient" in note for note in soup.notes) == (found.score < best)
    assert Soup.from_json(sweep, soup.to_json()).notes == soup.notes


def overflowing(state: State) -> State:
    return {name: 1e30 * tensor if tensor.dim() == 2 else tensor for name, tensor in state.items()}


def test_learning_is_refused_if_every_network_overflows(
    sweep: Sweep, evaluator: Evaluator, states: dict[str, State]
) -> None:
    folder = sweep.folder.parent / "broken"
    save_sweep(folder, {name: overflowing(state) for name, state in states.items()})
    for restart, words in ((True, "No ingredient has a finite loss"), (False, "Exclude the")):
        with pytest.raises(RecipeError, match=words):
            learned(Sweep.from_folder(folder), evaluator, restart=restart)


def test_one_network_that_overflows_is_left_out(
    sweep: Sweep, evaluator: Evaluator, states: dict[str, State]
) -> None:
    folder = sweep.folder.parent / "one-broken"
    save_sweep(folder, {"bad": overflowing(states["run1"])} | states)
    made = learned(Sweep.from_folder(folder), evaluator)
    assert set(made.ingredients) <= set(states)
    assert any("has no finite loss. It was repeated" in note for note in made.notes)
    assert math.isfinite(made.evaluations["val"].loss)


def test_an_undefined_loss_is_refused(sweep: Sweep, store: Store, splits: dict[str, Split]) -> None:
    class Undefined(ClassificationTask):
        undefined = "exclude"

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().loss(outputs, targets).masked_fill(targets == 0, math.nan)

    evaluator = Evaluator(Undefined(build_model, splits), store, device="cpu")
    count = int((splits["val"].targets == 0).sum())
    with pytest.raises(RecipeError, match=rf"undefined \(NaN\) for {count} of 100 examples"):
        learned(sweep, evaluator)


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_points_are_compared_at_the_temperature_that_makes_their_loss_least(
    task: ClassificationTask, states: dict[str, State], scale: float
) -> None:
    data = task.split("val")
    outputs = scale * logits(states["run1"], data.inputs)
    tried = [
        float(functional.cross_entropy(beta * outputs.double(), data.targets))
        for beta in np.geomspace(0.01, 100, 4001)
    ]
    found = least_loss(task, outputs, data.targets)
    assert found == pytest.approx(min(tried), rel=1e-5)
    outputs[3] = math.nan
    assert least_loss(task, outputs, data.targets) == math.inf


def test_helpers_of_this_file_agree_with_the_network(
    states: dict[str, State], task: ClassificationTask
) -> None:
    """The dense oracle says what the toy says."""
    data = task.split("val")
    dense = Dense(list(states.values()), GROUPS["ingredient"], data)
    third = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    loss = dense.loss(third, torch.ones(()), torch.arange(100))
    mixed = average(list(states.values()))
    expected = functional.cross_entropy(logits(mixed, data.inputs), data.targets)
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
