import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from soupcore import (
    Evaluator,
    Soup,
    Sweep,
    dare,
    greedy,
    learned,
    manual,
    mergekit_config,
    model_stock,
    rebuild,
    slerp,
    task_arithmetic,
    ties,
    uniform,
    wise_ft,
)
from tests.helpers import State, save_checked, save_sweep

FILES = [f"{name}.safetensors" for name in ("run1", "run2", "run10")]


def scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text  # a bare word


def parsed(text: str) -> dict[str, Any]:
    """Read the little YAML that is written: keys, one list, values that are JSON or words."""
    root: dict[str, Any] = {}
    branches: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        entry = line.strip()
        if entry.startswith("- "):
            entry, indent = entry[2:], indent + 2
            model: dict[str, Any] = {}
            root["models"].append(model)
            branches = [(-1, root), (indent - 1, model)]
        while branches[-1][0] >= indent:
            branches.pop()
        key, _, value = entry.partition(":")
        if value:
            branches[-1][1][key] = scalar(value.strip())
        elif key == "models":
            root["models"] = []
        else:
            branches[-1][1][key] = {}
            branches.append((indent, branches[-1][1][key]))
    return root


def config(soup: Soup) -> dict[str, Any]:
    text = mergekit_config(soup)
    assert text is not None
    return parsed(text)


def models(*parameters: dict[str, float]) -> list[dict[str, Any]]:
    given = parameters * 3 if len(parameters) == 1 else parameters
    return [{"model": file, "parameters": own} for file, own in zip(FILES, given, strict=True)]


def test_linear_soups_have_a_linear_mergekit_configuration(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    assert config(uniform(sweep)) == {
        "merge_method": "linear",
        "models": models({"weight": 1 / 3}),
        "parameters": {"normalize": False},
        "dtype": "float32",
        "out_dtype": "float32",
    }
    both = config(manual(sweep, {"run1": 3, "base": -1}))
    assert both["models"] == [
        {"model": "run1.safetensors", "parameters": {"weight": 1.5}},
        {"model": "base.safetensors", "parameters": {"weight": -0.5}},
    ]
    for soup in (greedy(sweep, evaluator), wise_ft(sweep), learned(sweep, evaluator, passes=1)):
        assert config(soup)["merge_method"] == "linear"


def test_recipes_with_a_mergekit_method_have_its_configuration(sweep: Sweep) -> None:
    base = {"base_model": "base.safetensors", "dtype": "float32", "out_dtype": "float32"}
    assert config(task_arithmetic(sweep, scale=0.4, operation="subtract")) == base | {
        "merge_method": "task_arithmetic",
        "models": models({"weight": -0.4}),
        "parameters": {"normalize": False},
    }
    assert config(ties(sweep, density=0.3, scale=1.5)) == base | {
        "merge_method": "ties",
        "models": models({"weight": 1, "density": 0.3}),
        "parameters": {"normalize": True, "lambda": 1.5},
    }
    assert config(dare(sweep, drop=0.9)) == base | {
        "merge_method": "dare_linear",
        "models": models({"weight": 1, "density": 0.1}),
        "parameters": {"normalize": True, "lambda": 1},
    }
    assert config(dare(sweep, combine="sum"))["parameters"]["normalize"] is False
    assert config(dare(sweep, combine="ties"))["merge_method"] == "dare_ties"
    assert config(model_stock(sweep)) == base | {
        "merge_method": "model_stock",
        "models": [{"model": file} for file in FILES],
    }
    assert config(slerp(sweep, ["run1", "run10"], t=0.25)) == {
        "merge_method": "slerp",
        "base_model": "run1.safetensors",
        "models": [{"model": FILES[0]}, {"model": FILES[2]}],
        "parameters": {"t": 0.25},
        "dtype": "float32",
        "out_dtype": "float32",
    }


@pytest.mark.parametrize("scale", [0, 0.5])
def test_task_arithmetic_names_its_base_and_its_models_whatever_their_coefficients(
    sweep: Sweep, scale: float
) -> None:
    found = config(task_arithmetic(sweep, ["run1", "run2"], scale=scale))
    assert found["base_model"] == "base.safetensors"
    assert found["models"] == [
        {"model": file, "parameters": {"weight": scale}} for file in FILES[:2]
    ]


@pytest.mark.parametrize("t", [0, 1])
def test_configurations_of_slerp_ends_name_both_models(sweep: Sweep, t: int) -> None:
    found = config(slerp(sweep, ["run1", "run10"], t=t))
    assert found["models"] == [{"model": FILES[0]}, {"model": FILES[2]}]
    assert (found["base_model"], found["parameters"]) == (FILES[0], {"t": t})


def test_model_stock_that_stays_at_its_base_names_its_models(tmp_path: Path) -> None:
    opposite = {
        name: {"w": torch.full((2,), float(value))}
        for name, value in (("base", 0), ("a", 1), ("b", -1))
    }
    found = config(model_stock(Sweep.from_folder(save_sweep(tmp_path / "sweep", opposite))))
    assert [model["model"] for model in found["models"]] == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    ("alpha", "files"), [(0, ["base.safetensors"]), (1, FILES)], ids=["base", "mean"]
)
def test_linear_configurations_name_only_required_models(
    sweep: Sweep, alpha: int, files: list[str]
) -> None:
    assert [model["model"] for model in config(wise_ft(sweep, alpha=alpha))["models"]] == files


