import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from soupcore import (
    Cancelled,
    ClassificationTask,
    Evaluator,
    RecipeError,
    Step,
    Store,
    Sweep,
    SweepError,
    TaskError,
    greedy,
    greedy_orders,
)
from tests.helpers import State, average
from tests.recipes.table import MakeTable, TableEvaluator, evaluated
from tests.toy import logits

NAN = math.nan


@pytest.mark.parametrize(
    ("accept", "percents", "soup", "tried"),
    [
        pytest.param(">=", {"a": 80}, "a", "a", id="one alone"),
        pytest.param(">=", {"a": 80, "b": 70, "ab": 81}, "ab", "ab", id="rises"),
        pytest.param(">=", {"a": 80, "b": 70, "ab": 79}, "a", "ab", id="falls"),
        pytest.param(">=", {"a": 80, "b": 70, "ab": 80}, "ab", "ab", id="tie, the paper"),
        pytest.param(">", {"a": 80, "b": 70, "ab": 80}, "a", "ab", id="tie, its code"),
        pytest.param(">", {"a": 80, "b": 70, "ab": 81}, "ab", "ab", id="rises, its code"),
        pytest.param(">", {"a": 70, "b": 80, "ab": 79}, "b", "ba", id="best is not the first"),
        pytest.param(
            ">=",
            {"a": 90, "b": 80, "c": 70, "ab": 85, "ac": 91},
            "ac",
            "abc",
            id="one is passed over, the next is taken without it",
        ),
        pytest.param(
            ">=",
            {"a": 60, "b": 80, "c": 70, "bc": 82, "abc": 82},
            "bca",
            "bca",
            id="from best to worst, a tie at the end",
        ),
        pytest.param(
            ">",
            {"a": 60, "b": 80, "c": 70, "bc": 82, "abc": 82},
            "bc",
            "bca",
            id="from best to worst, a tie at the end, its code",
        ),
        pytest.param(
            ">=",
            {"a": 80, "b": 70, "c": 60, "ab": 80, "abc": 79, "ac": 99},
            "ab",
            "abc",
            id="a tie taken spoils what comes later, the paper",
        ),
        pytest.param(
            ">",
            {"a": 80, "b": 70, "c": 60, "ab": 80, "abc": 79, "ac": 99},
            "ac",
            "abc",
            id="a tie refused leaves room for what comes later, its code",
        ),
        pytest.param(
            ">=",
            {"a": 70, "b": 80, "c": 80, "bc": 79, "ab": 78},
            "b",
            "bca",
            id="equal ingredients keep the order of the sweep",
        ),
        pytest.param(
            ">=",
            {"a": NAN, "b": 70, "c": 80, "bc": 81, "abc": NAN},
            "cb",
            "cba",
            id="a network that fails comes last and is refused",
        ),
        pytest.param(">=", {"a": 0, "b": 0, "ab": 0}, "ab", "ab", id="nothing right at all"),
    ],
)
def test_greedy_follows_the_rule(
    table: MakeTable, accept: Any, percents: dict[str, float], soup: str, tried: str
) -> None:
    letters = "".join(sorted({letter for names in percents for letter in names}))
    sweep, evaluator = table(letters, percents)
    made = greedy(sweep, evaluator, accept=accept)
    assert list(made.coefficients.items()) == [(name, Fraction(1, len(soup))) for name in soup]
    assert [step.candidate for step in made.trace] == list(tried)
    assert "".join(made.trace[-1].soup) == soup
    assert made.parameters == {
        "accept": accept,
        "metric": "score",
        "order": "best first",
        "seed": 0,
        "backward": False,
        "split": "val",
    }
    score = made.evaluations["val"].score
    assert score == pytest.approx(percents["".join(sorted(soup))] / 100, nan_ok=True)


def test_a_trace_contains_each_decision(table: MakeTable) -> None:
    percents = {"a": 60, "b": 80, "c": 70, "bc": 83, "abc": 79}
    sweep, evaluator = table("abc", percents)
    first, accepted, rejected = greedy(sweep, evaluator).trace
    assert first == Step("b", 0.80, True, ("b",), 0, 0, loss=1 - 0.80, examples=100)
    interval = accepted.interval
    assert accepted == Step(
        "c",
        0.83,
        True,
        ("b", "c"),
        3,
        0,
        loss=1 - 0.83,
        examples=100,
        interval=interval,
        p_value=0.25,  # three coins in a row, on either side
    )
    assert rejected == Step("a", 0.79, False, ("b", "c"), 0, 4, loss=1 - 0.79, examples=100)
    # Agresti and Min's: 3 of 100 were gained and none lost, half an example more in each cell.
    middle, spread = 3 / 102, math.sqrt((4 / 102 - (3 / 102) ** 2) / 102)
    low, high = interval or (math.nan, math.nan)
    assert low == pytest.approx(middle - 1.959964 * spread, abs=1e-6)
    assert high == pytest.approx(middle + 1.959964 * spread, abs=1e-6)
    assert [Step.from_json(json.loads(json.dumps(s.to_json()))) for s in (first, accepted)] == [
        first,
        accepted,
    ]


