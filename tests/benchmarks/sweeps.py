"""Sweeps to measure with: random weights in the shapes of a vision transformer."""

from math import prod
from pathlib import Path

WIDTH = 768  # of a ViT-Base


def write_sweep(folder: str, files: str, megabytes: str, dtype: str = "float32") -> None:
    """Write `run-0.safetensors` and so on, each of so many MB, and let Stockpot read their digests.

    A file is as large as asked, to 2 kB, by the number of its blocks and of its classes.
    """
    import torch
    from safetensors.torch import save_file

    import soupcore

    Path(folder).mkdir()
    shapes = _shapes(int(megabytes) * 1_000_000 // getattr(torch, dtype).itemsize)
    for seed in range(int(files)):
        random = torch.Generator().manual_seed(seed)
        state = {
            name: torch.randn(shape, generator=random).to(getattr(torch, dtype))
            for name, shape in shapes.items()
        }
        save_file(state, Path(folder) / f"run-{seed}.safetensors")
    for path in Path(folder).iterdir():
        soupcore.open_checkpoint(path).scan()


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
