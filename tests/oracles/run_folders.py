"""Run folders that tools make while they train, and which checkpoint they prefer themselves.

python -m tests.oracles.run_folders lightning|trainer FOLDER
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.helpers import CLASSES, FEATURES, build_model


def data(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(24, FEATURES, generator=generator)
    return inputs, torch.randint(0, CLASSES, (24,), generator=generator)


def by_lightning(folder: Path) -> None:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger

    class Classifier(pl.LightningModule):  # type: ignore[misc]
        def __init__(self, lr: float) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = build_model()

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
            self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    for seed in (1, 2):
        pl.seed_everything(seed)
        run = folder / f"run-{seed}"
        keep = ModelCheckpoint(
            filename="{epoch}-{val_loss:.4f}", monitor="val_loss", save_top_k=2, save_last=True
        )
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=4, callbacks=[keep], logger=CSVLogger(run),
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        )  # fmt: skip
        loaders = [DataLoader(TensorDataset(*data(s)), batch_size=8) for s in (0, 9)]
        trainer.fit(Classifier(lr=2.0 * seed), *loaders)
        score = float(keep.best_model_score)
        best = {"best": keep.best_model_path, "val_loss": score, "lr": 2.0 * seed}
        (folder / f"expected-{seed}.txt").write_text(json.dumps(best))


def by_trainer(folder: Path) -> None:
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    class Texts(Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return 16

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(index)
            ids = torch.randint(0, 20, (4,), generator=generator)
            return {"input_ids": ids, "labels": torch.tensor(index % 2)}

    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    for seed in (1, 2):
        set_seed(seed)
        arguments = TrainingArguments(
            str(folder / f"run-{seed}"), num_train_epochs=3, per_device_train_batch_size=8,
            eval_strategy="epoch", save_strategy="epoch", logging_strategy="epoch", seed=seed,
            learning_rate=0.05 * seed, metric_for_best_model="eval_loss", greater_is_better=False,
            report_to=[], disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        trainer = Trainer(
            BertForSequenceClassification(config), arguments,
            train_dataset=Texts(), eval_dataset=Texts(),
        )  # fmt: skip
        trainer.train()
        state = trainer.state
        best = {
            "best": f"{state.best_model_checkpoint}/model.safetensors",
            "eval_loss": state.best_metric,
            "learning_rate": 0.05 * seed,
        }
        (folder / f"expected-{seed}.txt").write_text(json.dumps(best))


def main() -> None:
    warnings.simplefilter("ignore")
    {"lightning": by_lightning, "trainer": by_trainer}[sys.argv[1]](Path(sys.argv[2]))


if __name__ == "__main__":
    main()
