"""Attention masks: buffers with −inf, the same in every ingredient, that every recipe hands on."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from soupcore import ClassificationTask, Evaluator, Soup, Split, Store, Sweep, recipes, uniform
from tests.helpers import any_tensor, same_bits, same_weights, save_checked, save_sweep

MASK = torch.full((4, 4), -math.inf).triu(1)
NAMES = ["a", "b", "c"]


class Masked(nn.Module):
    """A layer of which the mask is part of what it says."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("mask", MASK.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.layer(inputs)[:, None, :] + self.mask
        return scores.softmax(-1)[:, -1]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    def near(seed: int, *shape: int) -> Tensor:
        return any_tensor(torch.float32, *shape) + 0.1 * any_tensor(
            torch.float32, *shape, seed=seed
        )

    states = {
        name: {"layer.weight": near(seed, 4, 4), "layer.bias": near(seed, 4), "mask": MASK}
        for seed, name in enumerate([*NAMES, "base"], start=1)
    }
    return Sweep.from_folder(save_sweep(tmp_path / "sweep", states))


def learned(sweep: Sweep, per: Literal["ingredient", "tensor"], memory_budget: int) -> Soup:
    task = ClassificationTask(
        Masked, {"select": Split("select", any_tensor(torch.float32, 32, 4), torch.arange(32) % 4)}
    )
    return recipes.learned(
        sweep, Evaluator(task, Store()), per=per, memory_budget=memory_budget, passes=3
    )


MAKE: dict[str, Callable[[Sweep], Soup]] = {
    "uniform": recipes.uniform,
    "task arithmetic": recipes.task_arithmetic,
    "ties": recipes.ties,
    "ties, by tensor": partial(recipes.ties, trim="tensor"),
    "ties, by count": partial(recipes.ties, vote="count"),
    "dare": recipes.dare,
    "dare, ties": partial(recipes.dare, combine="ties"),
    "model stock": recipes.model_stock,
    "slerp": partial(recipes.slerp, names=["a", "b"]),
    "slerp, whole": partial(recipes.slerp, names=["a", "b"], whole=True),
    "learned": partial(learned, per="ingredient", memory_budget=1 << 20),
    "learned, by tensor": partial(learned, per="tensor", memory_budget=0),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_a_mask_is_copied_unchanged(
    sweep: Sweep, tmp_path: Path, make: Callable[[Sweep], Soup]
) -> None:
    soup = make(sweep)
    save_checked(soup, tmp_path / "soup.safetensors")
    found = load_file(tmp_path / "soup.safetensors")
    assert same_bits(found["mask"], MASK)
    assert all(found[name].isfinite().all() for name in ("layer.weight", "layer.bias"))
    assert same_weights(soup.state_dict(), found)


@pytest.mark.parametrize("make", [recipes.ties, recipes.dare, recipes.model_stock])
def test_a_mask_goes_through_a_soup_of_soups(
    sweep: Sweep, tmp_path: Path, make: Callable[[Sweep], Soup]
) -> None:
    merged = make(sweep).mixture
    both = (merged + uniform(sweep).mixture) * 0.5
    assert same_bits(both.tensor("mask"), MASK)
    assert both.tensor("layer.bias").isfinite().all()


def test_a_mask_takes_no_part_in_which_entries_are_kept(sweep: Sweep, tmp_path: Path) -> None:
    """An entry that no ingredient changed is an entry with a difference of 0."""
    finite = {
        name: load_file(tmp_path / "sweep" / f"{name}.safetensors") | {"mask": torch.zeros(4, 4)}
        for name in [*NAMES, "base"]
    }
    other = Sweep.from_folder(save_sweep(tmp_path / "finite", finite))
    one, two = (recipes.ties(s, density=0.3).state_dict() for s in (sweep, other))
    del one["mask"], two["mask"]
    assert same_weights(one, two)