def test_files_in_folders_of_their_own_are_named_with_these(
    tmp_path: Path, states: dict[str, State], base_state: State
) -> None:
    places = {"run1": "run1", "run2": "run2/checkpoint-500", "base": "base/weights"}
    for name, place in places.items():
        (tmp_path / place).mkdir(parents=True)
        save_file((states | {"base": base_state})[name], tmp_path / place / "model.safetensors")
    soup = task_arithmetic(Sweep.from_folder(tmp_path))
    found = config(soup)
    assert [found["base_model"], *(model["model"] for model in found["models"])] == [
        f"{places[name]}/model.safetensors" for name in ("base", "run1", "run2")
    ]
    again = rebuild(soup.to_json(), tmp_path)
    assert mergekit_config(again) == mergekit_config(soup)
    elsewhere = Soup.from_json(Sweep.from_folder(tmp_path), soup.to_json())
    assert mergekit_config(elsewhere) == mergekit_config(soup)


def test_configurations_state_differences_from_mergekit(sweep: Sweep) -> None:
    for soup, words in (
        (ties(sweep), "this soup the whole vector"),
        (ties(sweep, vote="count"), "this soup by count"),
        (ties(sweep, trim="tensor"), "mergekit keeps exactly"),
        (dare(sweep), "drops other entries"),
        (model_stock(sweep), "this soup the mean angle"),
    ):
        assert words in str(mergekit_config(soup))
    assert "whole vector" not in str(mergekit_config(ties(sweep, trim="tensor")))


@pytest.mark.parametrize(
    "make",
    [
        lambda sweep, evaluator: wise_ft(sweep, keep="3."),
        lambda sweep, evaluator: learned(sweep, evaluator, per="layer", passes=1),
        lambda sweep, evaluator: slerp(sweep, ["run1", "run2"], whole=True),
        lambda sweep, evaluator: model_stock(sweep, ["run1"]),
        lambda sweep, evaluator: uniform(sweep.including({"soup": uniform(sweep).checkpoint})),
    ],
)
def test_soups_that_mergekit_cannot_make_have_no_configuration(
    sweep: Sweep, evaluator: Evaluator, make: Any
) -> None:
    assert mergekit_config(make(sweep, evaluator)) is None


def test_the_output_has_the_dtype_of_the_soup(tmp_path: Any, states: dict[str, State]) -> None:
    halves = {
        name: {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}
        for name, state in states.items()
    }
    sweep = Sweep.from_folder(save_sweep(tmp_path / "halves", halves))
    found = config(uniform(sweep))
    assert (found["dtype"], found["out_dtype"]) == ("float32", "bfloat16")
    assert torch.bfloat16 in {info.dtype for info in uniform(sweep).mixture.tensors.values()}


def test_checkpoints_in_shards_are_named_by_their_folders(
    tmp_path: Path, sweep: Sweep, states: dict[str, State]
) -> None:
    for name in states:
        folder = tmp_path / "shards" / name / "checkpoint-500"
        folder.mkdir(parents=True)
        save_checked(uniform(sweep, [name]), folder / "model.safetensors", shard_size=200)
    (tmp_path / "shards" / "run2" / "checkpoint-500" / "model.safetensors.index.json").unlink()
    soup = uniform(Sweep.from_folder(tmp_path / "shards"))
    found = config(soup)
    assert [model["model"] for model in found["models"]] == [f"{n}/checkpoint-500" for n in states]
    assert "mergekit-yaml this-file.yaml" in str(mergekit_config(soup))
    for name in states:
        save_checked(uniform(sweep, [name]), sweep.folder / f"{name}-s.safetensors", shard_size=200)
    together = Sweep.from_folder(sweep.folder)
    assert mergekit_config(uniform(together, ["run1-s", "run2-s"])) is None
