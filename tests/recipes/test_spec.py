import itertools
import math
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

import soupcore
from soupcore import RECIPES, Evaluator, RecipeError, Sweep
from soupcore.recipes import Choice, Number, Parameter, Recipe, Switch, Text
from tests.recipes.table import MakeTable, evaluated

ALL = pytest.mark.parametrize("name", RECIPES)


def alternatives(parameter: Parameter) -> list[Any]:
    """Values of a parameter other than its default."""
    if isinstance(parameter, Choice):
        return [choice for choice in parameter.choices if choice != parameter.default]
    if isinstance(parameter, Number):
        return sorted({parameter.minimum, *parameter.curve[:1]} - {parameter.default})
    return [not parameter.default] if isinstance(parameter, Switch) else ["0."]


def variations(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """No parameter told, and each told in turn; the fewest passes that there can be."""
    few = {p.name: 2 for p in recipe.parameters if p.name == "passes"}
    yield few
    for parameter in recipe.parameters:
        for value in alternatives(parameter):
            yield few | {parameter.name: value}


def names_for(recipe: Recipe) -> list[str]:
    return ["run1", "run10"] if recipe.takes == (2, 2) else ["run1", "run2", "run10"]


@ALL
def test_a_recipe_is_listed_under_its_name_and_described(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert name.isidentifier()
    assert recipe.title
    assert recipe.summary.endswith(".")
    assert recipe.paper
    names = [parameter.name for parameter in recipe.parameters]
    assert len(set(names)) == len(names)
    for parameter in recipe.parameters:
        assert parameter.label
        assert parameter.help
        parameter.check(parameter.default)
        for value in alternatives(parameter):
            parameter.check(value)
        if isinstance(parameter, Choice):
            assert len(set(parameter.choices)) == len(parameter.choices) > 1
        if isinstance(parameter, Number):
            assert parameter.minimum < parameter.maximum
            assert parameter.step > 0
            for value in parameter.curve:
                parameter.check(value)


def test_defaults_choices_and_types_are_those_of_the_signature() -> None:
    greedy, slerp = ({p.name: p for p in RECIPES[n].parameters} for n in ("greedy", "slerp"))
    accept, seed, t = greedy["accept"], greedy["seed"], slerp["t"]
    assert isinstance(accept, Choice)
    assert (accept.default, accept.choices) == (">=", (">=", ">"))
    assert isinstance(seed, Number)
    assert (seed.default, seed.is_whole) == (0, True)
    assert isinstance(t, Number)
    assert (t.default, type(t.default), t.is_whole) == (0.5, float, False)


@ALL
def test_a_recipe_takes_at_most_the_announced_passes(
    sweep: Sweep, evaluator: Evaluator, passes: list[int], name: str
) -> None:
    recipe = RECIPES[name]
    names = names_for(recipe)
    for told in variations(recipe):
        if told.get("optimizer") == "cma" and find_spec("cma") is None:
            continue  # an optional package
        passes.clear()
        parameters = recipe.check(told)
        soup = recipe.follow(sweep, evaluator, names, **told)
        assert soup.recipe == name
        assert soup.parameters.items() >= parameters.items()
        assert set(soup.ingredients) <= set(names)
        assert (soup.base == "base") is recipe.needs_base
        assert math.isfinite(soup.evaluate(evaluator, ["val"]).evaluations["val"].loss)
        splits = sum(passes) / 100  # the split has 100 examples
        most = len(names) * recipe.ranks + recipe.trials(len(names), parameters)
        assert splits <= (most + 2 if recipe.chooses else 1)  # the soup itself, and its start


@ALL
def test_following_a_recipe_calls_its_function(
    sweep: Sweep, evaluator: Evaluator, name: str
) -> None:
    recipe = RECIPES[name]
    followed = recipe.follow(sweep, evaluator, ["run1", "run10"])
    arguments = (sweep, evaluator) if recipe.chooses else (sweep,)
    assert followed.id == getattr(soupcore, name)(*arguments, names=["run1", "run10"]).id


@ALL
def test_without_an_evaluator_a_recipe_is_followed_unless_it_chooses(
    sweep: Sweep, evaluator: Evaluator, name: str
) -> None:
    recipe = RECIPES[name]
    if recipe.chooses:
        with pytest.raises(RecipeError, match=f"{recipe.title} chooses by evaluations"):
            recipe.follow(sweep, None, ["run1", "run10"])
        return
    soup = recipe.follow(sweep, None, ["run1", "run10"])
    assert soup.id == recipe.follow(sweep, evaluator, ["run1", "run10"]).id


@ALL
def test_a_recipe_names_missing_requirements(
    sweep: Sweep, evaluator: Evaluator, table: MakeTable, name: str
) -> None:
    recipe = RECIPES[name]
    if recipe.needs_base:
        without, judge = table("abc", lambda parts: 50.0)
        with pytest.raises(RecipeError, match=r"needs a base checkpoint .* Add base\.safetensors"):
            recipe.follow(without, judge, ["a", "b"])
        assert evaluated(judge) == []
    with pytest.raises(RecipeError, match=r"needs (at least 1|exactly 2) ingredients?; got 0"):
        recipe.follow(sweep, evaluator, [])
    with pytest.raises(RecipeError, match="has no parameter 'magic'; available:"):
        recipe.follow(sweep, evaluator, magic=1)
    if recipe.takes[1] is not None:
        with pytest.raises(RecipeError, match="needs exactly 2 ingredients; got 3"):
            recipe.follow(sweep, evaluator)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.chooses])
def test_a_recipe_chooses_on_select_only(sweep: Sweep, evaluator: Evaluator, name: str) -> None:
    with pytest.raises(RecipeError, match=r"only choose on 'val'; .* has role 'report'"):
        getattr(soupcore, name)(sweep, evaluator, split="test")


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        (Choice("x", "Label", "Help.", choices=("a", "b")), ["a", "b"], ["c", None, 1]),
        (
            Number("x", "Label", "Help.", 0, 1, 0.1),
            [0, 0.5, 1, 1e-9],
            [-0.1, 1.1, math.nan, math.inf, "0.5", True, None],
        ),
        (
            Number("x", "Label", "Help.", 0, 10, 1, is_whole=True),
            [0, 10],
            [-1, 11, 0.5, 2.0, False],
        ),
        (Switch("x", "Label", "Help."), [True, False], [1, "yes", None]),
        (Text("x", "Label", "Help."), ["", "head."], [None, 1]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Parameter) else "",
)
def test_a_parameter_is_checked(parameter: Parameter, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        parameter.check(value)
    for value in bad:
        with pytest.raises(RecipeError, match=r"Label \(x\) must be"):
            parameter.check(value)


def test_omitted_parameters_have_their_defaults() -> None:
    for recipe in RECIPES.values():
        defaults = {parameter.name: parameter.default for parameter in recipe.parameters}
        assert recipe.check({}) == defaults
        for parameter, value in itertools.chain.from_iterable(
            ((p, v) for v in alternatives(p)) for p in recipe.parameters
        ):
            assert recipe.check({parameter.name: value}) == defaults | {parameter.name: value}
