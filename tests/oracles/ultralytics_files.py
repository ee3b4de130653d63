"""Checkpoints that Ultralytics YOLO writes while it trains, and what it finds in them itself.

python -m tests.oracles.ultralytics_files write FOLDER
python -m tests.oracles.ultralytics_files load FILE

Ultralytics is AGPL software, used by these tests alone; nothing of Stockpot imports it. It is
installed without torchvision and OpenCV, which build no part of a network and read or write no part
of a checkpoint: what it asks of them when it is imported is answered here.
"""

import importlib.metadata
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch

from tests.oracles.expected import save_expected

VERSION = "0.28.0"  # of torchvision, as goes with the torch of the tests
_ABSENT = ("cv2", "torchvision", "torchvision.ops", "torchvision.transforms")


def pretend_to_have_what_no_checkpoint_needs() -> None:
    version = importlib.metadata.version
    importlib.metadata.version = lambda distribution_name: (
        VERSION if distribution_name in _ABSENT else version(distribution_name)
    )
    for name in _ABSENT:
        module = MagicMock(name=name, __version__=VERSION, __path__=[])
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module


def train(folder: Path, seed: int) -> Path:
    """Have the trainer save a network as it does after each epoch."""
    from ultralytics.cfg import get_cfg
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.torch_utils import ModelEMA

    torch.manual_seed(seed)
    model = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    args = get_cfg(overrides={"data": "/home/somebody/data.yaml", "lr0": 0.02, "seed": seed})
    model.args = args
    ema = ModelEMA(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    ema.update(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    path = folder / f"yolo-{seed}.pt"
    trainer = SimpleNamespace(
        model=model,
        ema=ema,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler("cpu"),
        args=args,
        epoch=3,
        best_fitness=0.5,
        fitness=0.25,
        stopper=SimpleNamespace(best_fitness=0.5, best_epoch=2),
        metrics={"metrics/mAP50(B)": 0.25},
        read_results_csv=lambda: {"epoch": [1, 2, 3]},
        save_period=-1,
        wdir=folder,
        last=path,
    )
    BaseTrainer.save_model(trainer)
    return path


def load(path: Path) -> Any:
    from ultralytics import YOLO

    return YOLO(path).model


def main() -> None:
    warnings.simplefilter("ignore")
    command, argument = sys.argv[1], Path(sys.argv[2])
    pretend_to_have_what_no_checkpoint_needs()
    if command == "write":
        for seed in (0, 1):
            path = train(argument, seed)
            saved = torch.load(path, weights_only=False)
            save_expected(path, "", saved["ema"].state_dict())
    else:
        save_expected(argument, "", load(argument).state_dict())


if __name__ == "__main__":
    main()
