"""Each call: JSON, run, kept, read by those who know the task's description only."""

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from soupcore import (
    Cancelled,
    ClassificationTask,
    Evaluator,
    Store,
    Sweep,
    uniform,
)
from soupcore.analysis import calibration, fit_temperature
from soupcore.analysis.calibration import Calibration
from soupcore.calls import (
    CALLS,
    Attribution,
    BestIngredientBias,
    Breakdown,
    Calibrations,
    Call,
    Context,
    EnsembleScores,
    GreedyEnsembleScores,
    GreedyOrders,
    Optimism,
    ParameterCurve,
    RecipeSoup,
    Result,
    SearchOptimism,
    ShownExamples,
    StoredCall,
    TwoModelEnsembles,
    TwoModelTheory,
)
from soupcore.evaluation import Evaluations
from soupcore.progress import no_progress
from soupcore.recipes import RECIPES, Number
from soupcore.tasks import Shown, TaskDescription

NAMES = ("run1", "run2", "run10")
GREEDY = {"accept": ">=", "metric": "score"}


@pytest.fixture(autouse=True)
def examples_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the toy task show its examples as text."""
    monkeypatch.setattr(
        ClassificationTask, "show", lambda self, split, index: Shown(f"{split} {index}")
    )


@pytest.fixture
def running(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator)


@pytest.fixture
def reading(running: Context, task: ClassificationTask, store: Store) -> Context:
    """What a page has: no task, only its description."""
    return Context(running.sweep, Evaluations(task.describe(), store))


@pytest.fixture
def soup(running: Context) -> str:
    """The id of a soup in the store."""
    made = uniform(running.sweep, ["run1", "run2"])
    running.evaluator.store.add_soup(made.id, str(running.sweep.folder), made.to_json())
    return made.id


def calls(soup: str) -> dict[str, StoredCall]:
    found: list[StoredCall] = [
        EnsembleScores(NAMES[:2]),
        GreedyEnsembleScores(NAMES),
        TwoModelEnsembles(NAMES, "test"),
        TwoModelTheory(NAMES, "test"),
        Calibrations(soup, NAMES, "test"),
        BestIngredientBias(NAMES),
        Attribution(soup, "test"),
        Breakdown("run1", "test"),
        ShownExamples("test", (2, 0)),
        Optimism(NAMES, GREEDY),
        SearchOptimism(NAMES, {"evaluations": 6}),
        GreedyOrders(NAMES, GREEDY, 2),
        ParameterCurve("wise_ft", "alpha", ("run1",), (0.0, 0.5), {}),
    ]
    return {call.kind: call for call in found}


def compute(call: StoredCall, context: Context) -> Result:
    """Run a call as a worker does, from its JSON."""
    request = json.loads(json.dumps({"sweep": "elsewhere", "task": "t", **call.arguments}))
    again = type(call).from_request(request)
    assert again == call
    found = again.run_and_keep(context, no_progress)
    result: Result = json.loads(json.dumps(found, allow_nan=False))
    return result


def outputs(context: Context, name: str, split: str) -> torch.Tensor:
    return context.evaluator.evaluate(context.sweep[name].mixture, split).outputs.double()


STORED = [kind for kind, call in CALLS.items() if issubclass(call, StoredCall)]


def test_each_call_has_a_case(soup: str) -> None:
    assert calls(soup).keys() == set(STORED)


@pytest.mark.parametrize("kind", STORED)
def test_the_key_of_a_result_covers_weights_data_and_arguments(
    running: Context, reading: Context, soup: str, kind: str
) -> None:
    call = calls(soup)[kind]
    key = call.key(running)
    assert call.key(reading) == key
    anew = Context(running.sweep, running.evaluator.with_statistics("re-estimated"))
    others = [call.key(anew)]
    description = running.task.describe().to_json()
    for split in call.split_names(running.task):
        changed = json.loads(json.dumps(description))
        changed["splits"][split]["digest"] = "0" * 64
        others.append(call.key(Context(running.sweep, _evaluations(changed, running))))
    changed = description | {"key": "1" * 64}
    others.append(call.key(Context(running.sweep, _evaluations(changed, running))))
    assert len({key, *others}) == 1 + len(others)


def _evaluations(description: dict[str, Any], context: Context) -> Evaluations:
    return Evaluations(TaskDescription.from_json(description), context.evaluations.store)


def test_partial_result_is_stored_but_unsettled(running: Context, reading: Context) -> None:
    def stop(done: int, total: int) -> None:
        if call.known(reading) is not None:
            raise Cancelled

    call = TwoModelTheory(NAMES, "test")
    with pytest.raises(Cancelled):
        call.run_and_keep(running, stop)
    known = call.known(reading)
    assert known is not None
    assert len(known["pairs"]) >= 1
    assert call.result(reading) is None
    assert compute(call, running)["pairs"][:1] == known["pairs"][:1]


def test_ensembles_average_outputs(running: Context, task: ClassificationTask) -> None:
    members = NAMES[:2]
    scores = compute(EnsembleScores(members), running)["scores"]
    assert list(scores) == task.reported
    for split in task.reported:
        mean = sum(outputs(running, name, split) for name in members)
        assert isinstance(mean, torch.Tensor)
        expected = accuracy_score(task.split(split).targets, mean.argmax(1))
        assert scores[split] == pytest.approx(expected)
    pairs = compute(TwoModelEnsembles(NAMES, "test"), running)["pairs"]
    assert [tuple(pair[:2]) for pair in pairs] == list(combinations(NAMES, 2))
    for a, b, score in pairs:
        both = outputs(running, a, "test") + outputs(running, b, "test")
        expected = accuracy_score(task.split("test").targets, both.argmax(1))
        assert score == pytest.approx(expected)


def test_the_greedy_ensemble_has_the_score_of_its_members(running: Context) -> None:
    found = compute(GreedyEnsembleScores(NAMES), running)
    alone = compute(EnsembleScores(tuple(found["members"])), running)
    assert found["scores"] == alone["scores"]


def test_calibrations_are_those_of_the_library(
    running: Context, task: ClassificationTask, soup: str
) -> None:
    found = compute(Calibrations(soup, NAMES, "test"), running)
    assert list(found["ingredients"]) == list(NAMES)
    for name in NAMES:
        both = found["ingredients"][name]
        logits, targets = outputs(running, name, "test"), task.split("test").targets
        assert Calibration.from_json(both["before"]) == calibration(logits, targets)
        temperature = fit_temperature(outputs(running, name, "val"), task.split("val").targets)
        assert both["after"]["temperature"] == pytest.approx(temperature)
    members = [outputs(running, name, "test") for name in ("run1", "run2")]
    expected = calibration(torch.stack(members).mean(0), task.split("test").targets)
    assert found["ensemble"]["before"]["ece"] == pytest.approx(expected.ece, abs=1e-6)


def test_a_curve_is_found_again_from_a_soup_that_is_a_point_of_it(running: Context) -> None:
    recipe = RECIPES["wise_ft"]
    number = next(p for p in recipe.parameters if isinstance(p, Number) and p.curve)
    given = {p.name: p.default for p in recipe.parameters if p is not number}
    call = ParameterCurve(recipe.name, number.name, ("run1",), number.curve, given)
    points = compute(call, running)["points"]
    assert [point["value"] for point in points] == list(number.curve)
    value = number.curve[len(number.curve) // 2]
    chosen: dict[str, Any] = {number.name: value}
    made = recipe.follow(running.sweep, running.evaluator, ["run1"], **chosen)
    assert made.id in {point["soup"] for point in points}
    assert ParameterCurve.of_soup(made, number, ["run1"]) == call


def test_undefined_scores_are_reported(
    monkeypatch: pytest.MonkeyPatch, running: Context, task: ClassificationTask
) -> None:
    nothing = lambda outputs, targets: torch.full((len(targets),), np.nan)  # noqa: E731
    monkeypatch.setattr(task, "score", nothing)
    for call in (GreedyEnsembleScores(NAMES), BestIngredientBias(NAMES)):
        assert "undefined" in compute(call, running)["why_none"]
    assert set(compute(EnsembleScores(NAMES), running)["scores"].values()) == {None}


@pytest.mark.parametrize(
    "call",
    [
        ParameterCurve("wise_ft", "alpha", ("run1",), (0.25, 0.5, 0.75), {}),
        GreedyOrders(NAMES, GREEDY, 2),
        RecipeSoup("greedy", NAMES, {}),
        RecipeSoup("learned", NAMES, {"optimizer": "lbfgs"}),
    ],
    ids=lambda call: f"{call.kind} {getattr(call, 'recipe', '')}",
)
def test_points_of_an_idle_worker_are_not_evaluated_again(
    running: Context, passes: list[int], call: Call
) -> None:
    def report(done: int, total: int, partial: object = None) -> None: ...

    call.share(running, report)
    shared = sum(passes)
    assert shared >= 300
    passes.clear()
    call.work(running, report)
    with_help = sum(passes)
    passes.clear()
    elsewhere = running.evaluator.store.folder / "elsewhere"
    alone = Context(
        running.sweep, Evaluator(running.evaluator.task, Store(elsewhere), device="cpu")
    )
    call.work(alone, report)
    assert with_help + shared <= sum(passes)
    assert with_help < sum(passes)
