"""Recipes in which only some tensors take part, and recipes with a base that fits in part."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import soupcore
from soupcore import Soup, Sweep, SweepError, model_card, rebuild
from soupcore.calls import Context, ParameterCurve, RecipeSoup
from soupcore.recipes import RECIPES
from soupcore.sweeps import TensorRule
from tests.helpers import State, average, save_checked, save_sweep
from tests.recipes.states import fine_tuned

SHAPES = {
    "embed.weight": (11, 3),
    "block.weight": (9, 5),
    "block.bias": (5,),
    "head.weight": (4, 5),
}
HEAD = "head.weight"
NAMES = ["run1", "run2", "run3"]
NEED_BASE = [name for name, recipe in RECIPES.items() if recipe.needs_base]
WITHOUT_EVALUATIONS = ["uniform", "swa", "ema", *NEED_BASE]


def states_of(seed: int = 5) -> dict[str, State]:
    base, states = fine_tuned(seed, 3, shapes=SHAPES)
    return {"base": base} | states


def opened(folder: Path, states: dict[str, State]) -> Sweep:
    return Sweep.from_folder(save_sweep(folder, states))


@pytest.fixture(params=["other classes", "no head"])
def partly(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Sweep, dict[str, State]]:
    """A sweep whose base has 80 classes and the runs 4, or that has no head at all."""
    states = states_of()
    if request.param == "no head":
        del states["base"][HEAD]
    else:
        states["base"][HEAD] = torch.ones(80, 5)
        states["base"]["old.bias"] = torch.ones(2)
    return opened(tmp_path / "sweep", states), states


def by_recipe(recipe: str, sweep: Sweep) -> Soup:
    return RECIPES[recipe].function(sweep)


def assert_close(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if tensor.is_floating_point():  # a counter is a copy from the first by digest
            torch.testing.assert_close(found[name], tensor, rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("recipe", NEED_BASE)
@pytest.mark.parametrize("rest", [(), ("run2",)])
def test_recipes_merge_tensors_of_the_base_and_take_the_head_by_the_rule(
    partly: tuple[Sweep, dict[str, State]], recipe: str, rest: tuple[str, ...]
) -> None:
    sweep, states = partly
    soup = by_recipe(recipe, sweep.with_tensors(rest=rest))
    found = soup.state_dict()
    head = found.pop(HEAD)
    mean = average([states[name] for name in rest or NAMES])[HEAD]
    assert torch.equal(head, mean)
    without_heads = {
        name: {n: t for n, t in state.items() if n not in (HEAD, "old.bias")}
        for name, state in states.items()
    }
    whole = opened(sweep.folder.parent / "headless", without_heads)
    wanted = by_recipe(recipe, whole).state_dict()
    # DARE draws its masks by the digest of an ingredient, which covers its head.
    if recipe != "dare":
        assert_close(found, wanted)
    assert soup.ingredients == NAMES
    assert soup.base == "base"


def test_the_base_is_a_point_with_the_mean_of_the_heads(
    partly: tuple[Sweep, dict[str, State]],
) -> None:
    sweep, states = partly
    assert sweep.base is not None
    mean = average([states[name] for name in NAMES])
    shared = {n: t for n, t in states["base"].items() if n not in (HEAD, "old.bias")}
    assert_close(sweep.base.mixture.state_dict(), shared | {HEAD: mean[HEAD]})
    assert sweep.new_tensors == {HEAD}
    (note,) = (f for f in sweep.fit.findings if f.tensor == HEAD)
    assert (note.severity, note.ingredient) == ("note", "base")
    assert "fits in part" in note.problem
    assert HEAD in note.problem
    assert not sweep.fit.misfits


def test_averages_of_ingredients_are_as_without_a_base(
    partly: tuple[Sweep, dict[str, State]],
) -> None:
    sweep, states = partly
    soup = soupcore.uniform(sweep)
    assert not soup.fixed
    assert_close(soup.state_dict(), average([states[name] for name in NAMES]))


@pytest.mark.parametrize("recipe", WITHOUT_EVALUATIONS)
@pytest.mark.parametrize("rest", ["run3", "base"])
def test_fixed_tensors_are_copied_unchanged(tmp_path: Path, recipe: str, rest: str) -> None:
    states = states_of()
    sweep = opened(tmp_path / "sweep", states)
    whole = by_recipe(recipe, sweep)
    soup = by_recipe(recipe, sweep.with_tensors("all but the head", rest=rest))
    found = soup.state_dict()
    assert torch.equal(found[HEAD], states[rest][HEAD])
    if recipe in ("uniform", "swa", "ema", "wise_ft", "task_arithmetic", "model_stock"):
        assert_close({**found, HEAD: whole.state_dict()[HEAD]}, whole.state_dict())
    assert soup.id != whole.id
    assert rest in soup.sources


def test_tensors_that_take_no_part_are_no_entries_of_task_vectors(tmp_path: Path) -> None:
    """TIES trims over the whole vector; a head that takes no part must not count."""
    states = states_of()
    states["run1"][HEAD] = states["run1"][HEAD] + 100
    headless = {
        name: {n: t for n, t in state.items() if n != HEAD} for name, state in states.items()
    }
    soup = soupcore.ties(opened(tmp_path / "a", states).with_tensors("!head", rest="run1"))
    found = soup.state_dict()
    assert torch.equal(found.pop(HEAD), states["run1"][HEAD])
    assert_close(found, soupcore.ties(opened(tmp_path / "b", headless)).state_dict())


def test_greedy_chooses_among_ingredients_with_the_same_head(
    tmp_path: Path, task: soupcore.ClassificationTask, states: dict[str, State]
) -> None:
    sweep = opened(tmp_path / "toy", states).with_tensors("all but the head", rest="run2")
    store = soupcore.Store(tmp_path / "store")
    evaluator = soupcore.Evaluator(task, store, device="cpu")
    for soup in (
        soupcore.greedy(sweep, evaluator),
        soupcore.learned(sweep, evaluator, passes=2),
        soupcore.learned(sweep, evaluator, passes=1, per="layer"),
    ):
        found = soup.state_dict()
        assert torch.equal(found["3.weight"], states["run2"]["3.weight"])
        assert torch.equal(found["3.bias"], states["run2"]["3.bias"])
        # The same as a plain evaluation of the state dict.
        patched = tmp_path / soup.id
        save_sweep(patched, {"soup": found})
        plain = Sweep.from_folder(patched)["soup"].mixture
        assert evaluator.evaluate(plain, "val").score == soup.evaluations["val"].score
    parts = soupcore.Parts(sweep, soup)
    for names in (soup.ingredients[:1], soup.ingredients):
        assert torch.equal(parts.of(names).tensor("3.weight"), states["run2"]["3.weight"])
    store.close()


@pytest.mark.parametrize("recipe", ["uniform", "ties", "model_stock", "task_arithmetic"])
def test_the_manifest_makes_the_same_weights_again(
    partly: tuple[Sweep, dict[str, State]], recipe: str, tmp_path: Path
) -> None:
    sweep, states = partly
    soup = RECIPES[recipe].function(sweep.with_tensors("!embed.", rest="run3"), ["run1", "run2"])
    assert soup.donors == ("run3",)
    body: dict[str, Any] = json.loads(json.dumps(soup.to_json()))
    assert body["rule"] == {"take": "!embed.", "rest": ["run3"]}
    again = rebuild(body, sweep.folder)
    assert (again.id, again.ingredients, again.donors) == (soup.id, soup.ingredients, soup.donors)
    assert Soup.from_json(sweep, body).id == soup.id
    (path,) = save_checked(soup, tmp_path / "one.safetensors")
    (other,) = save_checked(again, tmp_path / "two.safetensors")
    assert path.read_bytes() == other.read_bytes()
    written = load_file(path)
    assert torch.equal(written["embed.weight"], states["run3"]["embed.weight"])
    card = model_card(soup)
    assert "run3" in card
    assert "!embed." in card


def test_a_soup_with_fixed_tensors_is_an_ingredient_of_another(
    partly: tuple[Sweep, dict[str, State]],
) -> None:
    sweep, states = partly
    first = soupcore.wise_ft(sweep, ["run1", "run2"])
    both = soupcore.uniform(sweep.including({"first": first.checkpoint}), ["first", "run3"])
    expected = (first.state_dict()[HEAD].double() + states["run3"][HEAD].double()) / 2
    torch.testing.assert_close(both.state_dict()[HEAD].double(), expected, rtol=1e-6, atol=1e-7)
    assert rebuild(both.to_json(), sweep.folder).id == both.id


def test_a_manual_soup_keeps_to_the_rule(partly: tuple[Sweep, dict[str, State]]) -> None:
    sweep, states = partly
    soup = soupcore.manual(sweep, {"base": Fraction(3, 4), "run1": Fraction(1, 4)})
    assert torch.equal(soup.state_dict()[HEAD], states["run1"][HEAD])
    alone = soupcore.manual(sweep, {"base": 1}).state_dict()
    assert torch.equal(alone[HEAD], average([states[name] for name in NAMES])[HEAD])


@pytest.mark.parametrize(
    ("take", "message"),
    [
        ("!embed., !block., !head., !counter", "no tensor would take part"),
        ("bakbone.*", "No tensor matches 'bakbone.\\*'.*names begin with: block, counter, embed"),
        (" , ", "is empty"),
    ],
)
def test_unusable_rules_are_refused(tmp_path: Path, take: str, message: str) -> None:
    sweep = opened(tmp_path / "sweep", states_of())
    with pytest.raises(SweepError, match=message):
        sweep.with_tensors(take)
    with pytest.raises(SweepError, match="has no usable ingredient 'run9'"):
        sweep.with_tensors(rest="run9")


def test_the_job_of_a_recipe_keeps_to_the_rule(
    tmp_path: Path, task: soupcore.ClassificationTask, states: dict[str, State]
) -> None:
    sweep = opened(tmp_path / "toy", states)
    store = soupcore.Store(tmp_path / "store")
    evaluator = soupcore.Evaluator(task, store, device="cpu")
    rule = sweep.with_tensors("all but the head", rest="run2")
    curve = ParameterCurve("slerp", "t", ("run1", "run2"), (0.5,), {})
    whole, part = Context(sweep, evaluator), Context(rule, evaluator)
    assert curve.key(whole) != curve.key(part)
    done = RecipeSoup("uniform", ("run1", "run10"), {}).work(part, lambda *told: None)
    found = Context(sweep, evaluator).soups[done["soup"]].soup
    assert torch.equal(found.state_dict()["3.weight"], states["run2"]["3.weight"])
    assert found.rule == TensorRule("all but the head", ("run2",))
    store.close()
