import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

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
)
from tests.helpers import State, average, logits
from tests.recipes.table import MakeTable, evaluated

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
            id="not a number comes last and is refused",
        ),
        pytest.param(
            ">=", {"a": NAN, "b": NAN, "ab": NAN}, "a", "ab", id="nothing but not a number"
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
    assert made.parameters == {"accept": accept, "split": "val"}
    score = made.evaluations["val"].score
    assert score == pytest.approx(percents["".join(sorted(soup))] / 100, nan_ok=True)


def test_a_trace_tells_each_decision(table: MakeTable) -> None:
    percents = {"a": 60, "b": 80, "c": 70, "bc": 83, "abc": 79}
    sweep, evaluator = table("abc", percents)
    assert greedy(sweep, evaluator).trace == (
        Step("b", 0.80, accepted=True, soup=("b",), gained=0, lost=0, examples=100),
        Step("c", 0.83, accepted=True, soup=("b", "c"), gained=3, lost=0, examples=100),
        Step("a", 0.79, accepted=False, soup=("b", "c"), gained=0, lost=4, examples=100),
    )


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
    made = greedy(sweep, evaluator, accept=accept)
    finite = [scores[frozenset(a)] for a in letters if not math.isnan(scores[frozenset(a)])]
    percent = 100 * made.evaluations["val"].score
    assert not finite or percent >= max(finite) - 1e-9
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
def test_only_a_split_for_choosing_may_be_chosen_on(table: MakeTable, split: str) -> None:
    sweep, evaluator = table("ab", {})
    with pytest.raises(RecipeError, match=rf"'{split}' has the role .* only choose on 'val'"):
        greedy(sweep, evaluator, split=split)
    assert evaluated(evaluator) == []


def test_what_cannot_be_followed_is_refused(table: MakeTable) -> None:
    sweep, evaluator = table("ab", {})
    with pytest.raises(RecipeError, match="needs at least one ingredient"):
        greedy(sweep, evaluator, [])
    with pytest.raises(RecipeError, match="'>=' or '>', not '<'"):
        greedy(sweep, evaluator, accept="<")  # type: ignore[arg-type]
    with pytest.raises(SweepError, match="has no ingredient 'z'"):
        greedy(sweep, evaluator, ["a", "z"])
    with pytest.raises(TaskError, match="has no split 'nowhere'"):
        greedy(sweep, evaluator, split="nowhere")


def test_the_trace_is_told_as_it_grows_and_progress_ends_with_all(table: MakeTable) -> None:
    sweep, evaluator = table("abc", {"a": 60, "b": 80, "c": 70, "bc": 83, "abc": 79})
    lengths: list[int] = []
    progress: list[tuple[int, int]] = []

    def on_step(trace: Sequence[Step]) -> None:
        lengths.append(len(trace))

    greedy(
        sweep,
        evaluator,
        on_step=on_step,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert lengths == [1, 2, 3]
    assert progress == [(100 * i, 500) for i in (1, 2, 3, 4, 5)]


# On a real sweep


def test_greedy_on_a_real_sweep_is_what_its_numbers_say(
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
            change = (step.gained - step.lost) / len(data)
            assert step.score - right_before == pytest.approx(change)
        soup = step.soup
    assert made.evaluations["val"].score == pytest.approx(accuracy(*made.coefficients))
    assert made.evaluations["val"].score >= max(accuracy(name) for name in states)


def test_greedy_takes_what_is_known_and_evaluates_the_rest_once(
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


def test_a_cancelled_greedy_goes_on_where_it_stopped(
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
def test_giving_up_early_changes_no_decision_and_saves_examples(
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