def any_table(draw: st.DrawFn, letters: str) -> dict[frozenset[str], float]:
    """Scores for every subset; few different ones, so that there are ties."""
    subsets = [
        frozenset(letter for bit, letter in enumerate(letters) if number >> bit & 1)
        for number in range(1, 1 << len(letters))
    ]
    percent = st.integers(40, 46).map(float) | st.just(NAN)
    return {subset: draw(percent) for subset in subsets}


@given(st.data(), st.sampled_from(["a", "ab", "abc", "abcde"]), st.sampled_from([">=", ">"]))
def test_greedy_is_never_below_the_best_ingredient_and_its_trace_says_how(
    table: MakeTable, data: st.DataObject, letters: str, accept: Any
) -> None:
    scores = data.draw(st.composite(any_table)(letters))
    sweep, evaluator = table(letters, scores.__getitem__)
    finite = [scores[frozenset(a)] for a in letters if not math.isnan(scores[frozenset(a)])]
    if not finite:
        with pytest.raises(RecipeError, match="No ingredient has a finite score on 'val'"):
            greedy(sweep, evaluator, accept=accept)
        return
    made = greedy(sweep, evaluator, accept=accept)
    percent = 100 * made.evaluations["val"].score
    assert percent >= max(finite) - 1e-9
    assert percent == pytest.approx(scores[frozenset(made.coefficients)], nan_ok=True)
    assert set(made.coefficients.values()) == {Fraction(1, len(made.coefficients))}
    assert made.mixture == sweep.mixture(made.coefficients)

    # Each ingredient is tried once, from the best alone to the worst.
    assert sorted(step.candidate for step in made.trace) == sorted(letters)
    alone = [scores[frozenset(step.candidate)] for step in made.trace]
    ranks = [-math.inf if math.isnan(score) else score for score in alone]
    assert ranks == sorted(ranks, reverse=True)

    # Each step is taken by the rule, on the mean of the soup so far and the candidate.
    soup: tuple[str, ...] = ()
    current = -math.inf
    for step in made.trace:
        trial = scores[frozenset((*soup, step.candidate))]
        assert step.score == pytest.approx(trial / 100, nan_ok=True)
        holds = trial >= current if accept == ">=" else trial > current
        assert step.accepted is (holds or not soup)
        if step.accepted:
            soup, current = (*soup, step.candidate), trial
        assert step.soup == soup

    tried = evaluated(evaluator)
    assert len(tried) == 2 * len(letters) - 1
    assert len(set(tried)) == len(tried)


def test_only_the_ingredients_named_take_part(table: MakeTable) -> None:
    sweep, evaluator = table("abc", {"b": 80, "c": 70, "bc": 81})
    made = greedy(sweep, evaluator, ["c", "b", "c"])
    assert list(made.coefficients) == ["b", "c"]


@pytest.mark.parametrize("split", ["test", "shift/a", "dev"])
def test_only_the_select_split_may_be_used_to_choose(table: MakeTable, split: str) -> None:
    sweep, evaluator = table("ab", {})
    with pytest.raises(RecipeError, match=rf"only choose on 'val'; '{split}' has role"):
        greedy(sweep, evaluator, split=split)
    assert evaluated(evaluator) == []


def test_impossible_parameters_of_greedy_are_refused(table: MakeTable) -> None:
    sweep, evaluator = table("ab", {})
    with pytest.raises(RecipeError, match="needs at least 1 ingredient; got 0"):
        greedy(sweep, evaluator, [])
    with pytest.raises(RecipeError, match="one of '>=', '>', not '<'"):
        greedy(sweep, evaluator, accept="<")  # type: ignore[arg-type]
    with pytest.raises(SweepError, match="has no usable ingredient 'z'"):
        greedy(sweep, evaluator, ["a", "z"])
    with pytest.raises(TaskError, match="has no split 'nowhere'"):
        greedy(sweep, evaluator, split="nowhere")


