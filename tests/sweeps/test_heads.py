from pathlib import Path

import pytest
import torch
from torch import Tensor

from soupcore import Finding, Sweep
from tests.helpers import State, save_sweep

SHAPES = {"embed": (40, 32), "block": (32, 32), "norm": (32,), "head": (10, 32), "bias": (10,)}
SMALL = [(1, 512), (2, 256), (1, 64), (2, 16), (4, 16), (3, 300), (1, 128, 1, 1), (1, 10_000)]
SAMPLE = Path(__file__).parents[2] / "sample_data" / "digits" / "sweep"


def draw(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


BASE = draw(0)


def tuned(seed: int, **parts: Tensor) -> State:
    """A run that moved each tensor a little from where it began."""
    step = draw(seed)
    return {name: tensor + 0.1 * step[name] for name, tensor in (BASE | parts).items()}


def own_head(seed: int) -> State:
    return tuned(seed, head=draw(100 + seed)["head"])


def findings(folder: Path, states: dict[str, State]) -> list[Finding]:
    return list(Sweep.from_folder(save_sweep(folder / "sweep", states)).fit.findings)


@pytest.mark.parametrize("base", [{}, {"base": BASE}, {"base": BASE | {"head": draw(7)["head"]}}])
def test_heads_per_run_are_reported_by_tensor_with_the_way_out(
    tmp_path: Path, base: dict[str, State]
) -> None:
    found = findings(tmp_path, {name: own_head(i) for i, name in enumerate("abcd", 1)} | base)
    assert [(f.severity, f.ingredient, f.tensor) for f in found] == [
        ("warning", "b", "head"),
        ("warning", "c", "head"),
        ("warning", "d", "head"),
    ]
    assert len({f.problem for f in found}) == 1
    assert found[0].problem.startswith(
        "is unrelated to this tensor in a, while their other tensors are close"
    )
    assert (
        "let all tensors but the head take part in recipes, and use the head of a"
        in found[0].way_out
    )


@pytest.mark.parametrize("shape", SMALL, ids=str)
@pytest.mark.parametrize("own", [True, False])
def test_heads_are_found_whatever_their_size(
    tmp_path: Path, shape: tuple[int, ...], own: bool
) -> None:
    def head(seed: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    states = {
        name: tuned(i) | {"head": head(100 + i) if own else head(100) + 0.1 * head(i)}
        for i, name in enumerate("ab", 1)
    }
    found = findings(tmp_path, states)
    assert [(f.ingredient, f.tensor) for f in found] == ([("b", "head")] if own else [])


@pytest.mark.parametrize("odd", ["a", "b", "c"])
def test_the_run_with_another_head_is_found_at_any_position(tmp_path: Path, odd: str) -> None:
    states = {name: tuned(i) for i, name in enumerate("abc", 1)}
    (finding,) = findings(tmp_path, states | {odd: own_head(9)})
    assert (finding.ingredient, finding.tensor) == (odd, "head")


def test_a_head_that_no_run_began_with_is_the_fault_of_the_base(tmp_path: Path) -> None:
    states = {name: tuned(i) for i, name in enumerate("abc", 1)}
    other = BASE | {"head": draw(5)["head"]}
    (finding,) = findings(tmp_path, states | {"base": other})
    assert (finding.severity, finding.ingredient, finding.tensor) == ("warning", "base", "head")
    assert "paths to the base are not" in finding.way_out


@pytest.mark.parametrize(
    "states",
    [
        pytest.param({"a": tuned(1), "b": tuned(2), "base": BASE}, id="one initialisation"),
        pytest.param({"a": tuned(1), "b": draw(2)}, id="a stranger"),
        pytest.param(
            {"a": own_head(1), "base": BASE | {"head": torch.zeros(10, 32)}}, id="begun with zeros"
        ),
        pytest.param({"a": tuned(1)}, id="one alone"),
        pytest.param(
            {"a": tuned(1), "b": tuned(2, norm=draw(5)["norm"], bias=draw(5)["bias"])},
            id="vectors",
        ),
        pytest.param(
            {name: {"w": draw(i)["embed"]} for i, name in enumerate("ab")},
            id="nothing else to compare",
        ),
        pytest.param(
            {
                name: tuned(1) | {"tiny": draw(i)["embed"][:5, :5].clone()}
                for i, name in enumerate("ab")
            },
            id="too small to tell",
        ),
    ],
)
def test_heads_that_are_no_own_heads_are_not_reported(
    tmp_path: Path, states: dict[str, State]
) -> None:
    found = findings(tmp_path, states)
    assert [finding for finding in found if "unrelated" in finding.problem] == []


def test_in_the_bundled_sample_all_runs_began_with_one_head() -> None:
    assert Sweep.from_folder(SAMPLE).fit.findings == ()


def test_a_head_of_integers_is_not_compared(tmp_path: Path) -> None:
    states = {name: tuned(i) for i, name in enumerate("abc", 1)}
    states["b"]["head"] = states["b"]["head"].to(torch.int8)
    found = findings(tmp_path, states)
    assert [(f.severity, f.ingredient, f.tensor, f.problem) for f in found] == [
        ("misfit", "b", "head", "is stored as int8, but as float32 in a")
    ]
