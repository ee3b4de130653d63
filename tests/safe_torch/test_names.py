from typing import Any

import pytest

from soupcore.safe_torch.names import (
    DATE,
    NAME,
    NUMBER,
    PROGRESS,
    SCORE,
    STATE,
    at_the_start,
    is_progress,
    role_of,
)
from soupcore.safe_torch.tensors import Storage, Tensor
from soupcore.safe_torch.values import Inert

NUMBERS = [0.5, Inert("numpy.core.multiarray.scalar", (), True)]
ADAM = {"state": {0: {}}, "param_groups": [{"lr": 0.1}]}
SCALAR = Tensor(Storage("0", "float32", 4), "float32", 0, (), ())
MATRIX = Tensor(Storage("0", "float32", 16), "float32", 0, (2, 2), (2, 1))


SCORES = """
    acc acc1 acc@1 accuracy top1 top-5 best_acc bestAcc best best_fitness fitness metric val_metric
    loss val_loss valid/loss train_loss test_error mAP mAP50 mAP50-95 metrics/mAP50(B) miou mIoU
    dice f1 f1_macro auc bleu rouge-l wer cer ppl perplexity psnr ssim fid score best_score
    _best_ema precision recall mse rmse mae spearman mcc bpb eval/accuracy reward episode_return
"""


@pytest.mark.parametrize("number", NUMBERS, ids=["float", "NumPy's"])
@pytest.mark.parametrize(
    "name",
    SCORES.split(),
)
def test_names_of_scores_are_recognised(name: str, number: Any) -> None:
    assert role_of(name, number) == SCORE
    assert role_of(name, number, beside=False) == SCORE


@pytest.mark.parametrize(
    ("name", "value", "role"),
    [
        ("epoch", 3, PROGRESS),
        ("current_epoch", 3, PROGRESS),
        ("best_epoch", 3, PROGRESS),
        ("global_step", 90, PROGRESS),
        ("global_steps", 90, PROGRESS),
        ("step", 90, PROGRESS),
        ("iteration", 90, PROGRESS),
        ("iter_num", 90, PROGRESS),
        ("num_updates", 90, PROGRESS),
        ("tokens_seen", 90, PROGRESS),
        ("consumed_samples", 90, PROGRESS),
        # What a loader builds the network or the pipeline from, whatever it is called.
        ("epochs", 100, None),
        ("max_epoch", 100, None),
        ("num_steps", 100, None),
        ("timesteps", 1000, None),
        ("time_steps", 1000, None),
        ("diffusion_steps", 1000, None),
        ("sampling_steps", 50, None),
        ("step_size", 10, None),
        ("iters", 12, None),
        ("steps_per_epoch", 12, None),
        ("log_every_n_steps", 12, None),
        ("num_classes", 10, None),
        ("test_size", 10, None),
        ("n_test", 10, None),
        ("precision", 16, None),
        ("vocab_size", 100, None),
        ("seed", 1, None),
        ("is_best", True, None),
        ("loss", "l1", None),
        ("optimizer", "adamw", None),
        ("optimizer", None, None),
        ("dropout", 0.1, None),
        ("width_mult", 0.5, None),
        ("lr", 0.1, None),
        ("img_std", 0.5, None),
        ("checkpoint_version", 3.0, None),
        ("arch", "resnet18", None),
        ("trainer_name", "nnUNetTrainer", None),
        ("hparams_name", "kwargs", None),
        ("version", "8.4", None),
        ("classes", ["a", "b"], None),
        ("names", {0: "a"}, None),
        ("idx_to_class", {0: "a"}, None),
        ("label_map", {"a": 0}, None),
        ("hyper_parameters", {"loss": 0.1}, None),
        ("args", Inert("argparse.Namespace", (), True), None),
        ("opt", Inert("argparse.Namespace", (), True), None),
        ("optim_config", {"lr": 0.1}, None),
        ("logit_scale", SCALAR, None),
        ("mean", MATRIX, None),
        ("class_weights", MATRIX, None),
        ("best_val_loss", SCALAR, SCORE),
        ("ccc", 0.375, NUMBER),
        ("score", 7, SCORE),
        ("train_results", {"epoch": [1]}, SCORE),
        ("metrics", {}, SCORE),
        ("val_metrics", {"a": 1}, SCORE),
        ("history", [1, 2], SCORE),
        ("logging", {"dice": [1]}, SCORE),
        ("optimizer", ADAM, STATE),
        ("optimizer_states", [ADAM], STATE),
        ("opt", ADAM, STATE),
        ("anything", ADAM, STATE),
        ("lr_scheduler", {"last_epoch": 3}, STATE),
        ("lr_schedulers", [{"last_epoch": 3}], STATE),
        ("opt_param_scheduler", {"lr": 1}, STATE),
        ("scaler", {}, STATE),
        ("fp16_scaler", {"scale": 1.0}, STATE),
        ("grad_scaler_state", {"scale": 1.0}, STATE),
        ("native_amp_scaling_state", {}, STATE),
        ("MixedPrecision", {}, STATE),
        ("amp", {}, STATE),
        ("rng_state", MATRIX, STATE),
        ("cuda_rng_states", [MATRIX], STATE),
        ("random_state", (3, (1, 2)), STATE),
        ("callbacks", {"EarlyStopping": {}}, STATE),
        ("loops", {"fit_loop": {}}, STATE),
        ("message_hub", {"log_scalars": {}}, STATE),
        ("averaging_state", {}, STATE),
        ("criterion", {"w": MATRIX}, STATE),
        ("dino_loss", {"center": MATRIX}, STATE),
        ("date", "2024-01-01T10:00:00", DATE),
        ("timestamp", 1.7e9, DATE),
        ("training_time", 12.5, DATE),
        ("timestamp", {"epoch": 3}, DATE),
        ("name", "exp3", NAME),
        ("run_name", "bold-fox", NAME),
        ("experiment", "a", NAME),
        ("save_dir", "runs/exp3", NAME),
        ("save_dir", Inert("pathlib.PosixPath", ("runs",), True), NAME),
        ("git", {"commit": "0123"}, NAME),
        ("head._extra_state", {"loss": 0.5}, None),
    ],
    ids=str,
)
def test_details_of_the_run_in_an_entry(name: str, value: Any, role: str | None) -> None:
    assert role_of(name, value) == role


def test_a_nested_number_with_an_unknown_name_is_a_setting() -> None:
    assert role_of("ccc", 0.5, beside=False) is None
    assert role_of("opt", {"state": []}, holds_tensors=True) == STATE
    assert role_of("opt", {"lr": 1}) is None


@pytest.mark.parametrize(("name", "start"), [("epoch", -1), ("last_epoch", -1), ("step", 0)])
def test_counts_before_training(name: str, start: int) -> None:
    assert is_progress(name)
    assert at_the_start(name) == start
