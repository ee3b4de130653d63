import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import soupcore
from soupcore import (
    RECIPES,
    Evaluator,
    RecipeError,
    Soup,
    StockpotError,
    Sweep,
    SweepError,
    manual,
    rebuild,
)
from tests.helpers import State, same_weights, save_checked, save_sweep
from tests.toy import moved

pytestmark = pytest.mark.usefixtures("read_in_this_process")

EVERY: dict[str, Callable[[Sweep, Evaluator], Soup]] = {
    "by hand": lambda sweep, evaluator: manual(sweep, {"run1": 3, "base": -1}),
    "a kept head": lambda sweep, evaluator: soupcore.wise_ft(sweep, keep="3."),
    "learned by tensor": lambda sweep, evaluator: soupcore.learned(
        sweep, evaluator, per="tensor", passes=2
    ),
    "dare with ties": lambda sweep, evaluator: soupcore.dare(sweep, combine="ties", seed=5),
} | {
    name: lambda sweep, evaluator, recipe=recipe: recipe.follow(
        sweep, evaluator, sweep.names()[:2] if recipe.takes[1] else None
    )
    for name, recipe in RECIPES.items()
}


def manifest_in(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["stockpot"])
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_a_soup_is_made_again_from_its_file_to_the_byte(
    tmp_path: Path, sweep: Sweep, evaluator: Evaluator, make: Callable[[Sweep, Evaluator], Soup]
) -> None:
    soup = make(sweep, evaluator).evaluate(evaluator)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_checked(soup, first)
    again = rebuild(manifest_in(first), sweep.folder)
    save_checked(again, second)
    assert sha256(first) == sha256(second)
    assert again.id == soup.id
    assert again.to_json() == soup.to_json()
    assert again.evaluations == {}


def check_same_bytes(soup: Soup, folder: Path) -> None:
    first, second = folder / "first.safetensors", folder / "second.safetensors"
    save_checked(soup, first)
    rebuild(manifest_in(first), folder).save(second)
    assert sha256(first) == sha256(second)


def wrapped(state: State) -> State:
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("rest_is_there", [True, False])
@pytest.mark.parametrize(
    ("who", "make"),
    [
        (["run2"], soupcore.uniform),
        (["run2"], lambda sweep: soupcore.uniform(sweep, ["run2"])),
        (["run2"], lambda sweep: soupcore.slerp(sweep, ["run1", "run2"])),
        (["run2"], soupcore.ties),
        (["base"], lambda sweep: soupcore.slerp(sweep, ["run1", "run2"])),
        (["run1", "run2", "run10"], soupcore.uniform),
        (["run1", "run2", "run10"], soupcore.model_stock),
        (["run1", "run2", "run10"], lambda sweep: soupcore.wise_ft(sweep, keep="3.")),
    ],
)
def test_tensors_have_the_names_that_the_sweep_gave_them(
    tmp_path: Path,
    base_state: State,
    states: dict[str, State],
    who: list[str],
    make: Callable[[Sweep], Soup],
    rest_is_there: bool,
) -> None:
    all_of_them = {"base": base_state} | states
    for name in who:
        all_of_them[name] = wrapped(all_of_them[name])
    soup = make(Sweep.from_folder(save_sweep(tmp_path, all_of_them)))
    if not rest_is_there:
        for name in all_of_them.keys() - soup.digests.keys():
            (tmp_path / f"{name}.safetensors").unlink()
    check_same_bytes(soup, tmp_path)


def test_a_tensor_that_a_file_has_under_one_of_two_names_has_both_again(tmp_path: Path) -> None:
    tied = torch.ones(3)
    torch.save({"in": tied, "out": tied}, tmp_path / "base.pt")
    for name, value in (("a", 1.0), ("b", 2.0)):
        save_file({"in": torch.full((3,), value)}, tmp_path / f"{name}.safetensors")
    soup = soupcore.uniform(Sweep.from_folder(tmp_path))
    assert [*soup.state_dict()] == ["in", "out"]
    (tmp_path / "base.pt").unlink()
    check_same_bytes(soup, tmp_path)


@pytest.mark.parametrize(
    "weights", ["", "state_dict", "state_dict_ema", {"run1": "state_dict", "run2": ""}]
)
def test_a_rebuilt_soup_opens_the_chosen_weight_sets(
    tmp_path: Path, states: dict[str, State], weights: Any
) -> None:
    for name, state in states.items():
        saved = {"state_dict": state, "state_dict_ema": moved(state, 0.1, seed=9)}
        torch.save(saved, tmp_path / f"{name}.pt")
    soup = soupcore.uniform(Sweep.from_folder(tmp_path, weights=weights), ["run1", "run2"])
    check_same_bytes(soup, tmp_path)
    told = soup.to_json() | {"weight_sets": {}}
    assert rebuild(told, tmp_path).mixture == soup.mixture
    (tmp_path / "run1.pt").rename(tmp_path / "one.pt")
    assert rebuild(soup.to_json(), tmp_path).mixture == soup.mixture


