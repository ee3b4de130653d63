from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from soupcore import (
    Checkpoint,
    ClassificationTask,
    Evaluator,
    Mixture,
    Split,
    Store,
    Sweep,
    TaskError,
    greedy,
    linear_path,
    mean,
)
from soupcore.evaluation.batchnorm import estimate_statistics
from soupcore.evaluation.data import Data
from soupcore.tasks.examples import Examples
from tests.helpers import State, average
from tests.toy import FEATURES, build_model, random_state

CheckpointOf = Callable[[Mapping[str, Tensor]], Checkpoint]


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 5, 1),
        nn.BatchNorm2d(5, affine=False, momentum=0.3),
        nn.Flatten(),
        nn.LazyLinear(2),
    )


def estimated(model: nn.Module, inputs: Tensor, examples: int) -> dict[str, Tensor]:
    targets = Examples.of_targets(torch.zeros(len(inputs)))
    data = Data(Examples.of(inputs, len(inputs)), targets, torch.device("cpu"))
    with torch.inference_mode():
        estimate_statistics(model, data, examples)
    return {n: t.clone() for n, t in model.state_dict().items() if "running" in n}


def as_torch_has_them(model: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0  # torch would drop, which is not what the network is evaluated with
    update_bn(batches, model)
    return {n: t for n, t in model.state_dict().items() if "running" in n}


@pytest.mark.parametrize(
    ("n", "examples", "sizes"),
    [
        pytest.param(100, 100, [100], id="one batch"),
        pytest.param(100, 1024, [100], id="fewer than wanted"),
        pytest.param(300, 300, [100, 100, 100], id="batches of one size"),
        pytest.param(300, 130, [65, 65], id="some of them"),
    ],
)
def test_statistics_are_those_of_torch_s_update_bn(n: int, examples: int, sizes: list[int]) -> None:
    inputs = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 3 + 1
    model = conv_net().eval()
    model(inputs[:2])  # the lazy layer gets its shape
    found = estimated(model, inputs, examples)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: sum(sizes)]
    expected = as_torch_has_them(model, list(torch.split(inputs[order], sizes)))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


def test_the_network_is_left_in_evaluation_mode_with_its_momentum() -> None:
    model = build_model().eval()
    estimated(model, torch.randn(10, FEATURES), 10)
    norm = model[1]  # type: ignore[index]
    assert not any(module.training for module in model.modules())
    assert norm.momentum == 0.1
    with pytest.raises(TaskError, match="at least two training examples"):
        estimated(model, torch.randn(1, FEATURES), 10)
    assert (norm.training, norm.momentum) == (False, 0.1)


# As a choice of the evaluator


@pytest.fixture
def estimating(evaluator: Evaluator) -> Evaluator:
    return evaluator.with_statistics("re-estimated")


def expected_logits(state: State, task: ClassificationTask, split: str) -> Tensor:
    model = build_model()
    model.load_state_dict(state)
    update_bn([task.split("train").inputs], model)
    with torch.no_grad():
        outputs: Tensor = model.eval()(task.split(split).inputs)
    return outputs


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_point_is_evaluated_with_statistics_of_the_training_data(
    sweep: Sweep,
    states: dict[str, State],
    task: ClassificationTask,
    evaluator: Evaluator,
    estimating: Evaluator,
    split: str,
) -> None:
    point = mean(ingredient.mixture for ingredient in sweep.ingredients.values())
    expected = expected_logits(average(list(states.values())), task, split)
    averaged = evaluator.evaluate(point, split)
    for found in (estimating.evaluate(point, split), *estimating.stored([point], split)):
        assert found is not None
        torch.testing.assert_close(found.outputs, expected, rtol=1e-4, atol=1e-5)
        assert found.loss != averaged.loss
        assert found.mixture_key != averaged.mixture_key
    assert evaluator.stored([point], split) == [averaged]


def test_points_are_evaluated_once_with_each_kind_of_statistics(
    sweep: Sweep, evaluator: Evaluator, estimating: Evaluator, passes: list[int]
) -> None:
    point = sweep["run1"].mixture
    for one in (evaluator, estimating, evaluator):
        one.evaluate(point, "val")
    assert passes == [100, 20, 100]  # 20 training examples for the statistics
    estimating.evaluate(point, "test")
    assert passes == [100, 20, 100, 90]  # for the next split the same statistics
    assert estimating.with_statistics("averaged").evaluate(point, "val").has_outputs
    assert len(passes) == 4


def test_other_training_examples_give_another_point(
    sweep: Sweep, evaluator: Evaluator, estimating: Evaluator
) -> None:
    fewer = evaluator.with_statistics("re-estimated", examples=10)
    first = estimating.evaluate(sweep["run1"].mixture, "val")
    assert fewer.stored([sweep["run1"].mixture], "val") == [None]
    assert fewer.evaluate(sweep["run1"].mixture, "val").loss != first.loss
    enough = evaluator.with_statistics("re-estimated", examples=5000)
    assert enough.evaluate(sweep["run1"].mixture, "val") == first


def test_paths_and_recipes_follow_the_choice(
    sweep: Sweep, evaluator: Evaluator, estimating: Evaluator
) -> None:
    averaged = linear_path(sweep["run1"], sweep["run10"], evaluator, 3)
    anew = linear_path(sweep["run1"], sweep["run10"], estimating, 3)
    assert (averaged.losses != anew.losses).all()
    soup = greedy(sweep, estimating)
    assert soup.trace[0].score == max(
        estimating.evaluate(ingredient.mixture, "val").score
        for ingredient in sweep.ingredients.values()
    )


def test_statistics_can_be_re_estimated_only_with_batchnorm_and_training_data(
    checkpoint_of: CheckpointOf, splits: dict[str, Split], store: Store
) -> None:
    def evaluator(model: Callable[[], nn.Module], *names: str) -> Evaluator:
        chosen = {name: splits[name] for name in names}
        return Evaluator(ClassificationTask(model, chosen, name="toy"), store)

    assert evaluator(build_model, "val").task.has_batchnorm
    plain = evaluator(lambda: nn.Linear(FEATURES, 3), "train", "val")
    assert not plain.task.has_batchnorm
    with pytest.raises(TaskError, match="'toy' has no BatchNorm"):
        plain.with_statistics("re-estimated")
    with pytest.raises(TaskError, match="no split with the role 'train'"):
        evaluator(build_model, "val").with_statistics("re-estimated")
    without_statistics = evaluator(
        lambda: nn.Sequential(nn.BatchNorm1d(FEATURES, track_running_stats=False)), "train", "val"
    )
    assert not without_statistics.task.has_batchnorm


def test_statistics_of_a_point_have_their_names_in_its_state_dict(
    checkpoint_of: CheckpointOf, evaluator: Evaluator, estimating: Evaluator
) -> None:
    point = Mixture([(checkpoint_of(random_state(3)), 1)])
    found = estimating.estimated_statistics(point)
    assert list(found) == ["1.running_mean", "1.running_var"]
    assert evaluator.estimated_statistics(point) == {}
