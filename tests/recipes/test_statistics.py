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
    both_statistics,
    greedy,
    mergekit_config,
    model_card,
    rebuild,
    uniform,
)
from tests.helpers import FEATURES, same_weights, save_sweep


def test_a_soup_comes_with_both_and_the_better_on_select_first(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = greedy(sweep, evaluator)
    found = both_statistics(soup, evaluator)
    assert {each.estimate is None for each in found} == {True, False}
    assert soup in found
    first, second = (each.evaluations["val"] for each in found)
    assert (first.score, -first.loss) >= (second.score, -second.loss)
    averaged, again = sorted(found, key=lambda each: each.estimate is not None)
    expected = evaluator.with_statistics("re-estimated").evaluate(soup.mixture, "val")
    assert again.evaluations["val"].loss == expected.loss
    assert averaged.evaluations["val"].loss == evaluator.evaluate(soup.mixture, "val").loss
    assert averaged.id != again.id
    changed = {name for name, t in again.state_dict().items()
               if not torch.equal(t, averaged.state_dict()[name])}  # fmt: skip
    assert changed == {"1.running_mean", "1.running_var"}


def test_of_equal_ones_the_averaged_come_first(sweep: Sweep, evaluator: Evaluator) -> None:
    estimating = evaluator.with_statistics("re-estimated")
    weights = uniform(sweep).mixture.state_dict() | estimating.estimated_statistics(
        uniform(sweep).mixture
    )
    folder = save_sweep(sweep.folder / "settled", {"a": weights})
    first, second = both_statistics(uniform(Sweep.from_folder(folder)), evaluator)
    assert first.evaluations["val"].score == second.evaluations["val"].score
    assert first.estimate is None


def test_without_batchnorm_or_training_data_there_is_only_one(
    tmp_path: Path, sweep: Sweep, splits: dict[str, Split], task: ClassificationTask, store: Store
) -> None:
    held = {name: split for name, split in splits.items() if split.role != "train"}
    soup = uniform(sweep)
    judge = Evaluator(ClassificationTask(task.build_model, held), store, device="cpu")
    assert both_statistics(soup, judge) == (soup,)
    plain = Evaluator(ClassificationTask(lambda: nn.Linear(FEATURES, 3), splits), store)
    states = {"a": nn.Linear(FEATURES, 3).state_dict()}
    one = uniform(Sweep.from_folder(save_sweep(tmp_path / "plain", states)))
    assert both_statistics(one, plain) == (one,)


def test_its_papers_say_where_the_statistics_are_from_and_how_to_have_them_again(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = uniform(sweep).re_estimate(evaluator).evaluate(evaluator)
    assert "soup.re_estimate(evaluator, examples=20)" in model_card(soup)
    assert "here they are re-estimated" in str(mergekit_config(soup))
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
