import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from soupcore import (
    RECIPES,
    ClassificationTask,
    Evaluator,
    RecipeError,
    Soup,
    Store,
    Sweep,
    SweepError,
    manual,
    rebuild,
    uniform,
)
from soupcore.calls import Attribution, Context
from soupcore.calls.connectivity import point_of
from soupcore.jobs.kinds import KINDS, WarmState
from soupcore.stored_soups import StoredSoups
from tests.helpers import same_weights

Asked = tuple[WarmState, dict[str, str]]
Build = Callable[..., str]

NAME = "uniform 0123"


@pytest.fixture
def asked(sweep: Sweep, store: Store, task: ClassificationTask) -> Asked:
    """Jobs on the toy sweep, judged by the toy task."""

    class Warm(WarmState):
        def evaluator(self, request: Mapping[str, Any]) -> Evaluator:
            return Evaluator(task, store, device="cpu")

    return Warm(store, [], "cpu"), {"sweep": str(sweep.folder), "task": "toy"}


@pytest.fixture
def build(asked: Asked) -> Build:
    def make(recipe: str, names: list[str], soups: Mapping[str, str] | None = None) -> str:
        warm, request = asked
        few = {"passes": 2} if recipe == "learned" else {}
        told = {"recipe": recipe, "names": names, "parameters": few, "soups": soups or {}}
        made: str = KINDS["soup"](warm, request | told, quietly)["soup"]
        return made

    return make


def quietly(done: int, total: int, partial: object = None) -> None:
    assert 0 <= done <= total


def again(asked: Asked, soup_id: str) -> Soup:
    """Make a soup again as another process would."""
    warm, request = asked
    return StoredSoups(warm.store, Sweep.from_folder(request["sweep"]))[soup_id].soup


@pytest.mark.parametrize("inner", ["uniform", "greedy", "ties"])
def test_a_soup_with_a_soup_in_it_is_that_of_the_library(
    asked: Asked, build: Build, sweep: Sweep, inner: str
) -> None:
    first = build(inner, ["run1", "run2"])
    made = again(asked, build("uniform", ["run10", NAME], {NAME: first}))
    more = sweep.including({NAME: again(asked, first).checkpoint})
    expected = uniform(more, ["run10", NAME])
    assert made.mixture.key == expected.mixture.key
    assert made.coefficients == expected.coefficients
    assert same_weights(made.state_dict(), expected.state_dict())


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_accepts_a_soup_as_an_ingredient(
    asked: Asked, build: Build, recipe: str
) -> None:
    first = build("uniform", ["run1", "run2"])
    made = again(asked, build(recipe, ["run10", NAME], {NAME: first}))
    assert NAME in made.digests or NAME in [step.candidate for step in made.trace]
    warm, request = asked
    assert warm.evaluator(request).missing([made.mixture], "test") == []


def test_a_soup_alone_was_evaluated_as_a_soup(
    asked: Asked, build: Build, passes: list[int]
) -> None:
    first = build("uniform", ["run1", "run2"])
    warm, request = asked
    sweep = warm.context(request | {"soups": {NAME: first}}).sweep
    before = len(passes)
    found = warm.evaluator(request).evaluate(sweep[NAME].mixture, "val")
    assert len(passes) == before
    assert found.score == again(asked, first).recorded["scores"]["val"]["score"]


def test_soups_of_soups_of_soups_are_ends_and_ingredients_and_files(
    asked: Asked, build: Build, tmp_path: Path
) -> None:
    warm, request = asked
    first = build("uniform", ["run1", "run2"])
    second = build("uniform", [NAME, "run10"], {NAME: first})
    third = build("uniform", ["one", "two"], {"one": first, "two": second})
    sweep, end = warm.sweep(request), {"soup": third}
    assert point_of(warm.context(request), end) == again(asked, third).mixture
    plane: dict[str, Any] = request | {"corners": ["base", "run1", end], "split": "val", "size": 3}
    assert KINDS["plane"](warm, plane, quietly) == {"points": 9}
    written = KINDS["weights"](warm, request | {"soup": third, "form": {}}, quietly)
    (name,) = written["files"]
    (file,) = (warm.store.folder / "soups").rglob(name)
    with safe_open(file, "pt") as opened:
        manifest = json.loads(opened.metadata()["stockpot"])
    (copy,) = rebuild(manifest, sweep.folder).save(tmp_path / name)
    assert copy.read_bytes() == file.read_bytes()
    KINDS["attribution"](warm, request | {"soup": third, "split": "test"}, quietly)
    found = Attribution(third, "test").result(Context(sweep, warm.evaluator(request)))
    assert found is not None
    assert list(found["shapley"]) == ["one", "two"]


def test_manual_soups_contain_soups_and_get_scores_later(asked: Asked, build: Build) -> None:
    warm, request = asked
    first = build("uniform", ["run1", "run2"])
    told: dict[str, Any] = {"coefficients": {NAME: "3/4", "run10": "1/4"}, "soups": {NAME: first}}
    told |= {"splits": ["val"], "keep": True}
    made = KINDS["mixture"](warm, request | told, quietly)["soup"]
    assert (
        again(asked, made).coefficients
        == manual(warm.context(request | told).sweep, {NAME: 3, "run10": 1}).coefficients
    )
    assert KINDS["scores"](warm, request | {"soup": made}, quietly) == {"soup": made}
    other = KINDS["statistics"](warm, request | {"soup": made}, quietly)["soup"]
    assert other != made
    assert again(asked, made).mixture == again(asked, other).mixture


def test_soups_that_the_recipe_left_out_may_be_missing(
    asked: Asked, build: Build, sweep: Sweep
) -> None:
    store = asked[0].store
    first = build("uniform", ["run1", "run2"])
    soup = uniform(sweep, ["run10"])
    told = {"task": "toy", "offered": {NAME: first, "gone": "nowhere"}}
    store.add_soup(soup.id, str(sweep.folder), soup.to_json() | told)
    stored = StoredSoups(store, sweep)[soup.id]
    assert (dict(stored.soups), [*stored.offered]) == ({}, [NAME, "gone"])


def test_unusable_soups_are_refused_with_a_sentence(build: Build, sweep: Sweep) -> None:
    first = build("uniform", ["run1", "run2"])
    second = build("uniform", [NAME, "run10"], {NAME: first})
    with pytest.raises(RecipeError, match=r"'old' is a soup that cannot .* There is no"):
        build("uniform", ["run1", "old"], {"old": "nowhere"})
    with pytest.raises(SweepError, match="already has an ingredient 'run1'"):
        build("uniform", ["run1"], {"run1": first})
    (sweep.folder / "run2.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"'new' is a soup .* 'uniform 0123' is .* 'run2'"):
        build("uniform", ["run1", "new"], {"new": second})
