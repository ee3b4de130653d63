"""Synthetic sweeps and data: networks around a central one, and labels that it mostly predicts."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.toy import ConvNet, Mlp, VisionTransformer

NETS: dict[str, Callable[[], nn.Module]] = {
    "MLP": Mlp,
    "small MLP": lambda: Mlp(width=16),
    "CNN with BatchNorm": ConvNet,
    "ViT": VisionTransformer,
}


def make_sweep(
    folder: Path, net: str, ingredients: int, *, spread: float = 0.05, with_base: bool = False
) -> None:
    """Write ingredients around one network, at random distances proportional to the spread.

    Args:
        folder: The folder to make.
        net: A name in `NETS`.
        ingredients: Number of ingredients.
        spread: Mean distance from the network in the middle, relative to its weights.
        with_base: Whether to write this network as the base, and a learning rate for each
            ingredient.
    """
    folder.mkdir(parents=True)
    centre = network(net).state_dict()
    if with_base:
        save_file(centre, folder / "base.safetensors")
        rows = [
            {"checkpoint": f"run-{number:03}.safetensors", "lr": 10 ** -(1 + number % 5)}
            for number in range(ingredients)
        ]
        (folder / "sweep.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(ingredients):
        random = torch.Generator().manual_seed(number)
        distance = spread * (0.2 + 1.6 * torch.rand((), generator=random))
        state = {name: _moved(t, distance, random) for name, t in centre.items()}
        save_file(state, folder / f"run-{number:03}.safetensors")


def network(net: str) -> nn.Module:
    """Return the central network of a sweep, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETS[net]()
    random = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
    model.eval()
    # Balances the classes, as training would.
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        head.bias.sub_(model(_images(500, seed=3)).mean(0))
    return model


def make_data(net: str, examples: int, wrong: float = 0.1) -> tuple[Tensor, Tensor]:
    """Return images and the predictions of the central network, with some labels drawn again."""
    images = _images(examples, seed=2)
    with torch.inference_mode():
        outputs = torch.cat([network(net)(part) for part in torch.split(images, 256)])
    labels = outputs.argmax(1).clone()
    random = torch.Generator().manual_seed(4)
    redrawn = torch.rand(examples, generator=random) < wrong
    labels[redrawn] = torch.randint(0, 10, (int(redrawn.sum()),), generator=random)
    return images, labels


def _images(n: int, seed: int) -> Tensor:
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def _moved(tensor: Tensor, distance: Tensor, random: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    size = tensor.std() if tensor.numel() > 1 else tensor.abs()
    return tensor + distance * size * torch.randn(tensor.shape, generator=random)
