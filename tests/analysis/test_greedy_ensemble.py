import pytest
import torch
from sklearn.metrics import accuracy_score

from soupcore import (
    ClassificationTask,
    Evaluator,
    RecipeError,
    Sweep,
    ensemble,
    greedy_ensemble,
)
from tests.helpers import State, logits


def test_it_follows_recipe_one_on_mean_outputs(
    sweep: Sweep,
    states: dict[str, State],
    task: ClassificationTask,
    evaluator: Evaluator,
    passes: list[int],
) -> None:
    points = {name: sweep[name].mixture for name in states}
    assert greedy_ensemble(evaluator, points) is None
    for point in points.values():
        evaluator.evaluate(point, "val")
    passes.clear()
    found = greedy_ensemble(evaluator, points)
    assert found is not None
    assert passes == []
    data = task.split("val")

    def accuracy(*names: str) -> float:
        mean = torch.stack([logits(states[name], data.inputs).double() for name in names]).mean(0)
        return float(accuracy_score(data.targets, mean.argmax(1)))

    members: tuple[str, ...] = ()
    for name in sorted(states, key=lambda name: -accuracy(name)):
        assert found.tried[name] == pytest.approx(accuracy(*members, name))
        if not members or accuracy(*members, name) >= accuracy(*members):
            members = (*members, name)
    assert (found.members, found.passes, found.split) == (members, len(members), "val")
    same = ensemble(evaluator, [points[name] for name in members], "val")
    assert found.chosen_on == same


def test_one_alone_is_itself_and_none_is_refused(sweep: Sweep, evaluator: Evaluator) -> None:
    alone = evaluator.evaluate(sweep["run1"].mixture, "val")
    found = greedy_ensemble(evaluator, {"run1": sweep["run1"].mixture})
    assert found is not None
    assert found.members == ("run1",)
    assert found.chosen_on.score == pytest.approx(alone.score)
    with pytest.raises(RecipeError, match="at least one member"):
        greedy_ensemble(evaluator, {})


def test_outputs_that_were_not_kept_make_none(sweep: Sweep, evaluator: Evaluator) -> None:
    middle = (sweep["run1"].mixture + sweep["run2"].mixture) * 0.5
    evaluator.evaluate(middle, "val", keep_outputs=False)
    assert greedy_ensemble(evaluator, {"middle": middle}) is None
