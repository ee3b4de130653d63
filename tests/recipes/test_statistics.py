import json
from pathlib import Path

import pytest
import torch
from torch import nn

from soupcore import (
    ClassificationTask,
    Evaluator,
    Soup,
    Split,
    Store,
    Sweep,
    greedy,
    mergekit_config,
    model_card,
    other_statistics_of,
    rebuild,
    uniform,
)
from tests.helpers import same_weights, save_sweep
from tests.toy import FEATURES


def test_the_other_statistics_are_those_that_a_soup_does_not_have(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = greedy(sweep, evaluator)
    other = other_statistics_of(soup, evaluator)
    assert other is not None
    assert (soup.estimate, other.evaluations) == (None, {})
    assert other.estimate == evaluator.with_statistics("re-estimated").estimate
    expected = evaluator.with_statistics("re-estimated").evaluate(soup.mixture, "val")
    assert other.evaluate(evaluator, ["val"]).evaluations["val"].loss == expected.loss
    changed = {name for name, tensor in other.state_dict().items()
               if not torch.equal(tensor, soup.state_dict()[name])}  # fmt: skip
    assert changed == {"1.running_mean", "1.running_var"}
    back = other_statistics_of(other, evaluator)
    assert back is not None
    assert back.id == soup.id
    assert same_weights(back.state_dict(), soup.state_dict())


def test_networks_without_batchnorm_or_training_data_have_no_other_statistics(
    tmp_path: Path, sweep: Sweep, splits: dict[str, Split], task: ClassificationTask, store: Store
) -> None:
    held = {name: split for name, split in splits.items() if split.role != "train"}
    judge = Evaluator(ClassificationTask(task.build_model, held), store, device="cpu")
    assert other_statistics_of(uniform(sweep), judge) is None
    plain = Evaluator(ClassificationTask(lambda: nn.Linear(FEATURES, 3), splits), store)
    states = {"a": nn.Linear(FEATURES, 3).state_dict()}
    one = uniform(Sweep.from_folder(save_sweep(tmp_path / "plain", states)))
    assert other_statistics_of(one, plain) is None


def test_the_manifest_gives_the_source_of_the_statistics(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = uniform(sweep).re_estimate(evaluator).evaluate(evaluator)
    assert "re_estimate(soupcore.Evaluator(task), examples=20)" in model_card(soup)
    assert "this soup has re-estimated ones" in str(mergekit_config(soup))
    again: Soup = rebuild(json.loads(json.dumps(soup.to_json())), sweep.folder)
    again.re_estimate(evaluator, examples=20)
    assert same_weights(again.state_dict(), soup.state_dict())


@pytest.mark.parametrize("estimated", [False, True])
def test_an_estimate_can_be_looked_up_without_a_network(
    sweep: Sweep, evaluator: Evaluator, estimated: bool
) -> None:
    soup = uniform(sweep)
    if estimated:
        soup.re_estimate(evaluator)
    soup.evaluate(evaluator, ["val"])

    def none() -> nn.Module:
        raise AssertionError("built")

    task = ClassificationTask(none, evaluator.task.splits)
    task.key = evaluator.task.key  # of the file, where the task was loaded from one
    looking = Evaluator(task, evaluator.store, device="cpu").with_estimate(soup.estimate)
    (found,) = looking.stored([soup.mixture], "val")
    assert found is not None
    assert found.loss == soup.evaluations["val"].loss
