"""The meaning of names in a checkpoint: all word lists, and the rules that use them.

There is no standard for the keys of checkpoints. These lists define which keys hold weights, which
hold averages of them, and which hold facts about the run. Rules compare the words of a key, so
`model_EMA2` and `emaModel` have the same meaning.

`role_of` classifies the entries beside the weights. A setting describes the network, and also holds
for a soup, so it has no role. All others describe one run: its training state, scores, progress,
dates and names.
"""

import re
from collections.abc import Mapping
from typing import Any

from soupcore.safe_torch.arrays import SCALARS, number_of
from soupcore.safe_torch.tensors import Tensor
from soupcore.safe_torch.values import Inert, entries_of

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SPLIT = re.compile(r"[^a-z]+")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names with one meaning.

MARKER = "stockpot"  # the entry that holds a soup's recipe, in a file that Stockpot wrote
EXTRA_STATE = "_extra_state"  # torch's name for what a module saves beside its tensors
COUNTERS = ("n_averaged", "steps")  # count the models in an average, in torch and in mmengine

# Keys that hold weights. The tools' own loaders prefer them in this order: timm (state_dict_ema,
# model_ema, state_dict, model), Ultralytics (ema, model), BasicSR (params_ema, params), DINO
# (teacher).
TITLES = {
    "state_dict_ema": "EMA weights",
    "model_state_dict_ema": "EMA weights",
    "model_ema": "EMA weights",
    "ema_state_dict": "EMA weights",
    "ema_model": "EMA weights",
    "ema": "EMA weights",
    "params_ema": "EMA weights",
    "g_ema": "EMA weights",
    "teacher": "teacher weights",
    "state_dict": "raw weights",
    "model_state_dict": "raw weights",
    "model": "raw weights",
    "module": "raw weights",
    "params": "raw weights",
    "student": "student weights",
    "current_model_state": "raw weights",
}
AVERAGED = "averaged weights"
PREFERENCE = {name: place for place, name in enumerate(TITLES)}
RAW = frozenset(name for name, title in TITLES.items() if title[:3] in ("raw", "stu"))

# Words of keys that hold weights. These are the keys of averages of a network.
AVERAGES = _word_set(
    """
    average averaged averager averages avg ema lookahead momentum polyak shadow slow swa swag target
    teacher
    """
)
# Keys of snapshots of a network.
VERSIONS = _word_set(
    """
    backup best copy current final init initial last latest old online pretrained prev previous raw
    snapshot student
    """
)
# Keys of another network, which is trained against the first one.
ADVERSARIES = _word_set("adversary disc discriminator discriminators")
# Endings of the names of a layer's tensors.
OF_LAYERS = re.compile(
    r"(?:^|[._])(?:weight|bias|kernel|embedding|scale|gamma|beta|w|b)(?:_[a-z0-9]+)?\d*$"
)

# Words of keys that hold tensors, but no weights. Optimizers hold tensors with the names of the
# weights, such as Adam's averages, or float copies of the weights.
OPTIMIZERS = _word_set("opt optim optims optimizer optimizers optimiser optimisers")
# Records hold numbers about the run.
RECORDS = _word_set(
    """
    callbacks criteria criterion dataloader dataset grad gradients grads history hparams hyper
    labels logs loop loops loss losses meter meters metric metrics predictions preds random replay
    result results rng sampler scaler sched scheduler schedulers statistics stats
    """
)
# A single number beside the weights with one of these words is a fact about the run.
FACTS = _word_set(
    """
    acc accuracy auc best bleu epoch error f iter iteration loss lr map metric score seed step steps
    time wer
    """
)

# Groups of hyperparameters and metrics: Lightning, timm, torchvision, Ultralytics, mmengine.
HYPERPARAMETERS = (
    "hyper_parameters",
    "hparams",
    "args",
    "train_args",
    "config",
    "cfg",
    "opt",
    "hyp",
    "meta",
    "metrics",
    "train_metrics",
    "val_metrics",
)
# Lightning's ModelCheckpoint keeps these among its callbacks.
BEST = ("monitor", "best_model_score")

# Roles of the entries beside the weights, and the words that identify them.
STATE = "training state"
SCORE = "score"
PROGRESS = "progress of the run"
DATE = "date or duration"
NAME = "name or place of the run"
NUMBER = "number of the run"