@pytest.mark.parametrize("names", ["ca", "cb", "cba"])
def test_the_form_does_not_depend_on_the_order_of_ingredients(tmp_path: Path, names: str) -> None:
    for letter, dtype in (("a", torch.bfloat16), ("b", torch.float32), ("c", torch.float64)):
        state = {"w": torch.full((1,), float(ord(letter)), dtype=dtype)}
        save_file(state, tmp_path / f"{letter}.safetensors", {"author": letter})
    check_same_bytes(manual(Sweep.from_folder(tmp_path), dict.fromkeys(names, 1)), tmp_path)


def test_a_rebuilt_soup_keeps_files_with_the_same_weights_apart(tmp_path: Path) -> None:
    for name in "ab":
        save_file({"w": torch.ones(2)}, tmp_path / f"{name}.safetensors", {"author": name})
    check_same_bytes(soupcore.uniform(Sweep.from_folder(tmp_path)), tmp_path)


def soup_of_soups(sweep: Sweep, make: Callable[[Sweep], Soup]) -> Soup:
    two = sweep.including({"ties": soupcore.ties(sweep, ["run1", "run2"]).checkpoint})
    three = two.including({"mean": soupcore.uniform(two, ["ties", "run2"]).checkpoint})
    return make(three)


OF_SOUPS = pytest.mark.parametrize(
    "make",
    [
        lambda sweep: soupcore.uniform(sweep, ["run10", "mean"]),
        lambda sweep: soupcore.uniform(sweep, ["mean"]),
        lambda sweep: soupcore.dare(sweep, ["run2", "ties", "mean"]),
        lambda sweep: soupcore.slerp(sweep, ["run10", "mean"]),
    ],
)


@OF_SOUPS
@pytest.mark.parametrize("wrap", [False, True])
def test_a_soup_of_soups_is_made_again(
    tmp_path: Path,
    base_state: State,
    states: dict[str, State],
    make: Callable[[Sweep], Soup],
    wrap: bool,
) -> None:
    files = {"base": base_state} | states
    if wrap:
        files["run2"] = wrapped(files["run2"])
    soup = soup_of_soups(Sweep.from_folder(save_sweep(tmp_path, files)), make)
    check_same_bytes(soup, tmp_path)
    (tmp_path / "run2.safetensors").rename(tmp_path / "two.safetensors")
    assert rebuild(soup.to_json(), tmp_path).mixture == soup.mixture


@OF_SOUPS
def test_a_file_that_a_soup_in_a_soup_lacks_is_named(
    sweep: Sweep, make: Callable[[Sweep], Soup]
) -> None:
    soup = soup_of_soups(sweep, make)
    sweep["run1"].checkpoint.path.unlink()
    with pytest.raises(RecipeError, match=r"run1\.safetensors is missing [^;]*$"):
        rebuild(soup.to_json(), sweep.folder)


