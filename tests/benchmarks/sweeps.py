"""Synthetic sweeps with random weights in the shapes of a vision transformer."""

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the measuring process must not import torch, see `processes.run`
    from torch import Tensor

WIDTH = 768  # of a ViT-Base


def write_sweep(folder: str, files: str, megabytes: str, dtype: str = "float32") -> None:
    """Write `run-0.safetensors` and so on, each with this many MB, and scan them.

    The numbers of blocks and of classes are chosen so that a file has the given size to within
    2 kB.
    """
    import torch
    from safetensors.torch import save_file

    import soupcore

    Path(folder).mkdir()
    shapes = _shapes(int(megabytes) * 1_000_000 // getattr(torch, dtype).itemsize)
    for seed in range(int(files)):
        state = {
            name: tensor.to(getattr(torch, dtype))
            for name, tensor in _random_tensors(shapes, seed).items()
        }
        save_file(state, Path(folder) / f"run-{seed}.safetensors")
    for path in Path(folder).iterdir():
        soupcore.open_checkpoint(path).scan()


def write_fine_tuned(folder: str, files: str, megabytes: str) -> None:
    """Write such a sweep with its base. Task vectors have a hundredth of the base's norm.

    The cosine between task vectors is ½.
    """
    from safetensors.torch import load_file, save_file

    import soupcore

    write_sweep(folder, "1", megabytes)
    base = Path(folder) / "base.safetensors"
    (Path(folder) / "run-0.safetensors").rename(base)
    origin = load_file(base)
    shapes = {name: tuple(tensor.shape) for name, tensor in origin.items()}
    shared = _random_tensors(shapes, 1)
    for number in range(int(files)):
        own = _random_tensors(shapes, 2 + number)
        state = {name: origin[name] + 0.007 * (shared[name] + own[name]) for name in origin}
        save_file(state, Path(folder) / f"run-{number}.safetensors")
    for path in Path(folder).iterdir():
        soupcore.open_checkpoint(path).scan()


def _random_tensors(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, "Tensor"]:
    import torch

    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def _shapes(elements: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 197, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    block: dict[str, tuple[int, ...]] = {}
    for layer, inputs, outputs in (
        ("attn.qkv", WIDTH, 3 * WIDTH),
        ("attn.proj", WIDTH, WIDTH),
        ("mlp.fc1", WIDTH, 4 * WIDTH),
        ("mlp.fc2", 4 * WIDTH, WIDTH),
    ):
        block |= {f"{layer}.weight": (outputs, inputs), f"{layer}.bias": (outputs,)}
    for norm in ("norm1", "norm2"):
        block |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    blocks = (elements - _count(shapes)) // _count(block)
    for number in range(blocks):
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in block.items()}
    classes = (elements - _count(shapes)) // WIDTH
    return shapes | {"head.weight": (classes, WIDTH)}


def _count(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes.values())
