import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import Finding, Sweep, uniform, wise_ft
from tests.helpers import State, average, save_checked, save_sweep

SHAPES = {"embed": (40, 16), "block": (16, 16), "norm": (16,), "head": (8, 16)}


def draw(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


BASE = draw(0)


def tuned(seed: int) -> State:
    step = draw(seed)
    return {name: tensor + 0.05 * step[name] for name, tensor in BASE.items()}


RUNS = {f"run-{seed}": tuned(seed) for seed in range(1, 6)}


def of(*seeds: int) -> State:
    return average([tuned(seed) for seed in seeds])


def in_steps(*seeds: int) -> State:
    """The mean as many tools make it: added up in the dtype of the weights, then divided."""
    total = {name: tensor.clone() for name, tensor in tuned(seeds[0]).items()}
    for seed in seeds[1:]:
        for name, tensor in tuned(seed).items():
            total[name] += tensor
    return {name: tensor / len(seeds) for name, tensor in total.items()}


def warnings(folder: Path) -> dict[str, str]:
    findings = Sweep.from_folder(folder).fit.findings
    assert all(finding.severity == "warning" and finding.way_out for finding in findings)
    return {finding.ingredient: finding.problem for finding in findings}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize(
    ("mean", "members"),
    [
        pytest.param(of(1, 2), "run-1 and run-2", id="two"),
        pytest.param(in_steps(1, 3, 5), "run-1, run-3, run-5", id="added up in steps"),
        pytest.param(in_steps(1, 2, 3, 4, 5), "run-1, run-2, run-3, …", id="all"),
        pytest.param(
            {n: 0.3 * t + 0.7 * tuned(4)[n] for n, t in tuned(2).items()},
            "run-2 and run-4",
            id="weighted",
        ),
        pytest.param(
            of(2, 3) | {"norm": draw(9)["norm"]}, "run-2 and run-3", id="statistics estimated anew"
        ),
    ],
)
def test_an_average_of_ingredients_is_detected_by_its_values(
    tmp_path: Path, mean: State, members: str, dtype: torch.dtype
) -> None:
    states = {
        name: {n: tensor.to(dtype) for n, tensor in state.items()}
        for name, state in (RUNS | {"a": mean}).items()
    }
    found = warnings(save_sweep(tmp_path / "sweep", states))
    assert found == {"a": f"is an average of {members}, which are in this sweep too"}


def test_several_averages_are_each_reported(tmp_path: Path) -> None:
    means = {"avg2": of(1, 2), "avg3": of(1, 2, 3)}
    assert warnings(save_sweep(tmp_path / "sweep", RUNS | means)).keys() == means.keys()


def test_an_average_with_the_base_is_reported(tmp_path: Path) -> None:
    halfway = average([BASE, tuned(1)])
    states = {"base": BASE, "run-1": tuned(1), "run-2": tuned(2), "wise": halfway}
    found = warnings(save_sweep(tmp_path / "sweep", states))
    assert found == {"wise": "is an average of run-1 and base, which are in this sweep too"}


@pytest.mark.parametrize(
    "states",
    [
        pytest.param(RUNS, id="runs"),
        pytest.param(RUNS | {"avg": of(6, 7)}, id="an average of runs that are not here"),
        pytest.param(
            RUNS | {"ema": {n: t + 1e-3 * draw(8)[n] for n, t in of(1, 2).items()}}, id="near one"
        ),
        pytest.param(
            RUNS | {"beyond": {n: 1.5 * t - 0.5 * tuned(2)[n] for n, t in tuned(1).items()}},
            id="beyond an end",
        ),
        pytest.param(
            {f"{i}": {"w": torch.tensor([float(i), 2.0 * i])} for i in range(5)}, id="a toy"
        ),
        pytest.param(
            {n: {k: t.bfloat16() for k, t in s.items()} for n, s in RUNS.items()}, id="bfloat16"
        ),
    ],
)
def test_ingredients_that_are_no_averages_are_not_reported(
    tmp_path: Path, states: dict[str, State]
) -> None:
    found = warnings(save_sweep(tmp_path / "sweep", states))
    if "beyond" in states:  # then it is the other end that lies between
        assert found == {"run-1": "is an average of beyond and run-2, which are in this sweep too"}
    else:
        assert found == {}


@pytest.mark.parametrize("extra", [True, False])
def test_a_soup_of_stockpot_is_detected_by_its_recipe(tmp_path: Path, extra: bool) -> None:
    folder = save_sweep(tmp_path / "sweep", RUNS)
    soup = uniform(Sweep.from_folder(folder), ["run-1", "run-2"])
    if not extra:
        folder = save_sweep(tmp_path / "other", {"run-8": tuned(8), "run-9": tuned(9)})
    save_checked(soup, folder / "soup.safetensors")
    members = " of run-1, run-2, which are in this sweep too" if extra else ""
    assert warnings(folder) == {"soup": f"is a soup saved by Stockpot (uniform){members}"}


def test_soups_that_are_no_averages_are_reported_too(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"base": BASE, "run-1": tuned(1)})
    wise_ft(Sweep.from_folder(folder), ["run-1"], alpha=1.5).save(folder / "soup.safetensors")
    assert warnings(folder)["soup"].startswith("is a soup saved by Stockpot (wise_ft) of run-1")


def test_a_recipe_beside_a_torch_file_is_read(tmp_path: Path) -> None:
    for name, state in RUNS.items():
        torch.save(state, tmp_path / f"{name}.pt")
    soup = uniform(Sweep.from_folder(tmp_path), ["run-1", "run-2"])
    save_checked(soup, tmp_path / "soup.pt")
    assert "soup saved by Stockpot (uniform)" in warnings(tmp_path)["soup"]


def damaged(path: Path) -> None:
    path.write_text("[" * 1000)


def of_another(path: Path) -> None:
    path.write_text('{"steps": ["flour", "water"]}')


def beyond_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize("write", [damaged, of_another, beyond_text])
def test_files_that_are_no_recipe_are_not_reported_as_soups(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    folder = save_sweep(tmp_path / "sweep", RUNS)
    write(folder / "run-1.recipe.json")
    metadata = {"stockpot": json.dumps(["no recipe"])}
    save_file(tuned(7), folder / "run-7.safetensors", metadata)
    findings: tuple[Finding, ...] = Sweep.from_folder(folder).fit.findings
    assert findings == ()
