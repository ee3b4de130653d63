"""A soup of low-rank adapters as one adapter, which `PeftModel.from_pretrained` opens.

Σcᵢ(base + sᵢBᵢAᵢ) with Σcᵢ = 1 is base + BA, where A has the rows of all Aᵢ, and B the columns of
all cᵢsᵢBᵢ. This is exact, with the sum of the ranks as its rank. A truncated SVD of BA gives the
closest adapter of a smaller rank.
"""

import json
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo, open_checkpoint
from soupcore.checkpoints.bounded_json import parse_object
from soupcore.errors import RecipeError
from soupcore.merges import LowRank, MergedAdapter
from soupcore.new_files import new_file
from soupcore.recipes.soup import Soup
from soupcore.safe_torch.names import MARKER
from soupcore.writers import write_safetensors

CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LARGEST = 4 << 20  # bytes

_Factors = tuple[torch.Tensor, torch.Tensor]


def save_adapter(soup: Soup, folder: str | Path, rank: int | None = None) -> float:
    """Write a soup of adapters as one adapter in the format of PEFT.

    Args:
        soup: A soup with one coefficient for each ingredient, all of them adapters of one base.
        folder: The folder, which is created if its parent exists.
        rank: Largest rank of the change of a weight; by default, the sum of the adapters' ranks,
            which is exact.

    Returns:
        The relative error of the changes, in the Frobenius norm over all changed weights: 0 for the
        sum of the ranks. Rounding to the adapters' dtype comes on top.

    Raises:
        RecipeError: The soup is not of this kind.
        ValueError: The rank is not positive.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be positive, got {rank}.")
    members = _members(soup)
    path = Path(folder)
    path.mkdir(exist_ok=True)
    first = members[0][0]
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    lost = total = 0.0
    for weight in sorted({name for adapted, _ in members for name in adapted.changes}):
        shape = first.base.tensors[weight].shape
        adapted = next(adapted for adapted, _ in members if weight in adapted.changes)
        change = adapted.changes[weight]
        a, b = _joined(weight, members)
        a, b, kept, whole = _truncated(a, b, rank)
        lost, total = lost + whole - kept, total + whole
        module = weight.removesuffix(".weight")
        ranks[module] = len(a)
        is_embedding = "lora_embedding_" in change.a
        names = ("lora_embedding_A", "lora_embedding_B") if is_embedding else (
            "lora_A.weight", "lora_B.weight"
        )  # fmt: skip
        if len(shape) > 2 and not change.transposed:  # convolutions
            a, b = a.reshape(len(a), *shape[1:]), b.reshape(*b.shape, *(1 for _ in shape[2:]))
        dtype = adapted.adapter.tensors[change.a].dtype
        tensors |= {
            f"{_PREFIX}{module}.{names[0]}": a.to(dtype).contiguous(),
            f"{_PREFIX}{module}.{names[1]}": b.to(dtype).contiguous(),
        }
    saved = {name for adapted, _ in members for name in adapted.replaced}
    for name in sorted(saved):
        tensors[f"{_PREFIX}{name}"] = soup.mixture.tensor(name)
    error = (max(lost, 0.0) / total) ** 0.5 if total else 0.0
    config = _config(first, ranks, members, saved)
    recipe = soup.to_json() | {"adapter": {"rank": rank, "relative_error": error}}
    with new_file(path / CONFIG) as file:
        file.write((json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    infos = {name: TensorInfo(tuple(t.shape), t.dtype) for name, t in tensors.items()}
    write_safetensors(
        path / _WEIGHTS,
        infos,
        lambda name: iter([tensors[name].flatten()]),
        {"format": "pt", MARKER: json.dumps(recipe, ensure_ascii=False)},
    )
    return error


def summed_rank(soup: Soup) -> int:
    """Return the rank of the adapter that equals the soup: the largest sum of ranks of a weight.

    Raises:
        RecipeError: The soup is not a combination of adapters with one coefficient each.
    """
    ranks: Counter[str] = Counter()
    for adapted, coefficient in _members(soup):
        for weight, change in adapted.changes.items():
            ranks[weight] += adapted.adapter.tensors[change.a].shape[0] if coefficient else 0
    return max(1, *ranks.values())


def relative_error(folder: Path) -> float:
    """Return the relative error that `save_adapter` stored in the metadata of an adapter.

    Raises:
        CheckpointError: The adapter is missing or damaged.
    """
    recipe = json.loads(open_checkpoint(folder / _WEIGHTS).metadata[MARKER])
    return float(recipe["adapter"]["relative_error"])


def _members(soup: Soup) -> list[tuple[MergedAdapter, Fraction]]:
    """Return the adapters with their coefficients, in the order of the soup."""
    if soup.merge is not None or soup.fixed or sum(soup.mixture.coefficients.values()) != 1:
        raise RecipeError(
            f"A soup by {soup.recipe} is not a combination of adapters with one coefficient each, "
            "so it cannot be saved as an adapter. Save its full weights."
        )
    if soup.estimate is not None:
        raise RecipeError(
            "The BatchNorm statistics of the soup were re-estimated, and an adapter cannot store "
            "them. Save its full weights."
        )
    members = []
    for name in soup.ingredients:
        checkpoint: Checkpoint = soup.sources[name].checkpoint
        if not isinstance(checkpoint, MergedAdapter):
            raise RecipeError(f"{name} is not a LoRA adapter. Save the full weights of the soup.")
        members.append((checkpoint, soup.coefficients[name]))
    if len({adapted.base.digest for adapted, _ in members}) != 1:
        raise RecipeError("The adapters have different bases. Save the full weights of the soup.")
    return members


def _joined(weight: str, members: list[tuple[MergedAdapter, Fraction]]) -> _Factors:
    """Return A [Σr, columns] and B [rows, Σr] of the change of a weight, in float64."""
    rows, columns = [], []
    for adapted, coefficient in members:
        change: LowRank | None = adapted.changes.get(weight)
        if change is None or not coefficient:
            continue
        rows.append(adapted.adapter.read(change.a).double().flatten(1))
        factor = float(coefficient) * change.scale
        columns.append(adapted.adapter.read(change.b).double().flatten(1) * factor)
    if not rows:  # only adapters with coefficient 0 change it
        return _zero(weight, members)
    return torch.cat(rows), torch.cat(columns, dim=1)


def _zero(weight: str, members: list[tuple[MergedAdapter, Fraction]]) -> _Factors:
    """Return factors of rank 1 whose product is 0."""
    adapted = next(adapted for adapted, _ in members if weight in adapted.changes)
    change = adapted.changes[weight]
    a, b = (adapted.adapter.read(name).double().flatten(1) for name in (change.a, change.b))
    return a[:1] * 0, b[:, :1] * 0


def _truncated(
    a: torch.Tensor, b: torch.Tensor, rank: int | None
) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """Return factors of at most this rank, and the squared norms of the kept and whole product.

    The product itself is never made: its singular values are those of a small matrix.
    """
    if rank is None:
        return a, b, 0.0, 0.0
    left, right_of_left = torch.linalg.qr(b)
    right, right_of_right = torch.linalg.qr(a.T)
    u, values, vh = torch.linalg.svd(right_of_left @ right_of_right.T)
    roots = values[:rank].sqrt()
    squares = values.square()
    whole = float(squares.sum())
    if rank >= len(a):
        return a, b, whole, whole
    new_b = left @ (u[:, :rank] * roots)
    new_a = (roots[:, None] * vh[:rank]) @ right.T
    return new_a, new_b, float(squares[:rank].sum()), whole


def _config(
    first: MergedAdapter,
    ranks: Mapping[str, int],
    members: list[tuple[MergedAdapter, Fraction]],
    saved: set[str],
) -> dict[str, Any]:
    """Return the configuration of the first adapter, with the ranks of the new one."""
    path = first.adapter.files[0].parent / CONFIG
    config: dict[str, Any] = {"peft_type": "LORA", "bias": "none"}
    if path.is_file():
        with path.open("rb") as file:
            config = parse_object(file.read(_LARGEST))
    largest = max(ranks.values())
    # PEFT reads regular expressions.
    other = {f"^{module}$".replace(".", r"\."): r for module, r in ranks.items() if r != largest}
    transposed = any(
        change.transposed and "lora_embedding_" not in change.a
        for adapted, _ in members
        for change in adapted.changes.values()
    )
    return config | {
        "r": largest,
        "lora_alpha": largest,  # s = 1: the coefficients are in B
        "rank_pattern": other,
        "alpha_pattern": other,
        "use_rslora": False,
        "target_modules": sorted(ranks),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in saved}) or None,
        "fan_in_fan_out": transposed,
        "init_lora_weights": True,
        "inference_mode": True,
    }
