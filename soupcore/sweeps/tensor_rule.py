"""Rules on which tensors take part in a recipe, and on the source of the others."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.names import canonical_names
from soupcore.errors import SweepError

ALL = "all"
BUT_HEAD = "all but the head"
BUT_EMBEDDINGS = "all but the embeddings"

# Names of the module after the backbone in timm, torchvision, transformers and OpenCLIP.
_HEADS = frozenset(
    {
        "head", "heads", "head_dist", "classifier", "pre_classifier", "fc", "last_linear", "score",
        "lm_head", "cls", "qa_outputs", "logits", "output_layer", "linear_head",
    }
)  # fmt: skip
_MOST_NAMES = 5  # in a sentence
_EMBEDDING = re.compile(r"(?:^|\.)(?:\w*embed\w*|w[tp]e|shared|pos_emb|cls_token)(?:\.|$)")


@dataclass(frozen=True)
class TensorRule:
    """Which tensors take part in a recipe.

    Attributes:
        take: `all`, `all but the head`, `all but the embeddings`, or a pattern: prefixes of names,
            or globs, separated by commas. `backbone.` takes the tensors with this prefix, `!*.bias`
            leaves tensors out.
        rest: Names of ingredients, or of the base, whose mean the other tensors come from. If
            empty, they come from the mean of all ingredients that a recipe is given.
    """

    take: str = ALL
    rest: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the rule as JSON, which `Sweep.with_tensors(**body)` takes."""
        return {"take": self.take, "rest": list(self.rest)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "TensorRule":
        """Recreate the rule from the JSON of `to_json`."""
        return cls(body["take"], tuple(body["rest"]))


@dataclass(frozen=True)
class FixedTensors:
    """Tensors that take no part in a recipe, and the mixture that they come from.

    Attributes:
        tensors: Their names.
        coefficients: `{name: cᵢ}` of ingredients or the base, which sum to 1.
    """

    tensors: tuple[str, ...]
    coefficients: Mapping[str, Fraction] = field(default_factory=dict)

    @classmethod
    def mean_of(cls, tensors: Iterable[str], names: Collection[str]) -> "FixedTensors":
        """Take tensors from the mean of ingredients."""
        return cls(tuple(tensors), dict.fromkeys(names, Fraction(1, len(names))))

    def to_json(self) -> dict[str, Any]:
        """Return the tensors and coefficients as JSON."""
        coefficients = {name: str(c) for name, c in self.coefficients.items()}
        return {"tensors": sorted(self.tensors), "coefficients": coefficients}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "FixedTensors":
        """Recreate them from the JSON of `to_json`."""
        coefficients = {name: Fraction(text) for name, text in body["coefficients"].items()}
        return cls(tuple(body["tensors"]), coefficients)

    def __str__(self) -> str:
        names, k = ", ".join(self.coefficients), len(self.coefficients)
        many = k > _MOST_NAMES
        source = f"the mean of {f'{k} ingredients' if many else names}" if k > 1 else names
        count = f"{len(self.tensors)} tensor{'s'[: len(self.tensors) != 1]}"
        shown = ", ".join(self.tensors[:3]) + (", …" if len(self.tensors) > 3 else "")
        return f"{count} ({shown}) from {source}"


def left_out(take: str, checkpoint: Checkpoint, new: Collection[str] = ()) -> list[str]:
    """Return the tensors that take no part, in the order of the checkpoint.

    Tied tensors take part together or not at all.

    Args:
        take: See `TensorRule`.
        checkpoint: A checkpoint with the layout of the sweep.
        new: Tensors that the base lacks. They are the head, if there are any.

    Raises:
        SweepError: No tensor takes part, a part of a pattern matches none, or no head or no
            embedding is found.
    """
    names = [*checkpoint.tensors]
    if take == ALL:
        return []
    if take == BUT_HEAD:
        found = {*new} or _head(checkpoint)
    elif take == BUT_EMBEDDINGS:
        found = {name for name in names if _EMBEDDING.search(name)}
        if not found:
            raise SweepError(f"No tensor is an embedding by its name. {_pattern(names)}")
    else:
        found = {*names} - _matching(take, names)
    for tie in checkpoint.ties:
        if not found.isdisjoint(tie):
            found.update(tie)
    if found.issuperset(names):
        raise SweepError(f"With {take!r}, no tensor would take part. {_pattern(names)}")
    return [name for name in names if name in found]


def _head(checkpoint: Checkpoint) -> set[str]:
    top = {name: own.split(".")[0] for name, own in canonical_names(checkpoint.tensors).items()}
    found = {name for name, module in top.items() if module in _HEADS}
    if not found and all(module.isdigit() for module in top.values()):  # torch.nn.Sequential
        last = max(
            (int(top[name]) for name in top if len(checkpoint.tensors[name].shape) > 1), default=-1
        )
        found = {name for name, module in top.items() if int(module) >= last >= 0}
    if not found:
        raise SweepError(f"No module is the head by its name. {_pattern([*top])}")
    return found


def _matching(pattern: str, names: Collection[str]) -> set[str]:
    terms = [term.strip() for term in pattern.split(",") if term.strip(" !")]
    if not terms:
        raise SweepError(f"The pattern {pattern!r} is empty. {_pattern(names)}")
    taken = set() if any(not term.startswith("!") for term in terms) else {*names}
    for term in terms:
        bare = term.removeprefix("!").strip()
        found = {name for name in names if name.startswith(bare) or fnmatchcase(name, bare)}
        if not found:
            raise SweepError(f"No tensor matches {bare!r}. {_pattern(names)}")
        taken = taken - found if term.startswith("!") else taken | found
    return taken


def _pattern(names: Collection[str]) -> str:
    """Return advice: an example of a pattern, and the available prefixes of names."""
    modules = sorted({name.partition(".")[0] for name in names})
    shown = ", ".join(modules[:8]) + (", …" if len(modules) > 8 else "")
    return f"Use a pattern such as 'backbone.*' or '!head.*'; names begin with: {shown}."
