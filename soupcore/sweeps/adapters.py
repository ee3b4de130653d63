"""Detects adapters, whose tensors modify other weights, among the tensors of a checkpoint.

Names of adapter tensors differ between tools, so an adapter is detected by its structure: two
neighbouring factors that share a rank. Names of factors used by LoRA, LyCORIS and PEFT are also
sufficient by themselves, in any spelling.

Not all adapters can be averaged. If the change of the weights is a product of trained tensors, or a
rotation computed from one, averaging the tensors does not average the changes. If a single trained
tensor enters linearly (IA³), it does.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from soupcore.checkpoints import Checkpoint, TensorInfo
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
    """Whether the product of two factors is of low rank and has the shape of a neighbour weight."""
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
