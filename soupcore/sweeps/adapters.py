"""Adapters: detection of checkpoints whose tensors modify other weights, and merging of LoRA.

Names of adapter tensors differ between tools, so an adapter is detected by its structure: two
neighbouring factors that share a rank. Names of factors used by LoRA, LyCORIS and PEFT are also
sufficient by themselves, in any spelling.

Not all adapters can be averaged. If the change of the weights is a product of trained tensors, or a
rotation computed from one, averaging the tensors does not average the changes. If a single trained
tensor enters linearly (IA³), it does.

Low-rank adapters are merged into the base while they are read: PEFT's LoRA, and that of kohya's
scripts and diffusers. PEFT writes `adapter_config.json` beside the factors. In the other formats,
each pair of factors may have an `alpha` of its own, and kohya's names have `_` for the `.` of
modules.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.checkpoints.bounded_json import parse_object
from soupcore.checkpoints.names import align
from soupcore.errors import CheckpointError
from soupcore.merges import LowRank, MergedAdapter
from soupcore.sweeps.findings import Finding, Severity, some

_END = r"(?=[._:]|$)"
_START = r"(?:^|[._:])"


def _named(pattern: str) -> re.Pattern[str]:
    return re.compile(f"{_START}(?:{pattern}){_END}", re.IGNORECASE)


# Names of factors in LoRA and its variants, LoHa and LoKr (LyCORIS, PEFT), VeRA and DoRA.
_FACTOR = _named(
    r"(?:de|gra|rand)?lora_(?:embedding_)?[abe]|lora_(?:down|up|mid)|lora_latent(?:_mapping)?"
    r"|lora_magnitude_vector|dora_scale|hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?"
    r"|vera_(?:lambda_)?[abd]|randlora_(?:lambda|gamma)|vblora_(?:logits|vector_bank)(?:_[ab])?"
)
_ROTATION = _named(r"oft_(?:r|blocks|diag)|boft_[rs]|hra_u|road_(?:theta|alpha)")
_LINEAR = _named(r"ia3_l|on_input|fourierft_spectrum")
_PROMPT = _named(
    r"prompt_embeddings|prompt_encoder\.[^.]+\.(?:embedding|mlp_head|lstm_head)|prefix_encoder"
    r"|prompt_learner|adaption_prompt"
)
# Names of the two factors of a product, if a name such as "lora" precedes them.
_PAIRS = (("down", "up"), ("a", "b"), ("in", "out"), ("linear_in", "linear_out"), ("u", "v"))
_ROLES = {role: pair for pair in _PAIRS for role in pair}
_OF_LORA = re.compile(r"(?:^|_)(?:lora|dora|locon|low_?rank)s?\d*(?:_|$)", re.IGNORECASE)
_WEIGHTS_BESIDE = ("weight", "base_layer.weight", "base.weight", "linear.weight", "original.weight")
_OF_GLORA = ("a1", "a2", "b1", "b2")

_PRODUCT = (
    "holds the factors of a low-rank adapter ({}): an adapter changes the weights by the product "
    "of its factors (B·A), and the mean of products is not the product of means"
)
_TURNED = (
    "holds the rotations of an adapter ({}): it multiplies the weights by a rotation computed from "
    "these values, and the rotation of their mean is not the mean of the rotations"
)
_OF_ONE_BASE = (
    "holds an adapter ({}) whose values enter the weights linearly: averaging such adapters "
    "averages the merged weights only if the base is the same for all of them"
)
_OF_ONE_START = (
    "holds a trained prompt ({}), which is averaged like any other weights: that works best if all "
    "runs started from the same prompt"
)
_MERGE = (
    "Add the base that it was trained on, as base.safetensors or a folder named base: a LoRA is "
    "then merged into it while it is read. Or merge it yourself (PEFT: model.merge_and_unload(); "
    "diffusers: pipe.fuse_lora()) and save those weights."
)

_CONFIG = "adapter_config.json"

_LORA_FACTOR = re.compile(
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
_LARGEST_ALPHA = 1e30  # integers in JSON have any number of digits


def adapter_findings(name: str, checkpoint: Checkpoint) -> list[Finding]:
    """Find the tensors of an adapter, and report whether they can be averaged."""
    tensors = checkpoint.tensors

    def finding(severity: Severity, found: Sequence[str], problem: str, way: str) -> list[Finding]:
        problem = problem.format(some(found))
        return [Finding(severity, name, found[0], problem, way)] if found else []

    factors = _factors(tensors)
    rotations = [tensor for tensor in tensors if _ROTATION.search(tensor)]
    if factors or rotations:
        problem = _PRODUCT if factors else _TURNED
        return finding("misfit", factors or rotations, problem, _MERGE)
    linear = [tensor for tensor in tensors if _LINEAR.search(tensor)]
    prompts = [tensor for tensor in tensors if _PROMPT.search(tensor)]
    return [
        *finding("note", linear, _OF_ONE_BASE, "Nothing to do if it is. Otherwise merge each."),
        *finding("note", prompts, _OF_ONE_START, "Nothing to do if this is intended."),
    ]


def _factors(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Return the tensors that are factors of products, in the order of the file."""
    found = {tensor for tensor in tensors if _FACTOR.search(tensor)}
    found |= {factor for pair in _pairs(tensors) for factor in pair}
    return [tensor for tensor in tensors if tensor in found]


