"""Checkpoints that Ultralytics YOLO writes while it trains, and what it finds in them itself.

python -m tests.oracles.ultralytics_files write FOLDER
python -m tests.oracles.ultralytics_files load FILE

Ultralytics is AGPL software, used by these tests alone; nothing of Stockpot imports it. It is
installed without torchvision and OpenCV; see `tests.oracles.without_vision`.
"""

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests.oracles import without_vision
from tests.oracles.expected import save_expected


def trainer_of(folder: Path, last: Path, seed: int) -> Any:
    """Return what the trainer's functions that save use of a trainer."""
    from ultralytics.cfg import get_cfg
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
    return SimpleNamespace(
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
        last=last,
        best=folder / "best.pt",
    )


def train(folder: Path, seed: int) -> Path:
    """Have the trainer save a network as it does after each epoch."""
    from ultralytics.engine.trainer import BaseTrainer

    path = folder / f"yolo-{seed}.pt"
    BaseTrainer.save_model(trainer_of(folder, path, seed))
    return path


def load(path: Path) -> Any:
    from ultralytics import YOLO

    return YOLO(path).model


def main() -> None:
    warnings.simplefilter("ignore")
    command, argument = sys.argv[1], Path(sys.argv[2])
    without_vision.pretend()
    if command == "write":
        for seed in (0, 1):
            path = train(argument, seed)
            saved = torch.load(path, weights_only=False)
            save_expected(path, "", saved["ema"].state_dict())
    else:
        save_expected(argument, "", load(argument).state_dict())


if __name__ == "__main__":
    main()
