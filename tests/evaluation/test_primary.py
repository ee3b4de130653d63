"""Choosing another metric of a task as primary, after evaluations are stored."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from sklearn.metrics import f1_score
from torch import Tensor

import soupcore
from soupcore import ClassificationTask, Evaluator, Metric, Store, Sweep, TaskError, greedy, mean
from soupcore.calls import BestIngredientBias, Context, MetricIntervals, Optimism, RecipeSoup
from soupcore.connectivity import summaries
from soupcore.evaluation import Evaluations, compare
from soupcore.overview import Overview
from soupcore.plan import steps
from soupcore.recipes import weighted
from soupcore.report import report
from soupcore.tasks import TaskDescription

pytestmark = pytest.mark.usefixtures("few_resamples")

NAMES = ("run1", "run2", "run10")


def _mistakes(predictions: Tensor, targets: Tensor) -> float:
    return 7.5 * float((predictions != targets).double().mean())


def _zeros_found(predictions: Tensor, targets: Tensor) -> float:
    return float(((predictions == 0) & (targets == 0)).double().mean())


MISTAKES = Metric("mistakes", higher_is_better=False, unit="per page", compute=_mistakes)
METRICS: tuple[str | Metric, ...] = ("accuracy", "macro F1", MISTAKES)

Make = Callable[..., ClassificationTask]


@pytest.fixture
def make(task: ClassificationTask) -> Make:
    """Make the toy task with metrics; the first is its default."""

    def make(*metrics: str | Metric) -> ClassificationTask:
        return ClassificationTask(task.build_model, task.splits, name="toy", metrics=metrics)

    return make


@pytest.fixture
def several(make: Make, store: Store) -> Evaluator:
    return Evaluator(make(*METRICS), store, device="cpu")


@pytest.fixture
def first(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Evaluator]:
    """Return an evaluator with a store of its own whose task has a metric as its first."""

    def first(name: str) -> Evaluator:
        ordered = sorted(METRICS, key=lambda m: name != (m if isinstance(m, str) else m.name))
        store = Store(tmp_path_factory.mktemp("other"))
        return Evaluator(make(*ordered), store, device="cpu")

    return first


def test_only_the_identity_of_results_depends_on_the_primary_metric(several: Evaluator) -> None:
    task = several.task
    for made in (task, task.describe()):
        chosen = made.with_primary("mistakes")
        assert (chosen.key, made.results_key) == (made.key, made.key)
        assert chosen.results_key not in (made.key, made.with_primary("macro F1").results_key)
        assert chosen.primary == chosen.score_name == chosen.metric.name == "mistakes"
        assert chosen.score_unit.text(-1.5) == "1.500 per page"
        assert made.with_primary("accuracy").primary is None
        back = chosen.with_primary(None)
        assert (back.score_name, back.results_key) == ("accuracy", made.key)
        with pytest.raises(TaskError, match="no metric 'AUC'; it has accuracy, macro F1, mistakes"):
            made.with_primary("AUC")
    described = task.with_primary("macro F1").describe()
    assert described.primary == "macro F1"
    assert TaskDescription.from_json(described.to_json()).primary is None


def test_a_task_without_named_metrics_has_its_score_only(task: ClassificationTask) -> None:
    assert task.with_primary("accuracy").results_key == task.key
    with pytest.raises(TaskError, match="it has accuracy"):
        task.with_primary("F1")


@pytest.mark.parametrize("name", ["macro F1", "mistakes"])
def test_scores_and_intervals_are_those_of_a_task_with_this_metric_first(
    several: Evaluator,
    first: Callable[[str], Evaluator],
    sweep: Sweep,
    passes: list[int],
    name: str,
) -> None:
    points = [sweep[run].mixture for run in NAMES]
    by_default = several.evaluate_all(points, "val")
    passes.clear()
    chosen = several.with_primary(name)
    before = [found for found in chosen.stored(points, "val") if found is not None]
    assert all(found.lacks_interval for found in before)
    assert math.isnan(before[0].score_interval[0])
    assert "not been computed" in compare(chosen.task, *before[:2]).why_no_interval
    found = chosen.evaluate_all(points, "val")
    assert not passes
    oracle = first(name)
    expected = oracle.evaluate_all(points, "val")
    again = [each for each in chosen.stored(points, "val") if each is not None]
    for one, other, wanted in zip(found, again, expected, strict=True):
        assert one.score == other.score == wanted.score
        assert one.score_interval == other.score_interval == wanted.score_interval
        assert not other.lacks_interval
        assert other.score_text == wanted.score_text
    assert compare(chosen.task, *again[:2]) == compare(oracle.task, *expected[:2])
    assert [each.score for each in several.stored(points, "val") if each] == [
        each.score for each in by_default
    ]


def test_accuracy_is_chosen_in_a_task_that_has_f1_first(
    first: Callable[[str], Evaluator], several: Evaluator, sweep: Sweep
) -> None:
    points = [sweep[run].mixture for run in NAMES[:2]]
    chosen = first("macro F1").with_primary("accuracy")
    expected = several.evaluate_all(points, "val")
    found = chosen.evaluate_all(points, "val")
    assert [each.score_interval for each in found] == [each.score_interval for each in expected]
    assert compare(chosen.task, *found) == compare(several.task, *expected)


@pytest.mark.parametrize("name", ["macro F1", "mistakes"])
def test_greedy_chooses_by_the_primary_metric(
    several: Evaluator, first: Callable[[str], Evaluator], sweep: Sweep, name: str
) -> None:
    chosen = several.with_primary(name)
    soup = greedy(sweep, chosen)
    targets = several.task.split("val").targets
    for step in soup.trace:
        tried = step.soup if step.accepted else (*step.soup, step.candidate)
        predictions = several.evaluate(mean(sweep[run].mixture for run in tried), "val").predictions
        value = (
            f1_score(targets, predictions, average="macro")
            if name == "macro F1"
            else -_mistakes(predictions, targets)
        )
        assert step.score == pytest.approx(value, abs=1e-9)
    scores = [step.score for step in soup.trace if step.accepted]
    assert scores == sorted(scores)
    expected = greedy(sweep, first(name))
    assert soup.coefficients == expected.coefficients
    assert [step.to_json() for step in soup.trace] == [s.to_json() for s in expected.trace]
    by_accuracy = greedy(sweep, several)
    assert (soup.primary, by_accuracy.primary) == (name, None)
    assert soup.id != by_accuracy.id
    assert "primary" not in by_accuracy.parameters
    again = soupcore.Soup.from_json(sweep, soup.to_json())
    assert (again.primary, again.id) == (name, soup.id)
    assert again.chosen_by(several.task).score_name == name
    assert soup.to_json()["scores"]["val"]["metric"] == name


def test_a_weighted_soup_prefers_lower_values_of_a_metric_where_they_are_better(
    several: Evaluator, sweep: Sweep
) -> None:
    soup = weighted(sweep, several.with_primary("mistakes"), power=1)
    values = {run: _mistakes(several.evaluate(sweep[run].mixture, "val").predictions,
                             several.task.split("val").targets) for run in NAMES}  # fmt: skip
    total = sum(1 / value for value in values.values())
    for run, value in values.items():
        assert float(soup.coefficients[run]) == pytest.approx(1 / value / total)


def test_results_by_another_metric_are_kept_apart(make: Make, store: Store, sweep: Sweep) -> None:
    zeros = Metric("zeros", compute=_zeros_found)
    several = Evaluator(make("accuracy", zeros, MISTAKES), store, device="cpu")
    contexts = {
        metric: Context(sweep, several.with_primary(metric), str(sweep.folder), "task.py:task")
        for metric in (None, "zeros", "mistakes")
    }
    calls = (BestIngredientBias(NAMES), Optimism(NAMES, {"accept": ">=", "metric": "score"}))
    for call in calls:
        keys = {metric: call.key(context) for metric, context in contexts.items()}
        assert len(set(keys.values())) == 3
        assert keys[None] == call.key(Context(sweep, several, str(sweep.folder), "task.py:task"))
        for context in contexts.values():
            call.work(context, lambda done, total, partial=None: None)
        found = {metric: call.result(context) for metric, context in contexts.items()}
        assert found[None] != found["zeros"] != found["mistakes"]
    digests = {summaries.lines_key(c.evaluations, 3, "val") for c in contexts.values()}
    assert len(digests) == 3


def test_missing_intervals_are_computed_without_a_pass(
    several: Evaluator, sweep: Sweep, passes: list[int]
) -> None:
    running = Context(sweep, several, str(sweep.folder), "task.py:task")
    soup = greedy(sweep, several, NAMES).evaluate(several)
    running.keep_soup(soup, {})
    several.evaluate_all([sweep[run].mixture for run in NAMES], "test")
    chosen = Context(sweep, several.with_primary("mistakes"), running.folder, running.task_spec)
    described = Evaluations(several.task.describe(), several.store).with_primary("mistakes")
    reading = Context(sweep, described, running.folder, running.task_spec)
    known = MetricIntervals()
    lacking = known.lacking(reading)
    assert {split for split, _ in lacking} == {"val", "test", "shift/noise"}
    passes.clear()
    result: dict[str, Any] = known.work(chosen, lambda done, total, partial=None: None)
    assert result == {"intervals": len(lacking)}
    assert not passes
    assert known.lacking(reading) == known.lacking(running) == []
    gain = Overview.of(reading).gain(soup.id, "test")
    assert gain is not None
    assert gain.interval is not None or gain.difference == 0
    assert "mistakes (lower is better); also measured: accuracy" in report(reading)
    assert "accuracy (higher is better); also measured: macro F1" in report(running)


def test_the_scores_in_a_manifest_are_by_one_metric(several: Evaluator, sweep: Sweep) -> None:
    body = greedy(sweep, several).evaluate(several).to_json()
    again = soupcore.Soup.from_json(sweep, body)
    assert again.to_json()["scores"] == body["scores"]
    found = again.evaluate(several.with_primary("mistakes"), ["test"]).to_json()["scores"]
    assert found.keys() == {"test"}
    assert found["test"]["metric"] == "mistakes"
    assert found["test"]["score"] == again.evaluations["test"].score
    back = soupcore.Soup.from_json(sweep, body).evaluate(several, ["test"])
    assert back.to_json()["scores"] == body["scores"]


def test_the_error_of_a_preview_is_measured_by_the_primary_metric(
    several: Evaluator, first: Callable[[str], Evaluator], sweep: Sweep
) -> None:
    middle = mean(sweep[run].mixture for run in NAMES)
    several.preview(middle, "val")
    found = several.with_primary("mistakes").preview(middle, "val")
    expected = first("mistakes").preview(middle, "val")
    assert (found.score, found.score_effect) == (expected.score, expected.score_effect)


def test_only_the_greedy_step_of_the_analysis_depends_on_the_metric(
    several: Evaluator, sweep: Sweep
) -> None:
    done: dict[str | None, dict[str, str]] = {}
    for metric in (None, "macro F1"):
        context = Context(sweep, several.with_primary(metric), str(sweep.folder), "task.py:task")
        known = Overview.of(context)
        done[metric] = {s.name: s.key(known) for s in steps(known) if s.is_soup}
    assert done[None].keys() == {"uniform", "greedy", "learned"}
    differing = {name for name in done[None] if done[None][name] != done["macro F1"][name]}
    assert differing == {"greedy"}


def test_printed_code_chooses_the_metric(several: Evaluator, sweep: Sweep) -> None:
    context = Context(sweep, several.with_primary("macro F1"), str(sweep.folder), "task.py:task")
    code = RecipeSoup("greedy", NAMES, {}).script(context)
    assert "soupcore.load_task('task.py:task').with_primary('macro F1')\n" in code
    by_default = Context(sweep, several, str(sweep.folder), "task.py:task")
    assert "with_primary" not in RecipeSoup("greedy", NAMES, {}).script(by_default)
