"""Configurations for mergekit that reproduce a soup, if mergekit has the method.

The configuration is for `mergekit-pytorch`, which merges single files, or for `mergekit-yaml`,
which merges folders, if checkpoints are in shards. Run it in the folder of the checkpoints.
Comments at the top list numerical differences.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from soupcore.escaping import yaml
from soupcore.merges import Derived
from soupcore.recipes.soup import Soup

_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}

Values = Mapping[str, float | bool]


@dataclass(frozen=True)
class _Merge:
    """A method of mergekit, its models with their parameters, and shared parameters."""

    method: str
    models: dict[str, Values]
    base: str | None
    shared: Values = field(default_factory=dict)
    differences: tuple[str, ...] = ()


def mergekit_config(soup: Soup) -> str | None:
    """Return a YAML configuration with which mergekit 0.1.5 makes this soup, or None.

    It is None if mergekit has no such method, if an ingredient is itself a soup without a file, or
    if several sharded checkpoints are in one folder.

    Args:
        soup: The soup.
    """
    merge = _merge(soup)
    if merge is None:
        return None
    command, places = _places(soup)
    if len({*places.values()}) < len(places):
        return None
    lines = [
        f"# {soup.recipe} soup {soup.id} by Stockpot. Run in the folder of the checkpoints:",
        f"#   {command} this-file.yaml merged/",
        *(f"# {difference}" for difference in merge.differences),
        *(
            ["# mergekit averages BatchNorm statistics; this soup has re-estimated ones."]
            if soup.estimate
            else []
        ),
        f"merge_method: {merge.method}",
    ]
    if merge.base:
        lines.append(f"base_model: {yaml(places[merge.base])}")
    lines.append("models:")
    for name, own in merge.models.items():
        lines.append(f"  - model: {yaml(places[name])}")
        lines += _parameters(own, indent="    ")
    lines += _parameters(merge.shared, indent="")
    lines.append("dtype: float32")
    dtypes = Counter(info.dtype for info in soup.mixture.tensors.values() if info.dtype in _DTYPES)
    if dtypes:
        lines.append(f"out_dtype: {_DTYPES[dtypes.most_common(1)[0][0]]}")
    return "\n".join(lines) + "\n"


def _places(soup: Soup) -> tuple[str, dict[str, str]]:
    """Return the command of mergekit, and the files or folders of the models."""
    checkpoints = {name: source.checkpoint for name, source in soup.sources.items()}
    if all(checkpoint.files == (checkpoint.path,) for checkpoint in checkpoints.values()):
        return "mergekit-pytorch", {name: soup.file_name(name) for name in checkpoints}
    folders = {name: checkpoint.files[0].parent for name, checkpoint in checkpoints.items()}
    return "mergekit-yaml", {name: soup.seen_from_folder(path) for name, path in folders.items()}


def _merge(soup: Soup) -> _Merge | None:
    if soup.fixed or any(isinstance(s.checkpoint, Derived) for s in soup.sources.values()):
        return None
    parameters = soup.parameters

    def each(**own: float) -> dict[str, Values]:
        return dict.fromkeys(soup.ingredients, own)

    match soup.recipe:
        case "task_arithmetic":
            sign = 1 if parameters["operation"] == "add" else -1
            weights = each(weight=sign * parameters["scale"])
            return _Merge("task_arithmetic", weights, soup.base, {"normalize": False})
        case "ties":
            differences = [
                "For ties between signs, mergekit takes +.",
                "For equal magnitudes, common in bfloat16, mergekit keeps exactly the fraction",
                "given by the density; this soup keeps all entries of the smallest magnitude kept.",
            ]
            if parameters["trim"] == "global":
                differences.append("mergekit trims per tensor, this soup the whole vector.")
            if parameters["vote"] == "count":
                differences.append("mergekit elects signs by magnitude, this soup by count.")
            return _Merge(
                "ties",
                each(weight=1.0, density=parameters["density"]),
                soup.base,
                {"normalize": True, "lambda": parameters["scale"]},
                tuple(differences),
            )
        case "dare":
            return _Merge(
                "dare_ties" if parameters["combine"] == "ties" else "dare_linear",
                each(weight=1.0, density=round(1 - parameters["drop"], 9)),
                soup.base,
                {"normalize": parameters["combine"] != "sum", "lambda": parameters["scale"]},
                ("mergekit drops other entries and rescales to the L1 norm, not by 1/(1 − p).",),
            )
        case "model_stock" if len(soup.ingredients) > 1:
            differences = ["mergekit does not clamp t between 0 and 1."]
            if parameters["similarity"] == "angle":
                differences.append("mergekit uses the mean cosine, this soup the mean angle.")
            return _Merge("model_stock", each(), soup.base, differences=tuple(differences))
        case "slerp" if not parameters["whole"]:
            return _Merge("slerp", each(), soup.ingredients[0], {"t": parameters["t"]})
    if not soup.coefficients:
        return None
    linear = {name: {"weight": float(c)} for name, c in soup.coefficients.items() if c}
    return _Merge("linear", dict(linear), None, {"normalize": False})


def _parameters(values: Values, indent: str) -> list[str]:
    if not values:
        return []
    lines = (f"{indent}  {key}: {json.dumps(value)}" for key, value in values.items())
    return [f"{indent}parameters:", *lines]
