"""Checkpoints that PyTorch Lightning writes while it trains, and what it finds in them itself.

python -m tests.oracles.lightning_files write FOLDER
python -m tests.oracles.lightning_files load FILE
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.oracles.expected import save_expected
from tests.toy import CLASSES, FEATURES, build_model


class Classifier(pl.LightningModule):  # type: ignore[misc]
    def __init__(self, **hyperparameters: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = build_model()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.net(inputs), labels)
        self.log("train_loss", loss)
        return loss

    def predict_step(self, batch: list[Tensor]) -> Tensor:
        logits: Tensor = self.net(*batch)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


def train(
    folder: Path, name: str, *callbacks: pl.Callback, start: int = 0, **hyperparameters: Any
) -> Path:
    torch.manual_seed(start)
    data = TensorDataset(torch.randn(24, FEATURES), torch.randint(0, CLASSES, (24,)))
    keep = ModelCheckpoint(folder, filename=name, monitor="train_loss", save_weights_only=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[keep, *callbacks],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Classifier(**hyperparameters), DataLoader(data, batch_size=8))
    return Path(keep.best_model_path)


def write(folder: Path) -> None:
    settings = OmegaConf.create({"lr": 0.5, "optimizer": {"name": "sgd", "betas": [0.9, 0.99]}})
    for path, average in [
        (train(folder, "omegaconf", config=settings), False),
        (train(folder, "namespace", args=argparse.Namespace(lr=0.5, seed=3)), False),
        (train(folder, "average", EMAWeightAveraging(decay=0.5), lr=0.5), True),
        (train(folder, "average-1", EMAWeightAveraging(decay=0.5), start=1, lr=0.5), True),
    ]:
        loaded = torch.load(path, weights_only=False)
        save_expected(path, "state_dict" if average else "", loaded["state_dict"])
        if average:
            save_expected(path, "current_model_state", loaded["current_model_state"])


def main() -> None:
    warnings.simplefilter("ignore")
    command, argument = sys.argv[1], Path(sys.argv[2])
    if command == "write":
        write(argument)
        return
    model = Classifier.load_from_checkpoint(argument, weights_only=False)
    assert model.hparams["lr"] == 0.5
    # A trainer reads more of the file than the class does.
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.predict(model, DataLoader(TensorDataset(torch.zeros(2, FEATURES))), ckpt_path=argument)
    save_expected(argument, "", model.state_dict())


if __name__ == "__main__":
    main()
