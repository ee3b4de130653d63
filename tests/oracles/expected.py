"""What the tool that wrote a file finds in it, kept beside the file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def save_expected(path: Path, weights: str, state: Mapping[str, Tensor]) -> None:
    """Keep a set of weights of a file, as the tool loads it; "" where it is the only one."""
    folder = _folder(path)
    folder.mkdir(exist_ok=True)
    # Tied weights are cloned, as the format has no ties.
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    save_file(plain, folder / (weights or "only"))


def load_expected(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return what was kept of a file, by the name of the weight set."""
    files = _folder(path).iterdir()
    return {"" if file.name == "only" else file.name: load_file(file) for file in files}


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}-expected")
