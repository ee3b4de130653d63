"""Toy networks, random weights and sweeps of them, and task files for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from soupcore import ClassificationTask, Evaluation, Evaluator, Mixture, Split, Store, Sweep
from soupcore.tasks import Role
from tests.helpers import State, save_sweep

# The toy network, for rows of four features


FEATURES, CLASSES = 4, 3


def build_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES)
    )


def random_state(seed: int) -> State:
    """Return random weights and BatchNorm statistics of the toy network; the counter is 7."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in build_model().state_dict().items():
        state[name] = (0.5 * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
        if name.endswith("running_var"):
            state[name] = state[name].abs() + 0.5
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
    return state


def moved(state: Mapping[str, Tensor], distance: float, seed: int) -> State:
    """Return the weights after a random step, except for counters and variances."""
    step = random_state(seed)
    return {
        name: tensor + distance * step[name]
        if tensor.is_floating_point() and not name.endswith("running_var")
        else tensor.clone()
        for name, tensor in state.items()
    }


def toy_runs(base: Mapping[str, Tensor]) -> dict[str, State]:
    """Return three fine-tuned networks at different distances from a base."""
    steps = {"run1": (0.3, 1), "run2": (0.3, 2), "run10": (0.6, 3)}
    return {name: moved(base, distance, seed) for name, (distance, seed) in steps.items()}


def logits(state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return the outputs of the toy network with these weights, computed without Stockpot."""
    model = build_model()
    model.load_state_dict(dict(state))
    with torch.no_grad():
        output: Tensor = model.eval()(inputs)
    return output


def toy_split(role: Role, n: int, seed: int = 0) -> Split:
    """Return random inputs for the toy network, with the classes in turn as labels."""
    inputs = torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed))
    return Split(role, inputs, torch.arange(n) % CLASSES)


def toy_splits(base: Mapping[str, Tensor]) -> dict[str, Split]:
    """Return splits whose labels are the base's predictions, with one in five drawn again."""

    def split(role: Role, n: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(n, FEATURES, generator=generator)
        labels = logits(base, inputs).argmax(1)
        noise = torch.rand(n, generator=generator) < 0.2
        labels[noise] = torch.randint(0, CLASSES, (int(noise.sum()),), generator=generator)
        return Split(role, inputs, labels)

    return {
        "train": split("train", 20, 1),
        "val": split("select", 100, 2),
        "test": split("report", 90, 3),
        "shift/noise": split("shift", 80, 4),
    }


_TASK_FILE = """
from pathlib import Path
from safetensors.torch import load_file
from soupcore import ClassificationTask, Split
from tests.toy import build_model

HERE = Path(__file__).parent
data = load_file(HERE / "splits.safetensors")
splits = {{
    name: Split(role, data[f"{{name}} inputs"], data[f"{{name}} targets"])
    for name, role in {roles}.items()
}}
task = ClassificationTask(build_model, splits, name="toy")
"""


def write_task(folder: Path, splits: Mapping[str, Split], extra: str = "") -> Path:
    """Write a file whose `task` classifies with the toy network, and return its path.

    Args:
        folder: The folder of the file `task.py` and of the data of its splits.
        splits: The splits; inputs and targets are tensors.
        extra: Code at the end of the file. It may use `HERE` (the folder), `build_model` and
            `splits`, and define other tasks or `task` again.
    """
    roles: dict[str, str] = {}
    tensors: State = {}
    for name, split in splits.items():
        roles[name] = split.role
        # Splits may share tensors, which safetensors does not save.
        tensors[f"{name} inputs"] = split.inputs.clone()
        tensors[f"{name} targets"] = split.targets.clone()
    save_file(tensors, folder / "splits.safetensors")
    path = folder / "task.py"
    path.write_text(_TASK_FILE.format(roles=roles) + extra)
    return path


# A network with all that a state dict consists of or leaves out


class Tied(nn.Module):
    """A network with tied weights, BatchNorm, and buffers of which one is not saved.

    A pickle can name this class, wherever the pickle is loaded.
    """

    mask: Tensor
    cache: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.conv = nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
        self.register_buffer("cache", torch.full((3,), 5.0), persistent=False)


# Networks of common kinds, for images of shape [n, channels, side, side]


class Mlp(nn.Sequential):
    """Two hidden layers."""

    def __init__(
        self, channels: int = 1, side: int = 16, width: int = 512, classes: int = 10
    ) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(channels * side * side, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return functional.relu(y + self.shortcut(x), inplace=True)


class ConvNet(nn.Module):
    """A stem and three residual blocks, with BatchNorm after each convolution."""

    def __init__(self, channels: int = 1, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(
            ResidualBlock(width, width, 1),
            ResidualBlock(width, 2 * width, 2),
            ResidualBlock(2 * width, 4 * width, 2),
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean((2, 3)))
        return logits


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [n, heads, tokens, width]
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, tokens, width))
        return out


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class VisionTransformer(nn.Module):
    """Patches of 4 x 4, a class token, and a few encoder blocks."""

    def __init__(
        self,
        channels: int = 1,
        side: int = 16,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // 4) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)  # [n, patches, width]
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


# Sweeps of these networks, and the plain loop that the engine is compared with


SIDE, IMAGE_CLASSES, IMAGES = 8, 5, 70

IMAGE_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Mlp(1, SIDE, 32, IMAGE_CLASSES),
    "conv net": lambda: ConvNet(1, 4, IMAGE_CLASSES),
    "transformer": lambda: VisionTransformer(1, SIDE, 16, 2, 2, IMAGE_CLASSES),
}


@dataclass(frozen=True)
class ImageSweep:
    """A task, a sweep for it, and the state dicts of its ingredients."""

    task: ClassificationTask
    sweep: Sweep
    states: Mapping[str, Mapping[str, Tensor]]

    def plain(self, mixture: Mixture, split: str = "val") -> tuple[Tensor, Tensor]:
        """Return losses and scores: average the state dicts, load the result, and predict."""
        model = self.task.build_model()
        terms = [(self._state(d), float(c)) for d, c in mixture.coefficients.items()]
        state = {
            name: torch.stack([c * state[name].double() for state, c in terms]).sum(0).to(t.dtype)
            for name, t in model.state_dict().items()
        }
        model.load_state_dict(state)
        data = self.task.split(split)
        with torch.no_grad():
            outputs = model.eval()(data.inputs.clone())
        losses = functional.cross_entropy(outputs, data.targets, reduction="none")
        return losses, (outputs.argmax(1) == data.targets).float()

    def _state(self, digest: str) -> Mapping[str, Tensor]:
        name = next(n for n in self.states if self.sweep[n].digest == digest)
        return self.states[name]

    def agrees(self, found: Evaluation, mixture: Mixture, split: str = "val") -> bool:
        """Whether an evaluation equals the plain loop's: the loss to 1e-6, the scores exactly."""
        losses, scores = self.plain(mixture, split)
        loss = float(losses.double().mean())
        return abs(found.loss - loss) <= 1e-6 * max(1, loss) and found.scores.equal(scores)

    def evaluator(self, store: Store, **options: Any) -> Evaluator:
        """Return an evaluator on the CPU."""
        return Evaluator(self.task, store, device="cpu", **options)

    def points(self) -> list[Mixture]:
        """Return single ingredients, points of lines, some of them beyond an end, and the mean."""
        names = self.sweep.names()
        pairs = list(pairwise(names))
        return [
            *(self.sweep[name].mixture for name in names),
            *(
                self.sweep.mixture({a: 1 - alpha, b: alpha})
                for a, b in pairs
                for alpha in (Fraction(1, 7), Fraction(1, 2), Fraction(5, 4))
            ),
            self.sweep.mixture(dict.fromkeys(names, Fraction(1, len(names)))),
        ]


def image_sweep(
    folder: Path,
    network: str | Callable[[], nn.Module],
    *,
    moving: Callable[[str], bool] = lambda name: True,
    splits: Sequence[str] = ("val",),
    k: int = 3,
) -> ImageSweep:
    """Make a sweep around random weights, and a task with random data.

    Args:
        folder: The folder of its files.
        network: A name in `IMAGE_NETWORKS`, or a function that makes the network.
        moving: Whether the tensor of this name differs between the ingredients.
        splits: Names of the splits; the first is for selection, the others are reported.
        k: Number of ingredients.
    """
    build = IMAGE_NETWORKS[network] if isinstance(network, str) else network
    with torch.random.fork_rng():
        torch.manual_seed(5)
        base = build().state_dict()
        base = {name: _trained(name, tensor) for name, tensor in base.items()}
        states = {
            f"run{i}": {n: _fine_tuned(t) if moving(n) else t.clone() for n, t in base.items()}
            for i in range(k)
        }
        data = {
            name: Split(
                "report" if i else "select",
                torch.randn(IMAGES + i, 1, SIDE, SIDE),
                torch.randint(0, IMAGE_CLASSES, (IMAGES + i,)),
            )
            for i, name in enumerate(splits)
        }
    task = ClassificationTask(build, data, name="net")
    return ImageSweep(task, Sweep.from_folder(save_sweep(folder, states)), states)


def _trained(name: str, tensor: Tensor) -> Tensor:
    """Give BatchNorm the statistics and gains of a trained network."""
    if name.endswith("running_var"):
        return torch.rand_like(tensor) * 2 + 0.1
    if name.endswith("running_mean"):
        return torch.randn_like(tensor)
    if "norm" in name and name.endswith("weight"):
        return torch.randn_like(tensor)
    return tensor.clone()


def _fine_tuned(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    return tensor * (1 + 0.1 * torch.randn_like(tensor)) + 0.01 * torch.randn_like(tensor).abs()
