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
from soupcore import RECIPES, Evaluator, RecipeError, Soup, Sweep, SweepError, manual, rebuild
from tests.helpers import State, same_weights

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
    soup.save(first)
    again = rebuild(manifest_in(first), sweep.folder)
    again.save(second)
    assert sha256(first) == sha256(second)
    assert again.id == soup.id
    assert again.to_json() == soup.to_json()
    assert again.evaluations == {}


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


def test_what_is_missing_and_what_is_wrong_is_named(sweep: Sweep) -> None:
    soup = soupcore.ties(sweep)
    sweep["base"].checkpoint.path.unlink()
    sweep["run1"].checkpoint.path.write_bytes(b"not a checkpoint any more")
    save_file({"w": torch.ones(1)}, sweep["run2"].checkpoint.path)
    with pytest.raises(RecipeError) as caught:
        rebuild(soup.to_json(), sweep.folder)
    message = str(caught.value)
    assert f"base is missing (those needed have the digest {soup.digests['base'][:16]}" in message
    assert "run1 cannot be read" in message
    assert "run2 has other weights" in message
    assert "run10" not in message
    with pytest.raises(SweepError, match="is not a folder"):
        rebuild(soup.to_json(), sweep.folder / "nowhere")


@pytest.mark.parametrize("body", [{}, {"recipe": "uniform"}, [], None, "text"])
def test_what_is_no_manifest_is_refused(sweep: Sweep, body: Any) -> None:
    with pytest.raises(RecipeError, match="no manifest of a soup"):
        rebuild(body, sweep.folder)


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
    with pytest.raises(RecipeError, match=r"format 99, .* Take a newer version"):
        rebuild(body, sweep.folder)


def test_new_scores_join_those_recorded(sweep: Sweep, evaluator: Evaluator) -> None:
    body = soupcore.uniform(sweep).evaluate(evaluator, ["val"]).to_json()
    again = rebuild(body, sweep.folder).evaluate(evaluator, ["test"])
    assert set(again.to_json()["scores"]) == {"val", "test"}
    assert again.to_json()["task_key"] == evaluator.task.key