def test_files_of_the_same_name_in_folders_of_their_own_are_named_with_these(
    tmp_path: Path, states: dict[str, State]
) -> None:
    places = {name: tmp_path / name / f"checkpoint-{name[3:]}" for name in states}
    for name, state in states.items():
        places[name].mkdir(parents=True)
        save_file(state, places[name] / "model.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    two = sweep.including({"mean": soupcore.uniform(sweep, ["run1", "run2"]).checkpoint})
    soup = soupcore.uniform(two, ["run10", "mean"])
    assert rebuild(soup.to_json(), tmp_path).to_json() == soup.to_json()
    shutil.rmtree(places["run1"])
    save_file({"w": torch.ones(1)}, places["run2"] / "model.safetensors")
    with pytest.raises(RecipeError) as caught:
        rebuild(soup.to_json(), tmp_path)
    assert "run1/checkpoint-1/model.safetensors is missing" in str(caught.value)
    assert "run2/checkpoint-2/model.safetensors has other weights" in str(caught.value)


def test_a_manifest_has_no_file_outside_the_folder_opened(tmp_path: Path, sweep: Sweep) -> None:
    soup = soup_of_soups(sweep, lambda sweep: soupcore.uniform(sweep, ["mean"]))
    (tmp_path / "empty").mkdir()
    files = {d: f"../sweep/{name}" for d, name in soup.to_json()["soup_files"].items()}
    with pytest.raises(RecipeError, match=r"\.\./sweep/run1\.safetensors is missing"):
        rebuild(soup.to_json() | {"soup_files": files}, tmp_path / "empty")


def test_checkpoints_are_known_by_their_weights_whatever_they_are_called(
    tmp_path: Path, sweep: Sweep, states: dict[str, State]
) -> None:
    soup = soupcore.ties(sweep)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(sweep["base"].checkpoint.path, elsewhere / "initial.safetensors")
    torch.save(states["run1"], elsewhere / "one.pt")
    # Two have each other's names.
    save_file(states["run2"], elsewhere / "run10.safetensors")
    save_file(states["run10"], elsewhere / "run2.safetensors")
    save_file({"w": torch.ones(1)}, elsewhere / "other.safetensors")
    (elsewhere / "broken.safetensors").write_bytes(b"nothing")
    assert same_weights(rebuild(soup.to_json(), elsewhere).state_dict(), soup.state_dict())


def test_missing_and_changed_files_are_named(sweep: Sweep) -> None:
    soup = soupcore.ties(sweep)
    sweep["base"].checkpoint.path.unlink()
    sweep["run1"].checkpoint.path.write_bytes(b"not a checkpoint any more")
    save_file({"w": torch.ones(1)}, sweep["run2"].checkpoint.path)
    with pytest.raises(RecipeError) as caught:
        rebuild(soup.to_json(), sweep.folder)
    message = str(caught.value)
    assert f"base is missing (needed: SHA-256 {soup.digests['base'][:16]}" in message
    assert "run1 cannot be read" in message
    assert "run2 has other weights" in message
    assert "run10" not in message
    with pytest.raises(SweepError, match="is not a folder"):
        rebuild(soup.to_json(), sweep.folder / "nowhere")


@pytest.mark.parametrize("body", [{}, {"recipe": "uniform"}, [], None, "text"])
def test_files_that_are_no_manifest_are_refused(sweep: Sweep, body: Any) -> None:
    with pytest.raises(RecipeError, match="not a complete manifest of a soup"):
        rebuild(body, sweep.folder)


@pytest.mark.parametrize(
    "key", ["format", "recipe", "parameters", "coefficients", "merge", "base", "digests", "trace"]
)
@pytest.mark.parametrize("make", [soupcore.uniform, soupcore.ties])
def test_a_broken_manifest_is_refused_or_harmless(
    sweep: Sweep, make: Callable[[Sweep], Soup], key: str
) -> None:
    body = make(sweep).to_json()
    without = {k: v for k, v in body.items() if k != key}
    others: list[Any] = [None, {}, [], 1, "text"]
    for changed in (without, *(body | {key: other} for other in others)):
        try:
            soup = rebuild(changed, sweep.folder)
        except StockpotError:
            continue
        assert soup.mixture == make(sweep).mixture


@pytest.mark.parametrize(
    "changed",
    [
        {"format": None},
        {"digests": {}},
        {"coefficients": None},
        {"coefficients": {"run1": "1/0"}},
        {"merge": {"method": "grouped"}},
        {"merge": {"method": "ties", "base": "base", "ingredients": ["run1"], "density": "1/2"}},
        {"digests": {"run1": "d"}, "soups": {"d": {"method": "grouped", "groups": []}}},
    ],
)
def test_a_manifest_that_is_not_whole_is_refused(sweep: Sweep, changed: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="not a complete manifest of a soup"):
        rebuild(soupcore.uniform(sweep).to_json() | changed, sweep.folder)


def test_a_manifest_of_the_first_format_is_still_read(sweep: Sweep) -> None:
    body = {
        "format": 1,
        "recipe": "greedy",
        "parameters": {"accept": ">=", "split": "val"},
        "coefficients": {"run2": "1/2", "run1": "1/2"},
        "digests": {name: sweep[name].digest for name in ("run2", "run1")},
        "trace": [
            {
                "candidate": "run2",
                "score": None,
                "accepted": True,
                "soup": ["run2"],
                "gained": 0,
                "lost": 0,
            }
        ],
        "scores": {"val": {"score": 0.5, "loss": 1.0, "n": 100}},
    }
    soup = rebuild(body, sweep.folder)
    assert soup.mixture == soupcore.uniform(sweep, ["run1", "run2"]).mixture
    assert (soup.trace[0].candidate, soup.trace[0].action) == ("run2", "add")
    assert soup.to_json()["scores"] == body["scores"]


def test_a_manifest_of_a_later_version_is_refused(sweep: Sweep) -> None:
    body = soupcore.uniform(sweep).to_json() | {"format": 99}
    with pytest.raises(RecipeError, match=r"format 99, .* Use a newer version"):
        rebuild(body, sweep.folder)


def test_new_scores_join_those_recorded(sweep: Sweep, evaluator: Evaluator) -> None:
    body = soupcore.uniform(sweep).evaluate(evaluator, ["val"]).to_json()
    again = rebuild(body, sweep.folder).evaluate(evaluator, ["test"])
    assert set(again.to_json()["scores"]) == {"val", "test"}
    assert again.to_json()["task_key"] == evaluator.task.key
