from dataclasses import replace
from math import nan

import pytest

from soupcore import (
    RECIPES,
    Cancelled,
    Evaluator,
    RecipeError,
    Soup,
    Split,
    Store,
    Sweep,
    curve,
    wise_ft,
)
from soupcore.recipes import Number


def test_a_curve_is_the_recipe_at_each_value(sweep: Sweep, evaluator: Evaluator) -> None:
    points: list[tuple[float, Soup]] = []
    drawn = curve(
        "wise_ft",
        "alpha",
        sweep,
        evaluator,
        ["run1"],
        splits=["test"],
        on_point=lambda value, soup: points.append((value, soup)),
    )
    assert drawn.values == tuple(i / 10 for i in range(11))
    assert points == list(zip(drawn.values, drawn.soups, strict=True))
    for value, soup in points:
        alone = wise_ft(sweep, ["run1"], alpha=value).evaluate(evaluator, ["val", "test"])
        assert alone.id == soup.id
        assert set(soup.evaluations) == {"val", "test"}
    assert drawn.scores("test") == [soup.evaluations["test"].score for soup in drawn.soups]
    assert drawn.losses() == [soup.evaluations["val"].loss for soup in drawn.soups]
    assert drawn.at(0.3) is drawn.soups[3]
    assert drawn.best.evaluations["val"].score == max(drawn.scores())
    with pytest.raises(RecipeError, match=r"No curve point at 0\.35"):
        drawn.at(0.35)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        (name, parameter.name)
        for name, recipe in RECIPES.items()
        for parameter in recipe.parameters
        if isinstance(parameter, Number) and parameter.curve
    ],
)
def test_every_curve_of_every_recipe_can_be_drawn(
    sweep: Sweep, evaluator: Evaluator, name: str, parameter: str
) -> None:
    drawn = curve(name, parameter, sweep, evaluator, ["run1", "run2"])
    assert len(drawn.soups) == len(drawn.values) > 1
    assert all(
        soup.parameters[parameter] == v for soup, v in zip(drawn.soups, drawn.values, strict=True)
    )
    assert len({soup.mixture.key for soup in drawn.soups}) > 1


def test_the_best_has_the_best_score_and_of_equal_ones_the_lower_loss(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    drawn = curve("wise_ft", "alpha", sweep, evaluator, values=[0, 0.5, 1])

    def told(*scores_and_losses: tuple[float, float]) -> float:
        for soup, (score, loss) in zip(drawn.soups, scores_and_losses, strict=True):
            found = soup.evaluations["val"]
            soup.evaluations["val"] = replace(found, score=score, loss=loss)
        return drawn.values[drawn.soups.index(drawn.best)]

    assert told((0.5, 1), (0.7, 2), (0.6, 0)) == 0.5
    assert told((0.5, 1), (0.7, 2), (0.7, 1)) == 1
    assert told((0.7, 1), (0.7, 1), (0.7, 1)) == 0
    assert told((nan, nan), (0.1, nan), (0.1, 3)) == 1


def test_stored_points_need_no_pass(sweep: Sweep, evaluator: Evaluator, passes: list[int]) -> None:
    curve("ties", "scale", sweep, evaluator, values=[0.5, 1, 1.5], density=0.5)
    assert passes == [100] * 3
    curve("ties", "scale", sweep, evaluator, values=[1.5, 1], density=0.5)
    assert passes == [100] * 3


def test_values_that_are_evaluated_together_give_the_same_curve(
    sweep: Sweep, evaluator: Evaluator, splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = curve("ties", "scale", sweep, evaluator, splits=["test"])
    elsewhere = Evaluator(evaluator.task, Store(sweep.folder / "elsewhere"), device="cpu")
    monkeypatch.setattr(Evaluator, "at_once", 3)
    reports: list[float] = []
    together = curve(
        "ties",
        "scale",
        sweep,
        elsewhere,
        splits=["test"],
        on_progress=lambda done, total: reports.append(done / total),
    )
    assert together.scores("test") == drawn.scores("test")
    assert together.losses() == drawn.losses()
    assert [soup.id for soup in together.soups] == [soup.id for soup in drawn.soups]
    assert reports == sorted(reports)
    assert reports[-1] == 1


def test_a_curve_reports_progress_and_can_be_stopped(sweep: Sweep, evaluator: Evaluator) -> None:
    reports: list[float] = []
    curve(
        "wise_ft",
        "alpha",
        sweep,
        evaluator,
        on_progress=lambda done, total: reports.append(done / total),
    )
    assert reports == sorted(reports)
    assert reports[-1] == 1

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        curve("dare", "drop", sweep, evaluator, on_progress=stop)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("magic", "alpha"), "No recipe 'magic'; available: greedy"),
        (("wise_ft", "keep"), "no parameter 'keep' to sweep over; available: alpha"),
        (("uniform", "alpha"), "available: none"),
    ],
)
def test_impossible_curves_are_refused(
    sweep: Sweep, evaluator: Evaluator, arguments: tuple[str, str], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        curve(*arguments, sweep, evaluator)
    with pytest.raises(RecipeError, match="at least one value"):
        curve("wise_ft", "alpha", sweep, evaluator, values=[])
