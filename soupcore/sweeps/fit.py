"""Whether the ingredients of a sweep can be averaged, told before any work starts."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.dtypes import common_dtype

Severity = Literal["misfit", "warning"]

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Finding:
    """One thing to know about one ingredient.

    Attributes:
        severity: `misfit`: it cannot be averaged with the others and is left out. `warning`: it
            takes part, but look.
        ingredient: Its name.
        tensor: The tensor concerned, empty where it is the whole file.
        problem: What is the matter.
        way_out: What to do about it.
    """

    severity: Severity
    ingredient: str
    tensor: str
    problem: str
    way_out: str


@dataclass(frozen=True)
class FitReport:
    """What was found about the ingredients of a sweep."""

    findings: tuple[Finding, ...] = field(default=())

    @property
    def misfits(self) -> set[str]:
        """Names of the ingredients that cannot be averaged with the others."""
        return {f.ingredient for f in self.findings if f.severity == "misfit"}


def check_fit(
    checkpoints: Mapping[str, Checkpoint], reference: Checkpoint | None = None
) -> list[Finding]:
    """Compare every ingredient with the reference, tensor by tensor, and with each other.

    Args:
        checkpoints: `{name: checkpoint}`, scanned or to be scanned here.
        reference: What they should look like: the base. Without one it is the layout that most
            of them share, the first where several are as common.
    """
    layouts = {name: _layout(checkpoint) for name, checkpoint in checkpoints.items()}
    if reference is not None:
        expected, model = _layout(reference), "the base"
    elif layouts:
        ((expected, _),) = Counter(layouts.values()).most_common(1)
        model = "most of the sweep"
    findings: list[Finding] = []
    for name, checkpoint in checkpoints.items():
        findings += _compare_layout(name, dict(layouts[name]), dict(expected), model)
        findings += _nonfinite(name, checkpoint)
    misfits = {finding.ingredient for finding in findings}
    fitting = {name: c for name, c in checkpoints.items() if name not in misfits}
    wanted = reference or next(iter(fitting.values()), None)
    if wanted is not None:
        for name, checkpoint in fitting.items():
            findings += _compare_values(name, checkpoint, wanted, model)
    return findings + _duplicates(fitting)


def _layout(checkpoint: Checkpoint) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((name, info.shape) for name, info in checkpoint.tensors.items()))


def _compare_layout(
    name: str,
    found: dict[str, tuple[int, ...]],
    expected: dict[str, tuple[int, ...]],
    model: str,
) -> list[Finding]:
    def misfit(tensor: str, problem: str) -> Finding:
        return Finding(
            "misfit",
            name,
            tensor,
            problem,
            "Leave it out, or save it again from the architecture that the others have.",
        )

    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    findings = []
    if missing:
        findings.append(
            misfit(missing[0], f"{len(missing)} tensor(s) of {model} are missing: {_some(missing)}")
        )
    if extra:
        findings.append(
            misfit(extra[0], f"{len(extra)} tensor(s) that {model} lacks: {_some(extra)}")
        )
    for tensor in sorted(found.keys() & expected.keys()):
        if found[tensor] != expected[tensor]:
            findings.append(
                misfit(
                    tensor,
                    f"shape {list(found[tensor])}, in {model} it is {list(expected[tensor])}",
                )
            )
    return findings


def _nonfinite(name: str, checkpoint: Checkpoint) -> list[Finding]:
    return [
        Finding(
            "misfit",
            name,
            tensor,
            f"{count} of {checkpoint.tensors[tensor].numel} values are NaN or infinite",
            "Leave it out: every average with it would be NaN. The run probably diverged; "
            "take an earlier checkpoint of it.",
        )
        for tensor, count in checkpoint.nonfinite.items()
    ]


def _compare_values(
    name: str, checkpoint: Checkpoint, reference: Checkpoint, model: str
) -> list[Finding]:
    findings = []
    dtypes = {
        (info.dtype, reference.tensors[tensor].dtype)
        for tensor, info in checkpoint.tensors.items()
        if info.dtype != reference.tensors[tensor].dtype
    }
    for found, expected in sorted(dtypes, key=str):
        tensor = next(
            t
            for t, info in checkpoint.tensors.items()
            if (info.dtype, reference.tensors[t].dtype) == (found, expected)
        )
        problem = f"stored as {_short(found)}, in {model} as {_short(expected)}"
        if common_dtype(found, expected) is None:
            way_out = "Leave it out, or save it in the dtype that the others have."
            findings.append(Finding("misfit", name, tensor, problem, way_out))
            continue
        findings.append(
            Finding(
                "warning",
                name,
                tensor,
                problem,
                "It can be averaged: mixed in the wider of the two, and written as the soup's "
                "first ingredient is unless you choose a dtype.",
            )
        )
    for tensor, info in checkpoint.tensors.items():
        other = reference.tensors[tensor]
        if info.dtype.is_floating_point or info.dtype.is_complex or tensor.endswith(_COUNTER):
            continue
        if info.dtype == other.dtype and not torch.equal(
            checkpoint.read(tensor), reference.read(tensor)
        ):
            findings.append(
                Finding(
                    "warning",
                    name,
                    tensor,
                    f"these {_short(info.dtype)} values are not those of {model}",
                    "They are not averaged: a soup takes them from the ingredient with the largest "
                    "coefficient. Leave the ingredient out if they are a mask or a vocabulary.",
                )
            )
    return findings


def _duplicates(checkpoints: Mapping[str, Checkpoint]) -> list[Finding]:
    same: dict[str, list[str]] = defaultdict(list)
    for name, checkpoint in checkpoints.items():
        same[checkpoint.digest].append(name)
    return [
        Finding(
            "warning",
            name,
            "",
            f"the same weights as {names[0]}",
            "Leave one of them out, unless it should count twice in an average.",
        )
        for names in same.values()
        for name in names[1:]
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
