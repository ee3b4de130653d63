"""What the training scripts of well-known tools put around the weights, as their code writes it."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

import soupcore
from tests.helpers import adam_state, same_weights
from tests.toy import build_model, random_state

pytestmark = pytest.mark.usefixtures("read_in_this_process")

State = dict[str, Tensor]

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FORMATS = [
    *(("zip", dtype) for dtype in [*DTYPES, torch.float8_e4m3fn, torch.float8_e5m2]),
    *(("legacy", dtype) for dtype in DTYPES),  # it has no storages of 8-bit floats
]


@dataclass(frozen=True)
class Layout:
    """What is saved, and which sets of weights are in it, the one to take first at the top."""

    saved: Any
    sets: dict[str, State]


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def bare(raw: State, average: State) -> Layout:
    return Layout(raw, {"": raw})


def ordered_with_metadata(raw: State, average: State) -> Layout:
    state = OrderedDict(raw)
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return Layout(state, {"": raw})


def open_clip(raw: State, average: State) -> Layout:
    state = prefixed("module.", raw)
    saved = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": adam_state()}
    return Layout(saved, {"": state})


def timm(raw: State, average: State) -> Layout:
    saved = {
        "epoch": 3,
        "arch": "vit_tiny",
        "state_dict": raw,
        "state_dict_ema": average,
        "optimizer": adam_state(),
        "version": 2,
        "args": argparse.Namespace(lr=0.1, opt="adamw", aa=None, mean=(0.5, 0.5, 0.5)),
        "metric": 71.5,
    }
    return Layout(saved, {"state_dict_ema": average, "state_dict": raw})


def torchvision(raw: State, average: State) -> Layout:
    ema = {"n_averaged": torch.tensor(7), **prefixed("module.", average)}
    saved = {
        "model": raw,
        "optimizer": adam_state(),
        "lr_scheduler": {"last_epoch": 3, "_last_lr": [0.1]},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, model="resnet18", device="cuda"),
        "model_ema": ema,
        "scaler": {"scale": 65536.0},
    }
    return Layout(saved, {"model_ema": prefixed("module.", average), "model": raw})


def mmengine(raw: State, average: State) -> Layout:
    # EMAHook swaps the two: evaluation then loads the average from where weights always are.
    swapped = prefixed("module.", raw)
    saved = {
        "meta": {"epoch": 3, "iter": 90, "mmengine_version": "0.10.7", "seed": 1},
        "state_dict": average,
        "message_hub": {"log_scalars": {}, "runtime_info": {"epoch": 3}},
        "optimizer": adam_state(),
        "ema_state_dict": {"steps": torch.tensor(5)} | swapped,
    }
    return Layout(saved, {"state_dict": average, "ema_state_dict": prefixed("module.", raw)})


def deepspeed(raw: State, average: State) -> Layout:
    saved: dict[str, Any] = {
        "module": OrderedDict(raw),
        "buffer_names": ["1.running_mean"],
        "param_shapes": [OrderedDict((name, tensor.shape) for name, tensor in raw.items())],
        "lr_scheduler": None,
        "data_sampler": None,
        "random_ltd": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 90,
        "dp_world_size": 1,
        "mp_world_size": 1,
        "ds_config": {"train_batch_size": 8},
        "ds_version": "0.15.0",
    }
    return Layout(saved, {"": raw})


def dino(raw: State, average: State) -> Layout:
    student = prefixed("module.backbone.", raw)
    teacher = prefixed("backbone.", average)
    saved = {
        "student": student,
        "teacher": teacher,
        "optimizer": adam_state(),
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small"),
        "dino_loss": {"center": torch.zeros(1, 4)},
        "fp16_scaler": {"scale": 65536.0},
    }
    return Layout(saved, {"teacher": teacher, "student": student})


def basicsr(raw: State, average: State) -> Layout:
    return Layout({"params": raw, "params_ema": average}, {"params_ema": average, "params": raw})


def numpy_inside(raw: State, average: State) -> Layout:
    saved: dict[str, Any] = {
        "model": raw,
        "best": np.float64(0.75),
        "rng": {
            "numpy": np.random.default_rng(0).bit_generator.state,
            "torch": torch.get_rng_state(),
        },
        "history": np.arange(6.0).reshape(2, 3),
        "epoch": np.int64(3),
    }
    return Layout(saved, {"": raw})


def module_inside(raw: State, average: State) -> Layout:
    model = build_model()
    model.load_state_dict(raw, assign=True)
    return Layout({"model": model, "epoch": 3}, {"": raw})


def module_alone(raw: State, average: State) -> Layout:
    model = build_model()
    model.load_state_dict(raw, assign=True)
    return Layout(model, {"": raw})


def averaged_module(raw: State, average: State) -> Layout:
    model = build_model()
    model.load_state_dict(raw, assign=True)
    state = AveragedModel(model).state_dict()
    return Layout({"swa_model": state}, {"": {n: t for n, t in state.items() if n != "n_averaged"}})


LAYOUTS = [
    *(bare, ordered_with_metadata, open_clip, timm, torchvision, mmengine, deepspeed, dino),
    *(basicsr, numpy_inside, module_inside, module_alone, averaged_module),
]


@pytest.mark.parametrize(("kind", "dtype"), FORMATS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_set_of_weights_is_found_and_read_as_it_was_saved(
    tmp_path: Path, layout: Callable[[State, State], Layout], kind: str, dtype: torch.dtype
) -> None:
    raw, average = (in_dtype(random_state(seed), dtype) for seed in (0, 1))
    expected = layout(raw, average)
    path = tmp_path / "a.ckpt"
    torch.save(expected.saved, path, _use_new_zipfile_serialization=kind == "zip")
    checkpoint = soupcore.open_checkpoint(path)
    assert same_weights(checkpoint.state_dict(), next(iter(expected.sets.values())))
    assert [found.name for found in checkpoint.weight_sets] == [
        name for name in expected.sets if name
    ]
    for name, state in expected.sets.items():
        assert same_weights(
            soupcore.open_checkpoint(path, weights=name or None).state_dict(), state
        )


def in_dtype(state: State, dtype: torch.dtype) -> State:
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