_SETTINGS = _word_set(
    "arg args arguments cfg config configs configuration hparam hparams hyp hyper hyperparameters "
    "kwargs opt options parameters params settings version"
)
_STATE = _word_set(
    "amp callback callbacks criterion earlystopping logger loop loops loss losses mixedprecision "
    "random rng sampler stopper timers trainer wandb"
)
_STATE_PARTS = ("optim", "sched", "scaler", "message_hub", "averaging_state")
_SCORES = _word_set(
    "acc accuracy auc auroc best bleu bpb bpc cer chrf corr correlation dice eer elbo error errors "
    "fid fitness iou kappa lpips loss losses mae mape matthews mcc metric metrics miou mota mse "
    "nll pck pearson perf performance perplexity ppl psnr pq result results return returns reward "
    "rewards rmse rouge score scores spearman ssim success wer winrate"
)
_SCORES_IF_BROKEN = _word_set(  # an integer with such a name may be a setting
    "ap err eval evaluation f map precision r recall test top train val valid validation"
)
_SCORE_GROUPS = _word_set(  # may hold several values
    "best curve curves eval evaluation fitness history log logging logs metric metrics "
    "performance plot plots result results score scores"
)
_PROGRESS = _word_set("epoch it iter iteration step updates")
_PROGRESS_IF_MADE = _word_set("epochs images iterations iters samples steps tokens")
_MADE = _word_set("completed consumed current done global processed seen skipped trained")
_SET_FOR_ALL = _word_set(
    "diffusion every inference interval max min per sampling size time total warmup"
)
_DATES = _word_set("created date datetime duration elapsed hours seconds time timestamp")
_NAMES = _word_set("branch commit experiment git host hostname run sha user")
_WHOLE_NAMES = _word_set("name exp exp_name title file filename")
_PLACES = _word_set("dir directory folder path root")
# A number with an unknown name is more often a score than a setting, except for these.
_NUMERIC_SETTINGS = _word_set(
    "alpha beta decay depth drop dropout eps epsilon factor gamma lr momentum mult multiplier rate "
    "ratio scale seed sigma std mean temperature threshold width"
)
_ACCOUNTS = _word_set("extra hook info iterator meta progress state status summary")


def words_of(key: str) -> list[str]:
    """Return the words of a key in lower case: `model_EMA2` and `modelEma` give model, ema."""
    return [word.lower() for word in _WORD.findall(key)]


def _all_words_of(key: str) -> list[str]:
    """Return the words of a key in both ways to split it: `mAP50_best` has both "ap" and "map"."""
    parts = [part for part in _SPLIT.split(key.lower()) if part]
    return [*(word for word in words_of(key) if word not in parts), *parts]


def title_of(place: str) -> str:
    """Return a title for the weights at a place, by a key of an average or by the last key."""
    keys = place.split(".")
    average = next((key for key in keys if key in TITLES and key not in RAW), keys[-1])
    return TITLES.get(average, place)


def role_of(
    key: str, value: Any, *, holds_tensors: bool = False, beside: bool = True
) -> str | None:
    """Return the role of an entry in the run that saved the file; None for a setting.

    Args:
        key: Its name.
        value: Its inert value.
        holds_tensors: Whether it holds tensors.
        beside: Whether it is directly beside the weights. There, a number with an unknown name is a
            score; deeper in the file, it is a setting.
    """
    if value is None or type(value) is bool or key.endswith(EXTRA_STATE):
        return None
    words = _all_words_of(key)
    found = frozenset(words)
    if _is_optimizer(value) or (words[-1:] == ["opt"] and holds_tensors):
        return STATE
    if words and words[-1] in _SETTINGS:
        return None
    if type(value) is str or (type(value) is Inert and value.path.startswith("pathlib.")):
        return _role_of_text(key, found)
    number = _number_in(value)
    if number is not None:
        return _role_of_number(key, found, number, beside and type(value) is not Tensor)
    if found & _STATE or any(part in key.lower() for part in _STATE_PARTS):
        return STATE
    if found & _SETTINGS:
        return None
    if found & _SCORE_GROUPS:
        return SCORE
    if found & _DATES:
        return DATE
    return NAME if "git" in found else None


def is_account(key: str) -> bool:
    """Return whether a dict of that name mixes settings with progress of the run."""
    return not _ACCOUNTS.isdisjoint(_all_words_of(key))


def is_progress(key: str) -> bool:
    """Return whether a name is that of the number of epochs or steps done."""
    words = _all_words_of(key)
    found = frozenset(words)
    if found & _SET_FOR_ALL or words[:1] in (["n"], ["num"]):
        return "updates" in found
    return bool(found & _PROGRESS or (found & _PROGRESS_IF_MADE and found & _MADE))


def at_the_start(key: str) -> int:
    """Return the value of a count before training: -1 for an epoch, by convention, else 0."""
    return -1 if _all_words_of(key)[-1:] == ["epoch"] else 0


def _number_in(value: Any) -> int | float | None:
    """Return a number or the value of a NumPy scalar; NaN for a tensor of one float; else None.

    The value of a tensor is not read; one that is not a float counts as 0.
    """
    if type(value) is int or type(value) is float:
        return value
    if type(value) is Inert and value.path in SCALARS:
        number = number_of(value)
        return float("nan") if number is None else number
    if isinstance(value, Tensor) and all(size == 1 for size in value.shape):
        return float("nan") if value.dtype.startswith(("float", "bfloat")) else 0
    return None


def _role_of_number(key: str, words: frozenset[str], number: float, beside: bool) -> str | None:
    is_whole = type(number) is int
    if is_whole and is_progress(key):
        return PROGRESS
    if words & _SCORES or (words & _SCORES_IF_BROKEN and not is_whole):
        return SCORE
    if words & _DATES and not words & _PROGRESS_IF_MADE:
        return DATE
    is_known = is_whole or words & (_NUMERIC_SETTINGS | _SETTINGS)
    return NUMBER if beside and not is_known else None


def _role_of_text(key: str, words: frozenset[str]) -> str | None:
    if words & _DATES:
        return DATE
    return NAME if key.lower() in _WHOLE_NAMES or words & (_NAMES | _PLACES) else None


def _is_optimizer(value: Any) -> bool:
    parts = value if type(value) is list else [value]
    return any(
        isinstance(entries, Mapping) and "param_groups" in entries
        for entries in map(entries_of, parts)
    )
