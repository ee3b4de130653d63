"""Run folders that tools make while they train, and whether the tool opens a soup of them.

python -m tests.oracles.run_folders make TOOL FOLDER
python -m tests.oracles.run_folders open TOOL SOUP

Beside each run, a file says which checkpoint the tool itself prefers, and a hyperparameter and a
metric of it.
"""

import json
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.oracles import without_vision
from tests.oracles.expected import save_expected
from tests.toy import CLASSES, FEATURES, build_model


def data(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(24, FEATURES, generator=generator)
    return inputs, torch.randint(0, CLASSES, (24,), generator=generator)


def say(folder: Path, seed: int, best: str | Path, **values: float) -> None:
    (folder / f"expected-{seed}.txt").write_text(json.dumps({"best": str(best), **values}))


def lightning_class() -> Any:
    import pytorch_lightning as pl

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

    return Classifier


def by_lightning(folder: Path) -> None:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger

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
        trainer.fit(lightning_class()(lr=2.0 * seed), *loaders)
        say(
            folder, seed, keep.best_model_path, lr=2.0 * seed, val_loss=float(keep.best_model_score)
        )


def open_with_lightning(soup: Path) -> Mapping[str, Tensor]:
    state: Mapping[str, Tensor] = lightning_class().load_from_checkpoint(soup).state_dict()
    return state


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
        best, loss = trainer.state.best_model_checkpoint, trainer.state.best_metric
        say(folder, seed, f"{best}/model.safetensors", eval_loss=loss, learning_rate=0.05 * seed)


def open_with_transformers(soup: Path) -> Mapping[str, Tensor]:
    from transformers import AutoModelForSequenceClassification

    model, told = AutoModelForSequenceClassification.from_pretrained(soup, output_loading_info=True)
    assert not any(told.values()), told
    state: Mapping[str, Tensor] = model.state_dict()
    return state


def by_ultralytics(folder: Path) -> None:
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils import YAML

    from tests.oracles.ultralytics_files import trainer_of

    for seed in (1, 2):
        run = folder / f"run-{seed}"
        weights = run / "weights"
        weights.mkdir(parents=True)
        trainer = trainer_of(weights, weights / "last.pt", seed)
        trainer.train_time_start, trainer.csv = time.time(), run / "results.csv"
        YAML.save(run / "args.yaml", vars(trainer.args))
        for epoch, fitness in enumerate((0.25, 0.5, 0.375)):
            trainer.epoch, trainer.fitness = epoch, fitness
            trainer.best_fitness = max(fitness, 0.25 if epoch == 0 else 0.5)
            with torch.no_grad():
                next(trainer.ema.ema.parameters()).add_(0.125)
            BaseTrainer.save_metrics(trainer, {"metrics/mAP50(B)": fitness})
            BaseTrainer.save_model(trainer)
        say(folder, seed, weights / "best.pt", **{"lr0": 0.02, "metrics/mAP50(B)": 0.5})


def open_with_ultralytics(soup: Path) -> Mapping[str, Tensor]:
    from tests.oracles.ultralytics_files import load

    state = load(soup).state_dict()  # in float32, whatever the file has
    return {n: t.half() if t.is_floating_point() else t for n, t in state.items()}


def by_timm(folder: Path) -> None:
    import timm
    import yaml
    from timm.utils import CheckpointSaver, update_summary

    for seed in (1, 2):
        torch.manual_seed(seed)
        run = folder / f"run-{seed}"
        run.mkdir(parents=True)
        args = Namespace(model=TIMM, lr=0.1 * seed, opt="sgd")
        (run / "args.yaml").write_text(yaml.safe_dump(vars(args)))  # as its train.py does
        model = timm.create_model(TIMM, num_classes=CLASSES)
        optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
        saver = CheckpointSaver(
            model, optimizer, args=args, checkpoint_dir=str(run), recovery_dir=str(run),
            max_history=2,
        )  # fmt: skip
        for epoch, accuracy in enumerate((50.0, 62.5, 56.25)):
            with torch.no_grad():
                next(model.parameters()).add_(0.125)
            saver.save_recovery(epoch, 3)
            update_summary(epoch, {"loss": 1.0}, {"top1": accuracy}, str(run / "summary.csv"))
            saver.save_checkpoint(epoch, metric=accuracy)
        saver.save_milestone(3)
        say(folder, seed, run / "model_best.pth.tar", lr=args.lr, eval_top1=62.5)


def open_with_timm(soup: Path) -> Mapping[str, Tensor]:
    import timm

    model = timm.create_model(TIMM, num_classes=CLASSES, checkpoint_path=str(soup))
    state: Mapping[str, Tensor] = model.state_dict()
    return state


def by_accelerate(folder: Path) -> None:
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    for seed in (1, 2):
        torch.manual_seed(seed)
        run = folder / f"run-{seed}"
        config = ProjectConfiguration(str(run), automatic_checkpoint_naming=True)
        accelerator = Accelerator(cpu=True, project_config=config)
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        prepared, _ = accelerator.prepare(model, optimizer)
        for _ in range(2):
            with torch.no_grad():
                next(prepared.parameters()).add_(0.125)
            accelerator.save_state()
        (run / "all_results.json").write_text('{"eval_accuracy": 0.75}')  # as its examples do
        last = run / "checkpoints" / "checkpoint_1" / "model.safetensors"
        say(folder, seed, last, eval_accuracy=0.75)


def open_with_accelerate(soup: Path) -> Mapping[str, Tensor]:
    from accelerate import load_checkpoint_in_model

    model = build_model()
    load_checkpoint_in_model(model, str(soup), strict=True)
    return model.state_dict()


def by_diffusers(folder: Path) -> None:
    from diffusers import UNet2DModel

    for seed in (1, 2):
        torch.manual_seed(seed)
        run = folder / f"run-{seed}"
        model = UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,),
            layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
            norm_num_groups=4, attention_head_dim=4,
        )  # fmt: skip
        model.save_pretrained(run, max_shard_size="20KB")
        model.half().save_pretrained(run, variant="fp16")
        say(folder, seed, run / "diffusion_pytorch_model.safetensors.index.json")


def open_with_diffusers(soup: Path) -> Mapping[str, Tensor]:
    from diffusers import UNet2DModel

    model, told = UNet2DModel.from_pretrained(
        soup, output_loading_info=True, low_cpu_mem_usage=False
    )
    assert not any(told.values()), told
    state: Mapping[str, Tensor] = model.state_dict()
    return state


TIMM = "test_resnet"
TOOLS = {
    "accelerate": (by_accelerate, open_with_accelerate),
    "diffusers": (by_diffusers, open_with_diffusers),
    "lightning": (by_lightning, open_with_lightning),
    "timm": (by_timm, open_with_timm),
    "trainer": (by_trainer, open_with_transformers),
    "ultralytics": (by_ultralytics, open_with_ultralytics),
}


def main() -> None:
    warnings.simplefilter("ignore")
    command, tool, path = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if tool in ("timm", "ultralytics"):
        without_vision.pretend()
    make, reopen = TOOLS[tool]
    if command == "make":
        make(path)
    else:
        save_expected(path, "", reopen(path))


if __name__ == "__main__":
    main()
