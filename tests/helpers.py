"""Functions that make, compare and save tensors, state dicts and sweeps."""

import hashlib
import json
import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from subprocess import run
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupcore import Checkpoint, FitReport, Ingredient, Soup, Sweep, TensorInfo
from soupcore.writers.output import Output

State = dict[str, Tensor]


def average(states: list[Mapping[str, Tensor]]) -> State:
    """Return the mean of floats in float64, rounded once; other tensors come from the first."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def any_tensor(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    """Return random finite values of any dtype that a checkpoint may hold."""
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point or dtype.is_complex:
        wide = torch.complex128 if dtype.is_complex else torch.float64
        return torch.randn(shape, dtype=wide, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=generator).to(dtype)


def bits(tensor: Tensor) -> bytes:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8).numpy().tobytes()


def same_bits(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.shape, bits(one)) == (other.dtype, other.shape, bits(other))


def same_weights(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


def adam_state() -> dict[str, Any]:
    """Return the state_dict() of an Adam optimizer.

    Constructing one would take seconds, because torch imports its compiler.
    """
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    return {
        "state": {0: moments},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}],
    }


def infos(state: Mapping[str, Tensor]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


def raw_safetensors(path: Path, header: Any, data: bytes = b"") -> Path:
    """Write a safetensors file, valid or not. A header in bytes is written unchanged."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def save_sweep(folder: Path, states: Mapping[str, Mapping[str, Tensor]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in states.items():
        save_file(dict(state), folder / f"{name}.safetensors")
    return folder


def save_checked(soup: Soup | Output, *arguments: Any, **options: Any) -> list[Path]:
    """Save a soup, and check the files with `unzip` and the `safetensors` package."""
    written = soup.save(*arguments, **options)
    for path in written:
        if is_zipfile(path):
            assert run(["unzip", "-tq", path], capture_output=True).returncode == 0
        elif path.suffix == ".safetensors":
            assert load_file(path)
    return written


class Held(Checkpoint):
    """A checkpoint in memory, for property tests."""

    def __init__(self, state: Mapping[str, Tensor], name: str = "held") -> None:
        super().__init__(Path(name), infos(state), {}, ())
        self.state = dict(state)

    @cached_property
    def digest(self) -> str:
        sha = hashlib.sha256()
        for name in sorted(self.state):
            sha.update(name.encode() + bits(self.state[name]))
        return sha.hexdigest()

    def read_elements(self, name: str, start: int, stop: int) -> Tensor:
        return self.state[name].reshape(-1)[start:stop]


def held_sweep(
    states: Mapping[str, Mapping[str, Tensor]], base: Mapping[str, Tensor] | None = None
) -> Sweep:
    """Return a sweep in memory."""
    ingredients = {name: Ingredient(name, Held(state, name)) for name, state in states.items()}
    return Sweep(
        Path("held"),
        ingredients,
        None if base is None else Ingredient("base", Held(base, "base")),
        FitReport(),
    )