def _pairs(tensors: Mapping[str, TensorInfo]) -> Iterator[Sequence[str]]:
    """Yield factors of products that are recognisable by their location and shapes."""
    beside: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for tensor in tensors:
        for stem, role, rest in _splits(tensor):
            beside[stem, rest][role] = tensor
    for (stem, _), by_role in beside.items():
        last = stem.rpartition(".")[2]
        of_glora = [by_role[role] for role in _OF_GLORA if role in by_role]
        if len(of_glora) == 4 and all(len(tensors[factor].shape) > 1 for factor in of_glora):
            yield of_glora
        for one, other in _PAIRS:
            if one not in by_role or other not in by_role:
                continue
            factors = by_role[one], by_role[other]
            shapes = [tensors[factor].shape for factor in factors]
            is_of_lora = _OF_LORA.search(last) is not None and _share_a_rank(*shapes)
            if is_of_lora or _is_change_of(stem, shapes[0], shapes[1], tensors):
                yield factors


def _splits(tensor: str) -> Iterator[tuple[str, str, str]]:
    """Yield each possible role of a name, with the text before and after it."""
    parts = tensor.split(".")
    for index, part in enumerate(parts):
        role = part.lower()
        if index and (role in _ROLES or role in _OF_GLORA):
            yield ".".join(parts[:index]), role, ".".join(parts[index + 1 :])


def _share_a_rank(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return min(len(one), len(other)) >= 2 and not set(one).isdisjoint(other)


def _is_change_of(
    stem: str, one: tuple[int, ...], other: tuple[int, ...], tensors: Mapping[str, TensorInfo]
) -> bool:
    """Return whether the product of two factors has low rank and the shape of a weight beside."""
    if len(one) != 2 or len(other) != 2:
        return False
    names = [f"{stem}.{end}" for end in _WEIGHTS_BESIDE]
    beside = {tensors[name].shape for name in names if name in tensors}
    return any(
        left[1] == right[0]
        and 2 * left[1] <= min(left[0], right[1])
        and not {(left[0], right[1]), (right[1], left[0])}.isdisjoint(beside)
        for left, right in ((one, other), (other, one))
    )


def is_lora(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint has pairs of factors in one of the known formats."""
    return any(_LORA_FACTOR.fullmatch(name) for name in checkpoint.tensors)


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
        factor = _LORA_FACTOR.fullmatch(name)
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
        a, b = adapter.tensors[pair["A"]], adapter.tensors[pair["B"]]
        if not (a.shape and a.numel and b.numel):
            raise _unsupported(adapter, f"has empty factors of {module}")
        scale = _scale(adapter, config, module, rank=a.shape[0])
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
    if (info := adapter.tensors.get(f"{module}.alpha")) is not None:
        if info.numel != 1:
            raise _unsupported(adapter, f"has an alpha of the shape {[*info.shape]} for {module}")
        return float(adapter.read(f"{module}.alpha").double()) / rank
    if not config:
        return 1.0
    name = module.removeprefix(_PEFT_PREFIX)
    alpha = _by_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha", rank))
    if not isinstance(alpha, int | float) or not abs(alpha) <= _LARGEST_ALPHA:
        raise _unsupported(adapter, f"has no finite number as lora_alpha of {name}")
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """Return the value of the pattern that matches a module, by PEFT's rules."""
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        # PEFT takes regular expressions. An untrusted one may run for ever, so only names are
        # supported.
        name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if _EXPRESSION.search(name):
            raise CheckpointError(
                f"{_CONFIG} has the regular expression {pattern!r} in alpha_pattern.",
                "Write the names of the modules in full.",
            )
        if module == name or (not pattern.startswith("^") and module.endswith(f".{name}")):
            return value
    return default


def _config(adapter: Checkpoint) -> dict[str, Any]:
    path: Path = adapter.files[0].parent / _CONFIG
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