def test_the_trace_is_reported_as_it_grows_and_progress_ends_complete(table: MakeTable) -> None:
    sweep, evaluator = table("abc", {"a": 60, "b": 80, "c": 70, "bc": 83, "abc": 79})
    lengths: list[int] = []
    progress: list[float] = []

    def on_step(trace: Sequence[Step]) -> None:
        lengths.append(len(trace))

    greedy(
        sweep,
        evaluator,
        on_step=on_step,
        on_progress=lambda done, total: progress.append(done / total),
    )
    assert lengths == [1, 2, 3]
    assert progress == [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1]


# Beyond Recipe 1


def by_loss(losses: dict[str, float], evaluator: Evaluator) -> None:
    """Let the table's losses differ from its scores, which stay all equal."""
    table = cast("TableEvaluator", evaluator)
    table.losses = {frozenset(names): loss for names, loss in losses.items()}


@pytest.mark.parametrize(
    ("accept", "losses", "soup", "tried"),
    [
        (">=", {"a": 0.5, "b": 0.4, "ab": 0.3}, "ba", "ba"),
        (">=", {"a": 0.5, "b": 0.4, "ab": 0.45}, "b", "ba"),
        (">=", {"a": 0.5, "b": 0.4, "ab": 0.4}, "ba", "ba"),
        (">", {"a": 0.5, "b": 0.4, "ab": 0.4}, "b", "ba"),
        (">=", {"a": NAN, "b": 0.4, "ab": NAN}, "b", "ba"),
    ],
)
def test_greedy_by_loss_accepts_ingredients_that_do_not_raise_it(
    table: MakeTable, accept: Any, losses: dict[str, float], soup: str, tried: str
) -> None:
    sweep, evaluator = table("ab", lambda parts: 50.0)
    by_loss(losses, evaluator)
    made = greedy(sweep, evaluator, accept=accept, metric="loss")
    assert "".join(made.coefficients) == soup
    assert [step.candidate for step in made.trace] == list(tried)
    assert made.trace[-1].loss == pytest.approx(losses["ab"], nan_ok=True)


def test_a_random_order_evaluates_only_tried_soups_and_depends_on_seed_and_weights(
    table: MakeTable,
) -> None:
    sweep, evaluator = table("abcd", lambda parts: 50.0 + len(parts))
    orders = set()
    for seed in range(20):
        evaluated(evaluator).clear()
        made = greedy(sweep, evaluator, order="random", seed=seed)
        assert len(evaluated(evaluator)) == 4
        assert greedy(sweep, evaluator, order="random", seed=seed).trace == made.trace
        orders.add("".join(step.candidate for step in made.trace))
    assert len(orders) > 8
    assert {order[0] for order in orders} == set("abcd")


def test_several_orders_have_a_mean_and_a_spread(table: MakeTable) -> None:
    percents = {"a": 60, "b": 80, "c": 70, "bc": 83, "abc": 79, "ab": 62, "ac": 61}
    sweep, evaluator = table("abc", percents)
    orders = greedy_orders(sweep, evaluator, seeds=range(8))
    scores = [soup.evaluations["val"].score for soup in orders.soups]
    assert {soup.parameters["seed"] for soup in orders.soups} == set(range(8))
    assert len(set(scores)) > 1
    assert orders.mean() == pytest.approx(np.mean(scores))
    assert orders.spread() == pytest.approx(np.std(scores, ddof=1))
    assert math.isnan(greedy_orders(sweep, evaluator, seeds=[0]).spread())


@pytest.mark.parametrize("accept", [">=", ">"])
def test_orders_that_advance_together_give_the_same_soups(
    sweep: Sweep, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, accept: Any
) -> None:
    one_by_one = greedy_orders(sweep, evaluator, seeds=range(5), accept=accept)
    monkeypatch.setattr(Evaluator, "at_once", 8)
    together = greedy_orders(sweep, evaluator, seeds=range(5), accept=accept)
    assert [soup.id for soup in together.soups] == [soup.id for soup in one_by_one.soups]
    assert together.scores() == one_by_one.scores()


@pytest.mark.parametrize(
    ("accept", "percents", "soup", "dropped"),
    [
        pytest.param(">=", {"a": 80, "b": 70, "ab": 81}, "ab", "", id="nothing to drop"),
        pytest.param(
            ">=",
            {"a": 80, "b": 75, "c": 70, "ab": 81, "abc": 82, "bc": 83},
            "bc",
            "a",
            id="the first is left out again",
        ),
        pytest.param(
            ">=", {"a": 75, "b": 75, "ab": 75}, "b", "a", id="as good with fewer, the paper's rule"
        ),
        pytest.param(">", {"a": 75, "b": 74, "ab": 76}, "ab", "", id="strictly"),
        pytest.param(">=", {"a": 75}, "a", "", id="one alone stays"),
    ],
)
def test_a_backward_pass_drops_ingredients_that_no_longer_help(
    table: MakeTable, accept: Any, percents: dict[str, float], soup: str, dropped: str
) -> None:
    letters = "".join(sorted({letter for names in percents for letter in names}))
    known = {frozenset(names): float(percent) for names, percent in percents.items()}
    sweep, evaluator = table(letters, lambda parts: known.get(parts, 10.0))
    made = greedy(sweep, evaluator, accept=accept, backward=True)
    assert "".join(made.coefficients) == soup
    drops = [step for step in made.trace if step.action == "drop"]
    assert "".join(step.candidate for step in drops if step.accepted) == dropped
    assert made.trace[-1].soup == tuple(soup)
    assert made.evaluations["val"].score == pytest.approx(known[frozenset(soup)] / 100)


