import inspect
import itertools

import pytest

import soupcore
from soupcore import RECIPES, Sweep
from soupcore.recipes.spec import no_step
from tests.recipes.table import MakeTable, evaluated

ALL = pytest.mark.parametrize("name", RECIPES)


@ALL
def test_a_recipe_is_listed_under_its_name_and_described(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert name.isidentifier()
    assert recipe.title
    assert recipe.summary.endswith(".")
    assert recipe.paper
    assert [parameter.name for parameter in recipe.parameters] == list(
        dict.fromkeys(parameter.name for parameter in recipe.parameters)
    )
    for parameter in recipe.parameters:
        assert parameter.label
        assert parameter.help
        assert len(set(parameter.choices)) == len(parameter.choices) >= 1


@ALL
def test_the_first_choice_of_a_parameter_is_the_default_of_the_function(name: str) -> None:
    function = inspect.signature(getattr(soupcore, name))
    for parameter in RECIPES[name].parameters:
        assert function.parameters[parameter.name].default == parameter.choices[0]


@ALL
@pytest.mark.parametrize("letters", ["a", "ab", "abcd"])
def test_a_recipe_can_be_followed_with_every_choice_within_the_trials_it_tells(
    table: MakeTable, name: str, letters: str
) -> None:
    recipe = RECIPES[name]
    for choice in itertools.product(*(parameter.choices for parameter in recipe.parameters)):
        chosen = {p.name: value for p, value in zip(recipe.parameters, choice, strict=True)}
        sweep, evaluator = table(letters, lambda parts: 50.0 + len(parts))
        soup = recipe.follow(
            sweep,
            evaluator,
            list(letters),
            on_progress=lambda done, total: None,
            on_step=no_step,
            **chosen,
        )
        assert soup.recipe == name
        assert soup.parameters.items() >= chosen.items()
        assert sum(soup.coefficients.values()) == 1
        assert set(soup.coefficients) <= set(letters)
        alone = {parts for parts in evaluated(evaluator) if len(parts) == 1}
        trials = [parts for parts in evaluated(evaluator) if len(parts) > 1]
        assert len(trials) <= recipe.trials(len(letters))
        assert bool(alone) <= recipe.chooses


@ALL
def test_a_recipe_followed_is_the_function_called(
    sweep: Sweep, evaluator: soupcore.Evaluator, name: str
) -> None:
    followed = RECIPES[name].follow(
        sweep,
        evaluator,
        ["run1", "run10"],
        on_progress=lambda done, total: None,
        on_step=no_step,
    )
    arguments = (sweep, evaluator) if RECIPES[name].chooses else (sweep,)
    assert followed.id == getattr(soupcore, name)(*arguments, names=["run1", "run10"]).id
