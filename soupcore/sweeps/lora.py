"""Open low-rank adapters as checkpoints: PEFT's LoRA, and that of kohya's scripts and diffusers.

PEFT writes `adapter_config.json` beside the factors. In the other formats, each pair of factors may
have an `alpha` of its own, and kohya's names have `_` for the `.` of modules.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.bounded_json import parse_object
from soupcore.checkpoints.names import align
from soupcore.errors import CheckpointError
from soupcore.merges import LowRank, MergedAdapter

CONFIG = "adapter_config.json"

_FACTOR = re.compile(
    r"(?P<module>.+?)\.(?:(?P<embedding>lora_embedding_)(?P<which>[AB])(?:\.\w+)?"
    r"|lora_(?P<peft>[AB])(?:\.\w+)?\.weight|lora(?:_|\.|_linear_layer\.)(?P<way>down|up)\.weight)"
)
_PEFT_PREFIX = "base_model.model."
_KOHYA_PREFIX = re.compile(r"lora_(?:unet|te\d?|transformer)_")
_DIFFUSERS_PREFIX = re.compile(r"(?:unet|text_encoder(?:_2)?|transformer)\.")
_OTHER_METHODS = re.compile(
    r"lora_magnitude_vector|dora_scale|lora_[AB](?:\.\w+)?\.bias|lora_mid|hada_|lokr_|lora_E"
)
_EXPRESSION = re.compile(r"[\\*+?()\[\]{}|]")
_LARGEST = 4 << 20  # bytes


def is_lora(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint has pairs of factors in one of the known formats."""
    return any(_FACTOR.fullmatch(name) for name in checkpoint.tensors)


def merged(adapter: Checkpoint, base: Checkpoint) -> MergedAdapter:
    """Return an adapter merged into its base.

    Raises:
        CheckpointError: The method or an option is not supported, a weight is missing in the base,
            or shapes do not fit.
    """
    config = _config(adapter)
    for name in adapter.tensors:
        if found := _OTHER_METHODS.search(name):
            raise _unsupported(adapter, f"has {found[0]!r} ({name}), which is not plain LoRA")
    for option in ("use_dora", "lora_bias", "megatron_config", "layer_replication"):
        if config.get(option):
            raise _unsupported(adapter, f"uses {option}")
    if config.get("peft_type", "LORA") != "LORA":
        raise _unsupported(adapter, f"is an adapter of type {config['peft_type']}")
    pairs: dict[str, dict[str, str]] = {}
    embeddings = set()
    others = []
    for name in adapter.tensors:
        factor = _FACTOR.fullmatch(name)
        if factor is None:
            others.append(name)
            continue
        which = factor["which"] or factor["peft"] or {"down": "A", "up": "B"}[factor["way"]]
        pairs.setdefault(factor["module"], {})[which] = name
        if factor["embedding"]:
            embeddings.add(factor["module"])
    modules = _modules(pairs, base)
    changes = {}
    for module, pair in pairs.items():
        if pair.keys() != {"A", "B"}:
            raise _unsupported(adapter, f"has only one factor of {module}")
        weight = modules.get(module)
        if weight is None:
            raise CheckpointError(
                f"{adapter.path} changes {module}, which the base {base.path.name} lacks.",
                "Use the base that the adapter was trained on.",
            )
        rank = adapter.tensors[pair["A"]].shape[0]
        scale = _scale(adapter, config, module, rank)
        transposed = module in embeddings or bool(config.get("fan_in_fan_out"))
        changes[weight] = LowRank(pair["A"], pair["B"], scale, transposed)
    return MergedAdapter(base, adapter, changes, dict(_replaced(others, base)))


def _modules(modules: Mapping[str, Any], base: Checkpoint) -> dict[str, str]:
    """Return the weight of the base for each module of an adapter, if found."""
    plain = {
        module: _DIFFUSERS_PREFIX.sub("", module.removeprefix(_PEFT_PREFIX), count=1)
        for module in modules
    }
    known = align({f"{name}.weight" for name in plain.values()}, base.tensors.keys())
    there = {name: weight for weight, name in known.items() if weight in base.tensors}
    flat = {
        name.removesuffix(".weight").replace(".", "_"): name
        for name in base.tensors
        if name.endswith(".weight")
    }
    found = {}
    for module, name in plain.items():
        weight = there.get(f"{name}.weight") or flat.get(_KOHYA_PREFIX.sub("", module, count=1))
        if weight is not None:
            found[module] = weight
    return found


def _replaced(names: list[str], base: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield the tensors that were trained in full (`modules_to_save`, biases)."""
    plain = {
        re.sub(r"\.modules_to_save(\.default)?", "", name.removeprefix(_PEFT_PREFIX)): name
        for name in names
        if not name.endswith(".alpha")
    }
    plain = {name.replace(".base_layer.", "."): there for name, there in plain.items()}
    for name, own in align(plain.keys(), base.tensors.keys()).items():
        yield name, plain[own]


def _scale(adapter: Checkpoint, config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return s of a module: α/r, or α/√r."""
    if f"{module}.alpha" in adapter.tensors:
        return float(adapter.read(f"{module}.alpha").double()) / rank
    if not config:
        return 1.0
    name = module.removeprefix(_PEFT_PREFIX)
    alpha = _by_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha", rank))
    if not isinstance(alpha, int | float):
        raise _unsupported(adapter, f"has no number as lora_alpha of {name}")
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """Return the value of the pattern that matches a module, by PEFT's rules."""
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        # PEFT takes regular expressions. An untrusted one may run for ever, so only names are
        # supported.
        name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if _EXPRESSION.search(name):
            raise CheckpointError(
                f"{CONFIG} has the regular expression {pattern!r} in alpha_pattern.",
                "Write the names of the modules in full.",
            )
        if module == name or (not pattern.startswith("^") and module.endswith(f".{name}")):
            return value
    return default


def _config(adapter: Checkpoint) -> dict[str, Any]:
    path: Path = adapter.files[0].parent / CONFIG
    try:
        with path.open("rb") as file:
            return parse_object(file.read(_LARGEST))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a JSON object ({error}).") from None


def _unsupported(adapter: Checkpoint, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{adapter.path} {problem}.",
        "Merge the adapter into the weights first (PEFT: model.merge_and_unload(); diffusers: "
        "pipe.fuse_lora()) and save those.",
    )