@given(st.data(), st.sampled_from(["ab", "abcd"]), st.sampled_from([">=", ">"]))
def test_a_backward_pass_never_makes_it_worse(
    table: MakeTable, data: st.DataObject, letters: str, accept: Any
) -> None:
    scores = data.draw(st.composite(any_table)(letters))
    if all(math.isnan(scores[frozenset(letter)]) for letter in letters):
        return
    sweep, evaluator = table(letters, scores.__getitem__)
    forward = greedy(sweep, evaluator, accept=accept)
    both = greedy(sweep, evaluator, accept=accept, backward=True)
    assert set(both.coefficients) <= set(forward.coefficients)
    tried = [step.candidate for step in both.trace if step.action == "add"]
    assert tried == [step.candidate for step in forward.trace]
    before, after = (soup.evaluations["val"].score for soup in (forward, both))
    assert after >= before


# On a real sweep


def test_greedy_on_a_real_sweep_follows_its_scores(
    sweep: Sweep, states: dict[str, State], task: ClassificationTask, evaluator: Evaluator
) -> None:
    data = task.split("val")

    def accuracy(*names: str) -> float:
        mixed = average([states[name] for name in names])
        return float(accuracy_score(data.targets, logits(mixed, data.inputs).argmax(1)))

    made = greedy(sweep, evaluator)
    soup: tuple[str, ...] = ()
    for step in made.trace:
        right_before = accuracy(*soup) if soup else 0.0
        score = accuracy(*soup, step.candidate)
        assert step.accepted is (score >= right_before)
        assert step.examples <= len(data)
        if step.is_bound:
            assert score <= step.score < right_before
        else:
            assert step.score == pytest.approx(score)
        if soup and not step.is_bound:
            assert step.gained is not None
            assert step.lost is not None
            change = (step.gained - step.lost) / len(data)
            assert step.score - right_before == pytest.approx(change)
        soup = step.soup
    assert made.evaluations["val"].score == pytest.approx(accuracy(*made.coefficients))
    assert made.evaluations["val"].score >= max(accuracy(name) for name in states)


def test_greedy_uses_stored_evaluations_and_computes_the_rest_once(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    evaluator.evaluate(sweep["run1"].mixture, "val")
    passes.clear()
    first = greedy(sweep, evaluator)
    seen = [step.examples for step in first.trace[1:]]
    assert sum(passes) == 2 * 100 + sum(seen)
    passes.clear()
    assert greedy(sweep, evaluator).trace == first.trace
    assert passes == []


def test_a_cancelled_greedy_soup_resumes(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    def stop(done: int, total: int) -> None:
        if done > 300:
            raise Cancelled

    with pytest.raises(Cancelled):
        greedy(sweep, evaluator, on_progress=stop)
    assert len(evaluator.missing([i.mixture for i in sweep.ingredients.values()], "val")) == 0
    passes.clear()
    trace = greedy(sweep, evaluator).trace
    assert sum(passes) == sum(step.examples for step in trace[1:])


@pytest.mark.parametrize("accept", [">=", ">"])
def test_early_rejection_changes_no_decision_and_saves_examples(
    sweep: Sweep, task: ClassificationTask, evaluator: Evaluator, tmp_path: Path, accept: Any
) -> None:
    store = Store(tmp_path / "other")
    full = greedy(sweep, Evaluator(task, store), accept=accept, early_stop=False)
    early = greedy(sweep, evaluator, accept=accept)
    store.close()
    assert early.id == full.id
    assert [(s.candidate, s.accepted, s.soup) for s in early.trace] == [
        (s.candidate, s.accepted, s.soup) for s in full.trace
    ]
    assert early.evaluations["val"].score == full.evaluations["val"].score
    assert any(step.is_bound for step in early.trace)
    assert sum(s.examples for s in early.trace) < sum(s.examples for s in full.trace)
    for one, other in zip(early.trace, full.trace, strict=True):
        assert one.score >= other.score
        assert one.is_bound or one == other
