"""The recipes against what mergekit recorded (see `record_mergekit.py`)."""

import json
from collections.abc import Callable

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from soupcore import Soup, Sweep, dare, manual, model_stock, slerp, task_arithmetic, ties, uniform
from tests.helpers import State, held_sweep
from tests.recipes.record_mergekit import CASES, DTYPES, RECORDED, RUNS, SHAPES

Make = Callable[[Sweep], Soup]

TIES = {
    "ties": lambda sweep: ties(sweep, density=0.25, trim="tensor", tie="positive"),
    "ties-scaled": lambda sweep: ties(sweep, density=0.5, scale=1.5, trim="tensor", tie="positive"),
}
EXACT: dict[str, Make] = {
    "linear": uniform,
    "linear-weighted": lambda s: manual(s, {"run1": 0.5, "run2": 0.3, "run3": 0.2}),
    "task-arithmetic": lambda s: task_arithmetic(s, scale=0.3),
    "task-arithmetic-subtracted": lambda s: task_arithmetic(s, scale=0.4, operation="subtract"),
    "slerp": lambda s: slerp(s, ["run1", "run2"], t=0.3),
    "model-stock": lambda s: model_stock(s, similarity="cosine"),
    **TIES,
}
SEEDED: dict[str, Callable[[Sweep, int], Soup]] = {
    "dare-one-run": lambda s, seed: dare(s, ["run1"], drop=0.6, seed=seed),
    "dare-mean": lambda s, seed: dare(s, drop=0.6, seed=seed),
    "dare-sum": lambda s, seed: dare(s, drop=0.6, seed=seed, combine="sum"),
    "dare-ties": lambda s, seed: dare(s, drop=0.6, seed=seed, combine="ties"),
}


def recorded(name: str, dtype: str = "float32") -> State:
    return load_file(RECORDED / dtype / f"{name}.safetensors")


def recorded_sweep(dtype: str = "float32") -> Sweep:
    return held_sweep({name: recorded(name, dtype) for name in RUNS}, recorded("base", dtype))


def last_places(one: Tensor, other: Tensor) -> Tensor:
    """How many steps from one bfloat16 to the next lie between each two."""
    assert torch.equal(one.signbit(), other.signbit())
    return (one.view(torch.int16).int() - other.view(torch.int16).int()).abs()


def kept_by_chance(tensor: str, dtype: str, density: float) -> Tensor:
    """Entries as large as the smallest that a run keeps, where it has more of these than it may.

    mergekit keeps as many as make up the share, whichever; TIES here keeps them all.
    """
    base = recorded("base", dtype)[tensor].float().flatten()
    found = torch.zeros(len(base), dtype=torch.bool)
    k = max(1, int(density * len(base)))
    for name in RUNS:
        magnitudes = (recorded(name, dtype)[tensor].float().flatten() - base).abs()
        smallest = magnitudes.sort(descending=True).values[k - 1]
        if (magnitudes >= smallest).sum() > k:
            found |= magnitudes == smallest
    return found


def test_every_case_was_recorded_as_it_is_described() -> None:
    assert CASES.keys() == EXACT.keys() | SEEDED.keys()
    for dtype in DTYPES:
        for name, case in CASES.items():
            with safe_open(RECORDED / dtype / f"{name}.safetensors", "pt") as file:
                told = file.metadata()
                assert set(file.keys()) == SHAPES.keys()
            assert told["mergekit"] == "0.1.5"
            expected = case | {"dtype": "float32", "out_dtype": dtype}
            assert json.loads(told["configuration"]) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_recipes_agree_with_mergekit(name: str, dtype: str) -> None:
    found = EXACT[name](recorded_sweep(dtype)).state_dict()
    differing = 0
    for tensor, expected in recorded(name, dtype).items():
        ours, theirs = found[tensor].flatten(), expected.flatten()
        if name in TIES:
            density = CASES[name]["models"][0]["parameters"]["density"]
            by_chance = kept_by_chance(tensor, dtype, density)
            differing += int((ours != theirs)[by_chance].sum())
            ours, theirs = ours[~by_chance], theirs[~by_chance]
        if dtype == "float32":
            torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-7)
        else:
            assert last_places(ours, theirs).max() <= 1
    # In float32 no two magnitudes are equal. In bfloat16 each run has a few at its threshold.
    entries = sum(expected.numel() for expected in found.values())
    assert differing <= (0 if dtype == "float32" else 0.02 * entries)


def statistics(merged: State, dtype: str) -> Tensor:
    """Of the largest tensor: how many entries moved, how far, and how far along the mean's way.

    mergekit rescales to the norm there was and not by 1/(1 − p), which is the same but for chance.
    """
    base = recorded("base", dtype)["head"].float()
    mean = torch.stack([recorded(name, dtype)["head"] - base for name in RUNS]).mean(0)
    moved = merged["head"].float() - base
    along = (moved * mean).sum() / (mean * mean).sum()
    return torch.stack([(moved != 0).float().mean(), moved.abs().mean(), moved.mean(), along])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SEEDED)
def test_dare_is_mergekits_but_for_chance(name: str, dtype: str) -> None:
    sweep = recorded_sweep(dtype)
    soups = [SEEDED[name](sweep, seed) for seed in range(40)]
    ours = torch.stack([statistics(soup.state_dict(), dtype) for soup in soups])
    distance = (statistics(recorded(name, dtype), dtype) - ours.mean(0)) / ours.std(0)
    assert distance.abs().max() < 4


def test_entries_kept_by_dare_are_rescaled_as_by_mergekit() -> None:
    base, run = recorded("base")["head"], recorded("run1")["head"]
    for merged in (
        recorded("dare-one-run"),
        SEEDED["dare-one-run"](recorded_sweep(), 0).state_dict(),
    ):
        moved = merged["head"] - base
        far = (moved != 0) & ((run - base).abs() > 0.01)  # where rounding to float32 is small
        factors = moved[far] / (run - base)[far]
        assert factors.std() < 1e-4
        assert factors.mean() == pytest.approx(1 / 0.4, rel=0.08)
