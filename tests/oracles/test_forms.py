"""A soup as the `.pt` of a tool: that tool's loader finds the soup, and nothing of ingredient 1.

The loaders are what the tools' own code does with such a file, in their order of preference.
"""

import argparse
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import soupcore
from soupcore.checkpoints.names import canonical_names
from tests.helpers import adam_state, average, same_weights, save_checked
from tests.oracles import test_layouts as layouts
from tests.oracles.test_layouts import Layout, State, prefixed
from tests.toy import moved, random_state

OWN = 0.375  # what the scores of an ingredient are; no soup may have it
Load = Callable[[Any], Mapping[str, Tensor]]


def lightning(raw: State, mean: State) -> Layout:
    saved = {
        "epoch": 3,
        "global_step": 90,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": mean,
        "current_model_state": raw,
        "averaging_state": {"n_averaged": torch.tensor(7)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": OWN}},
        "optimizer_states": [adam_state()],
        "lr_schedulers": [{"last_epoch": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"hidden": 8},
        "MixedPrecision": {"scale": 65536.0},
    }
    return Layout(saved, {"state_dict": mean, "current_model_state": raw})


def imagenet_example(raw: State, mean: State) -> Layout:
    state = prefixed("module.", raw)
    saved = {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": state,
        "best_acc1": torch.tensor(OWN),
        "optimizer": adam_state(),
        "scheduler": {"last_epoch": 3},
    }
    return Layout(saved, {"": state})


def nanogpt(raw: State, mean: State) -> Layout:
    state = prefixed("_orig_mod.", raw)
    saved = {
        "model": state,
        "optimizer": adam_state(),
        "model_args": {"n_layer": 2, "dropout": 0.1},
        "iter_num": 90,
        "best_val_loss": torch.tensor(OWN),
        "config": {"dataset": "text", "learning_rate": 0.1},
    }
    return Layout(saved, {"": state})


def fairseq(raw: State, mean: State) -> Layout:
    saved = {
        "args": None,
        "cfg": {"model": {"dim": 8}},
        "model": raw,
        "criterion": {},
        "optimizer_history": [
            {
                "criterion_name": "CrossEntropyCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": OWN},
                "num_updates": 90,
            }
        ],
        "task_state": {},
        "extra_state": {
            "metrics": [["default", [OWN]]],
            "previous_training_time": 12.5,
            "train_iterator": {"epoch": 3, "iterations_in_epoch": 0, "shuffle": True},
            "val_loss": OWN,
            "best": OWN,
        },
        "last_optimizer_state": adam_state(),
    }
    return Layout(saved, {"": raw})


def load_fairseq(saved: Any) -> Mapping[str, Tensor]:
    last = saved["optimizer_history"][-1]
    assert {"optimizer_name", "lr_scheduler_state", "num_updates"} <= last.keys()
    assert saved["extra_state"]["train_iterator"]["epoch"] == -1
    assert saved["extra_state"].keys() == {"train_iterator"}
    return dict(saved["model"])


def megatron(raw: State, mean: State) -> Layout:
    saved = {
        "args": argparse.Namespace(num_layers=2),
        "checkpoint_version": 3.0,
        "iteration": 90,
        "model": raw,
        "optimizer": {"optimizer": adam_state()},
        "opt_param_scheduler": {"max_lr": 0.1, "num_steps": 90},
        "rng_state": [{"np_rng_state": ("MT19937", 3), "torch_rng_state": torch.get_rng_state()}],
    }
    return Layout(saved, {"": raw})


def load_megatron(saved: Any) -> Mapping[str, Tensor]:
    assert (saved["iteration"], saved["checkpoint_version"]) == (0, 3.0)
    return dict(saved["model"])


def nnunet(raw: State, mean: State) -> Layout:
    saved = {
        "network_weights": raw,
        "optimizer_state": adam_state(),
        "grad_scaler_state": {"scale": 65536.0},
        "logging": {"mean_fg_dice": [OWN], "ema_fg_dice": [OWN]},
        "_best_ema": np.float64(OWN),
        "current_epoch": 3,
        "init_args": {"configuration": "2d", "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }
    return Layout(saved, {"": raw})


def load_nnunet(saved: Any) -> Mapping[str, Tensor]:
    assert (saved["trainer_name"], saved["init_args"]["configuration"]) == ("nnUNetTrainer", "2d")
    assert saved["inference_allowed_mirroring_axes"] == (0, 1)
    return dict(saved["network_weights"])


def composer(raw: State, mean: State) -> Layout:
    state = {
        "model": raw,
        "optimizers": {"Adam": adam_state()},
        "timestamp": {"epoch": 3, "batch": 400},
        "run_name": "run of ingredient 1",
        "train_metrics": {"accuracy": OWN},
    }
    return Layout({"state": state, "rng": [{}]}, {"": raw})


def load_composer(saved: Any) -> Mapping[str, Tensor]:
    return dict(saved["state"]["model"])


def detached(raw: State, mean: State) -> Layout:
    """Of no tool in particular: other scores, an account of the run, and settings."""
    saved = {
        "model": raw,
        "info": {"epoch": 3, "val_acc": OWN, "date": "2024-01-01", "classes": ["a", "b"]},
        "mAP50-95": OWN,
        "ccc": OWN,
        "input_std": [0.5, 0.5],
        "seen_tokens": 90,
        "diffusion_steps": 1000,
        "time_elapsed": 12.5,
        "git": {"commit": "0123abcd"},
        "save_dir": "runs/exp3",
        "labels": ["cat", "dog"],
    }
    return Layout(saved, {"": raw})


def load_detached(saved: Any) -> Mapping[str, Tensor]:
    assert saved.keys() - {"stockpot"} == {
        *("model", "info", "input_std", "seen_tokens", "diffusion_steps", "labels")
    }
    assert saved["info"] == {"epoch": -1, "classes": ["a", "b"]}
    assert (saved["seen_tokens"], saved["diffusion_steps"]) == (0, 1000)
    return dict(saved["model"])


def first_of(*places: str) -> Load:
    def load(saved: Any) -> Mapping[str, Tensor]:
        (found, *_) = (saved[place] for place in places if saved.get(place) is not None)
        return dict(found)

    return load


def module(saved: Any) -> Mapping[str, Tensor]:
    return dict((saved["model"] if isinstance(saved, dict) else saved).state_dict())


def everywhere(*places: str) -> Load:
    """What different loaders of such files read; all of it is to be the same."""

    def load(saved: Any) -> Mapping[str, Tensor]:
        states = [plainly_named(saved[place]) for place in places if place in saved]
        assert all(same_weights(state, states[0]) for state in states)
        return states[0]

    return load


LOADERS: list[tuple[Callable[[State, State], Layout], Load]] = [
    (layouts.bare, dict),
    (layouts.ordered_with_metadata, dict),
    (layouts.open_clip, first_of("state_dict")),
    (layouts.timm, first_of("state_dict_ema", "model_ema", "state_dict", "model")),
    (layouts.timm, first_of("state_dict")),
    (layouts.torchvision, first_of("model")),
    (layouts.torchvision, everywhere("model", "model_ema")),
    (layouts.mmengine, first_of("state_dict")),
    (layouts.deepspeed, first_of("module")),
    (layouts.dino, first_of("teacher")),
    (layouts.dino, first_of("student")),
    (layouts.basicsr, first_of("params_ema", "params")),
    (layouts.basicsr, first_of("params")),
    (layouts.numpy_inside, first_of("model")),
    (layouts.module_inside, module),
    (layouts.module_alone, module),
    (layouts.averaged_module, first_of("swa_model")),
    (lightning, first_of("state_dict")),
    (lightning, everywhere("state_dict", "current_model_state")),
    (imagenet_example, first_of("state_dict")),
    (nanogpt, first_of("model")),
    (fairseq, load_fairseq),
    (megatron, load_megatron),
    (nnunet, load_nnunet),
    (composer, load_composer),
    (detached, load_detached),
]
CASES = [
    (layout, load, weights)
    for layout, load in LOADERS
    for weights in layout(random_state(0), random_state(1)).sets
]


def plainly_named(state: Mapping[str, Tensor]) -> State:
    names = canonical_names(state)
    return {plain: state[name].detach() for name, plain in names.items()}


def saved_soup(
    folder: Path, layout: Callable[[State, State], Layout], weights: str, *, zipped: bool
) -> tuple[soupcore.Soup, State]:
    """Save two runs in the layout, and their mean; return the soup and what it should hold."""
    states: list[Mapping[str, Tensor]] = []
    (folder / "sweep").mkdir()
    for number in range(2):
        raw, mean = (moved(random_state(seed), 0.1, number + 2) for seed in (0, 1))
        run = layout(raw, mean)
        states.append(run.sets[weights])
        path = folder / "sweep" / f"run{number}.ckpt"
        torch.save(run.saved, path, _use_new_zipfile_serialization=zipped)
    chosen = dict.fromkeys(["run0", "run1"], weights)
    soup = soupcore.uniform(soupcore.Sweep.from_folder(folder / "sweep", weights=chosen))
    assert soup.output.why_no_pt is None
    save_checked(soup, folder / "soup.ckpt")
    return soup, plainly_named(average(states))


def plain_values(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Give all that is in dicts, lists and tuples, and where."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from plain_values(part, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from plain_values(part, f"{place}.{index}")
    elif not torch.is_tensor(value) or value.numel() == 1:
        yield place, value


def loads_with_weights_only(path: Path) -> bool:
    try:
        torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True


@pytest.mark.usefixtures("read_in_this_process")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("layout", "load", "weights"),
    CASES,
    ids=[f"{layout.__name__}-{weights or 'only'}" for layout, _, weights in CASES],
)
def test_the_loader_of_a_tool_finds_the_soup_and_nothing_of_the_first_run(
    tmp_path: Path,
    layout: Callable[[State, State], Layout],
    load: Load,
    weights: str,
    zipped: bool,
) -> None:
    _, expected = saved_soup(tmp_path, layout, weights, zipped=zipped)
    saved = torch.load(tmp_path / "soup.ckpt", weights_only=False)
    found = {name: value for name, value in load(saved).items() if isinstance(value, Tensor)}
    assert same_weights(plainly_named(found), expected)
    is_safe = loads_with_weights_only(tmp_path / "sweep" / "run0.ckpt")
    assert loads_with_weights_only(tmp_path / "soup.ckpt") or not is_safe
    opened = soupcore.open_checkpoint(tmp_path / "soup.ckpt")
    assert same_weights(plainly_named(opened.state_dict()), expected)
    assert opened.details == {}
    assert not [place for place, value in plain_values(saved) if value == OWN]
    again = {found.name for found in opened.weight_sets}
    for name in again:
        other = soupcore.open_checkpoint(tmp_path / "soup.ckpt", name).state_dict()
        assert same_weights(plainly_named(other), expected)
    assert ("stockpot" in opened.metadata) == (
        "stockpot" in saved if type(saved) is dict else False
    )


def test_the_soup_of_a_network_in_two_state_dicts_is_in_both(tmp_path: Path) -> None:
    layers = {"model": nn.Linear(8, 16), "generator": nn.Linear(16, 4)}
    (tmp_path / "sweep").mkdir()
    for value in (1.0, 3.0):
        run = {
            part: {name: torch.full_like(w, value) for name, w in layer.state_dict().items()}
            for part, layer in layers.items()
        }
        torch.save(run, tmp_path / "sweep" / f"run{value:.0f}.pt")
    soup = soupcore.uniform(soupcore.Sweep.from_folder(tmp_path / "sweep"))
    save_checked(soup, tmp_path / "soup.pt")
    saved = torch.load(tmp_path / "soup.pt", weights_only=True)
    for part, layer in layers.items():
        assert saved[part].keys() == layer.state_dict().keys()
        assert all(tensor.eq(2).all() for tensor in saved[part].values())
    opened = soupcore.open_checkpoint(tmp_path / "soup.pt").state_dict()
    assert opened.keys() == {f"{part}.{n}" for part in layers for n in ("weight", "bias")}
    assert all(tensor.eq(2).all() for tensor in opened.values())
