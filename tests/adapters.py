"""A small base and LoRA adapters of it, in the format of PEFT."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.helpers import State

RANK = 2
BASE_SHAPES = {
    "enc.q.weight": (6, 5),
    "enc.q.bias": (6,),
    "enc.conv.weight": (4, 3, 2, 2),
    "enc.emb.weight": (7, 4),
    "head.weight": (3, 6),
}


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def base_state() -> State:
    return {name: draw(shape, seed) for seed, (name, shape) in enumerate(BASE_SHAPES.items())}


def peft(folder: Path, seed: int, rank: int = RANK, **config: Any) -> State:
    """Write an adapter as PEFT does; return its tensors."""
    prefix = "base_model.model.enc."
    tensors = {
        f"{prefix}q.lora_A.weight": draw((rank, 5), seed),
        f"{prefix}q.lora_B.weight": draw((6, rank), seed + 1),
        f"{prefix}conv.lora_A.weight": draw((rank, 3, 2, 2), seed + 2),
        f"{prefix}conv.lora_B.weight": draw((4, rank, 1, 1), seed + 3),
        f"{prefix}emb.lora_embedding_A": draw((rank, 7), seed + 4),
        f"{prefix}emb.lora_embedding_B": draw((4, rank), seed + 5),
        "base_model.model.head.weight": draw((3, 6), seed + 6),
    }
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "modules_to_save": ["head"]}
    (folder / "adapter_config.json").write_text(json.dumps(told | config))
    return tensors


def save_sweep(folder: Path, seeds: tuple[int, ...] = (10, 20, 30)) -> list[State]:
    """Write a base and adapters of the ranks 1, 2, …; return the tensors of the adapters."""
    folder.mkdir(exist_ok=True)
    save_file(base_state(), folder / "base.safetensors")
    return [peft(folder / f"run-{seed}", seed, rank=index + 1) for index, seed in enumerate(seeds)]
