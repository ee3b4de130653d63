"""Small random sweeps in memory: a base and what was fine-tuned from it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers import State

Floats = npt.NDArray[np.float64]

# A tensor longer than what is computed at a time, one of a single element, and a counter.
SMALL = {"block.weight": (9, 5), "block.bias": (5,), "scale": ()}
SHAPES = SMALL | {"empty": (0, 3), "head": (40_000,)}

DTYPES = [torch.float32, torch.bfloat16]


def fine_tuned(
    seed: int,
    k: int,
    dtype: torch.dtype = torch.float32,
    *,
    grid: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
) -> tuple[State, dict[str, State]]:
    """A base and k states near it; on a grid many entries are equal or opposite."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...], spread: float) -> Tensor:
        if grid is None:
            return spread * torch.randn(shape, generator=generator, dtype=torch.float64)
        return torch.randint(-grid, grid + 1, shape, generator=generator).double() / 8

    def state(center: Mapping[str, Tensor] | None, counter: int) -> dict[str, Tensor]:
        found = {
            name: draw(shape, 0.5 if center is None else 0.05)
            + (0 if center is None else center[name])
            for name, shape in shapes.items()
        }
        return found | {"counter": torch.tensor(counter)}

    def cast(state: Mapping[str, Tensor]) -> State:
        return {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}

    base = state(None, 0)
    return cast(base), {f"run{i}": cast(state(base, i)) for i in range(1, k + 1)}


@st.composite
def sweeps(draw: st.DrawFn, least: int = 1) -> tuple[State, dict[str, State]]:
    """Any such sweep."""
    return fine_tuned(
        draw(st.integers(0, 10_000)),
        draw(st.integers(least, 5)),
        draw(st.sampled_from(DTYPES)),
        grid=draw(st.sampled_from([None, 1, 4])),
        shapes=SMALL,
    )


def task_vectors(base: State, states: Mapping[str, State]) -> Floats:
    """θᵢ − base, at least in float32, one row each, all float tensors in one row."""
    floats = [name for name, tensor in base.items() if tensor.is_floating_point()]

    def difference(one: Tensor, other: Tensor) -> Floats:
        wide = torch.float64 if one.dtype == torch.float64 else torch.float32
        return np.asarray((one.to(wide) - other.to(wide)).double().numpy().ravel())

    return np.stack(
        [
            np.concatenate([difference(state[name], base[name]) for name in floats])
            for state in states.values()
        ]
    )


def close(found: Mapping[str, Tensor], base: State, expected: Floats) -> None:
    """Check that the floats of a state dict are those expected, up to one rounding."""
    floats = [name for name in base if base[name].is_floating_point()]
    dtype = base[floats[0]].dtype
    flat = torch.cat([found[name].double().flatten() for name in floats])
    tolerance = torch.finfo(dtype).eps
    torch.testing.assert_close(flat, torch.from_numpy(expected), rtol=tolerance, atol=tolerance)


def flat(state: Mapping[str, Tensor]) -> Floats:
    """All floats of a state dict in one row."""
    return np.concatenate(
        [t.double().numpy().ravel() for t in state.values() if t.is_floating_point()]
    )
