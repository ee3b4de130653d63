import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from soupcore import (
    Cancelled,
    CheckpointError,
    ClassificationTask,
    Evaluator,
    Mixture,
    RecipeError,
    Soup,
    Sweep,
    greedy,
    manual,
    open_checkpoint,
    uniform,
)
from tests.helpers import State, average, logits, same_weights, save_sweep


def strict_json(text: str) -> Any:
    """Parse what any JSON parser would; Python's own takes NaN as well."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


# The file


def test_a_saved_soup_is_the_float64_mean_of_its_ingredients(
    tmp_path: Path, sweep: Sweep, states: dict[str, State], evaluator: Evaluator
) -> None:
    soup = greedy(sweep, evaluator)
    soup.save(tmp_path / "soup.safetensors")
    loaded = load_file(tmp_path / "soup.safetensors")
    assert same_weights(loaded, average([states[name] for name in soup.coefficients]))
    assert same_weights(loaded, soup.state_dict())


def test_a_saved_soup_scores_what_was_said(
    tmp_path: Path, sweep: Sweep, task: ClassificationTask, evaluator: Evaluator
) -> None:
    soup = uniform(sweep).evaluate(evaluator)
    soup.save(str(tmp_path / "soup.safetensors"))
    state = load_file(tmp_path / "soup.safetensors")
    for split in ("val", "test", "shift/noise"):
        data = task.split(split)
        right = (logits(state, data.inputs).argmax(1) == data.targets).double().mean()
        assert soup.evaluations[split].score == pytest.approx(float(right))


def test_a_soup_file_opens_as_a_checkpoint_of_the_same_weights(
    tmp_path: Path, sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = manual(sweep, {"run1": 1, "run10": 3})
    sha = soup.save(tmp_path / "soup.safetensors")
    content = (tmp_path / "soup.safetensors").read_bytes()
    assert sha == hashlib.sha256(content).hexdigest()
    assert stat.S_IMODE((tmp_path / "soup.safetensors").stat().st_mode) & 0o600 == 0o600
    again = Mixture([(open_checkpoint(tmp_path / "soup.safetensors"), 1)])
    mixed, saved = (evaluator.evaluate(point, "val") for point in (soup.mixture, again))
    assert torch.equal(mixed.outputs, saved.outputs)


def test_the_recipe_travels_in_the_metadata(
    tmp_path: Path, sweep: Sweep, task: ClassificationTask, evaluator: Evaluator
) -> None:
    soup = greedy(sweep, evaluator).evaluate(evaluator, ["test"])
    soup.save(tmp_path / "soup.safetensors")
    with safe_open(tmp_path / "soup.safetensors", framework="pt") as file:
        recipe = strict_json(file.metadata()["stockpot"])
    assert recipe == json.loads(json.dumps(soup.to_json()))
    assert recipe["recipe"] == "greedy"
    assert recipe["parameters"] == soup.parameters
    assert sum(map(Fraction, recipe["coefficients"].values())) == 1
    assert recipe["digests"] == {name: sweep[name].digest for name in soup.coefficients}
    assert [step["candidate"] for step in recipe["trace"]] == [s.candidate for s in soup.trace]
    assert set(recipe["scores"]) == {"val", "test"}
    assert recipe["scores"]["test"] == {
        "score": soup.evaluations["test"].score,
        "loss": soup.evaluations["test"].loss,
        "n": 90,
        "split_digest": task.split("test").digest,
    }
    assert recipe["task_key"] == task.key
    assert recipe["base"] is None
    assert set(recipe["versions"]) == {"stockpot", "python", "torch", "numpy"}


def test_metadata_of_the_ingredients_is_kept(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        tensor = torch.tensor([value])
        save_file({"w": tensor}, tmp_path / f"{name}.safetensors", {"format": "pt"})
    uniform(Sweep.from_folder(tmp_path)).save(tmp_path / "soup.safetensors")
    with safe_open(tmp_path / "soup.safetensors", framework="pt") as file:
        assert set(file.metadata()) == {"format", "stockpot"}
        assert file.metadata()["format"] == "pt"


def test_numbers_that_are_none_are_null_in_the_recipe(
    tmp_path: Path, sweep: Sweep, evaluator: Evaluator
) -> None:
    soup = uniform(sweep).evaluate(evaluator, ["val"])
    nan = float("nan")
    soup.evaluations["val"] = replace(soup.evaluations["val"], loss=nan, score=nan)
    soup.trace = (replace(greedy(sweep, evaluator).trace[0], score=nan),)
    soup.save(tmp_path / "soup.safetensors")
    with safe_open(tmp_path / "soup.safetensors", framework="pt") as file:
        recipe = strict_json(file.metadata()["stockpot"])
    assert (recipe["scores"]["val"]["score"], recipe["scores"]["val"]["loss"]) == (None, None)
    assert recipe["trace"][0]["score"] is None
    assert repr(Soup.from_json(sweep, recipe).trace[0].score) == "nan"


def test_bytes_written_are_told_and_a_stop_leaves_nothing(tmp_path: Path, sweep: Sweep) -> None:
    written: list[int] = []
    uniform(sweep).save(tmp_path / "soup.safetensors", written.append)
    assert sum(written) == sweep["run1"].checkpoint.nbytes

    def stop(nbytes: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        uniform(sweep).save(tmp_path / "other.safetensors", stop)
    assert [path.name for path in tmp_path.glob("*.*")] == ["soup.safetensors"]


def test_a_soup_of_a_file_changed_since_is_not_saved(tmp_path: Path, sweep: Sweep) -> None:
    soup = uniform(sweep)
    save_file({"w": torch.ones(1)}, sweep["run2"].checkpoint.path)
    with pytest.raises(CheckpointError, match=r"run2\.safetensors was changed"):
        soup.save(tmp_path / "soup.safetensors")
    assert not (tmp_path / "soup.safetensors").exists()


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [(torch.float16, 65504.0), (torch.float32, 3.4e38), (torch.float64, 8e307)],
    ids=str,
)
def test_a_soup_too_large_for_its_dtype_is_not_saved(
    tmp_path: Path, dtype: torch.dtype, largest: float
) -> None:
    states = {
        "a": {"w": torch.tensor([1.0, largest], dtype=dtype)},
        "b": {"w": torch.tensor([1.0, -largest], dtype=dtype)},
    }
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    uniform(sweep).save(tmp_path / "fine.safetensors")
    with pytest.raises(CheckpointError, match=r"'w' .*too large"):
        manual(sweep, {"a": 3, "b": -2}).save(tmp_path / "soup.safetensors")
    assert not (tmp_path / "soup.safetensors").exists()


# Its description


@pytest.mark.parametrize(
    "make",
    [
        lambda sweep, evaluator: uniform(sweep, ["run1", "run2"]),
        lambda sweep, evaluator: manual(sweep, {"run1": 3, "base": -1}),
        lambda sweep, evaluator: greedy(sweep, evaluator, accept=">"),
    ],
    ids=["uniform", "manual", "greedy"],
)
def test_a_soup_comes_back_from_its_json(
    sweep: Sweep, evaluator: Evaluator, make: Callable[[Sweep, Evaluator], Soup]
) -> None:
    soup = make(sweep, evaluator).evaluate(evaluator, ["val"])
    body = strict_json(json.dumps(soup.to_json()))
    again = Soup.from_json(Sweep.from_folder(sweep.folder), body)
    assert again.id == soup.id
    assert (again.recipe, again.parameters) == (soup.recipe, soup.parameters)
    assert list(again.coefficients.items()) == list(soup.coefficients.items())
    assert again.digests == soup.digests
    assert again.trace == soup.trace
    assert again.mixture == soup.mixture
    assert again.evaluations == {}


def test_a_description_of_other_weights_of_the_same_name_is_refused(sweep: Sweep) -> None:
    body = uniform(sweep, ["run1", "run2"]).to_json()
    changed = load_file(sweep["run2"].checkpoint.path)
    save_file({n: t + 1 for n, t in changed.items()}, sweep["run2"].checkpoint.path)
    with pytest.raises(RecipeError, match="'run2' has other weights now"):
        Soup.from_json(Sweep.from_folder(sweep.folder), body)


def test_the_id_is_that_of_the_weights_and_of_the_way(sweep: Sweep, evaluator: Evaluator) -> None:
    soups = [
        uniform(sweep),
        uniform(sweep, ["run1", "run2"]),
        manual(sweep, {"run1": 1, "run2": 1}),
        manual(sweep, {"run1": 1, "run2": 2}),
        greedy(sweep, evaluator),
        greedy(sweep, evaluator, accept=">"),
        greedy(sweep, evaluator, ["run1"]),
    ]
    assert len({soup.id for soup in soups}) == len(soups)
    assert uniform(sweep).id == soups[0].id == uniform(sweep).evaluate(evaluator).id
    assert manual(sweep, {"run2": 5, "run1": 5}).id == soups[2].id
    assert all(len(soup.id) == 16 and int(soup.id, 16) >= 0 for soup in soups)


# Its evaluations


def test_a_soup_is_evaluated_on_what_is_reported_unless_told(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    assert list(uniform(sweep).evaluate(evaluator).evaluations) == ["val", "test", "shift/noise"]
    assert list(uniform(sweep).evaluate(evaluator, ["test"]).evaluations) == ["test"]
    assert uniform(sweep).evaluate(evaluator, []).evaluations == {}


def test_evaluating_a_soup_tells_progress_up_to_the_end(sweep: Sweep, evaluator: Evaluator) -> None:
    reports: list[float] = []
    uniform(sweep).evaluate(evaluator, on_progress=lambda done, total: reports.append(done / total))
    assert reports == sorted(reports)
    assert reports[-1] == 1
