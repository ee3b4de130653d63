"""Detect parts of a network that each run initialised separately, such as a classifier's head.

Two runs that were fine-tuned from one initialisation have similar matrices. A head that each run
initialised randomly has an unrelated direction in each, so an average of such heads is meaningless.
For this reason WiSE-FT (arXiv:2109.01903) and Model Soups (arXiv:2203.05482) start all runs from
one head. The comparison uses the sample of each matrix in the scan of a file: 40 to 130 values, or
all values of a smaller matrix. The cosine of two samples estimates that of the matrices to within
about 0.15.
"""

from collections.abc import Mapping

import torch

from soupcore.checkpoints import Checkpoint
from soupcore.merges import own_of
from soupcore.sweeps.findings import Finding, and_more

_ENOUGH = 32  # minimum number of values of a sample; the cosine of fewer is too uncertain
_CLOSE = 0.7  # minimum cosine of matrices from one initialisation
_APART = 0.5  # maximum cosine of unrelated matrices
_MOST_APART = 0.25  # with a larger fraction of unrelated matrices, the runs are unrelated
_MAY_STRAY = 0.05  # fraction of the other matrices that need not be close

Samples = Mapping[str, torch.Tensor]


def head_findings(
    checkpoints: Mapping[str, Checkpoint], base_name: str, base: Checkpoint | None
) -> list[Finding]:
    """Find matrices that are unrelated between runs whose other matrices are close.

    Args:
        checkpoints: The ingredients, with the same layout.
        base_name: Name of the base.
        base: The base, or None.
    """
    if not checkpoints:
        return []
    samples = {name: _samples(checkpoint) for name, checkpoint in checkpoints.items()}
    # A base that fits in part has the mean of the ingredients there, which is no evidence.
    from_base = _apart_from(_samples(own_of(base)), samples) if base else {}
    if 0 < len(from_base) < len(samples) / 2:
        return _own_heads(from_base, "the base")
    # The first may be the exception, so compare with the second too.
    candidates = [(name, _apart_from(samples[name], samples)) for name in [*samples][:2]]
    apart_from_one = [(name, apart) for name, apart in candidates if apart]
    if apart_from_one:
        name, apart = min(apart_from_one, key=lambda found: len(found[1]))
        return _own_heads(apart, name)
    if len(from_base) < len(samples):
        return _own_heads(from_base, "the base")
    return [
        Finding(
            "warning",
            base_name,
            tensors[0],
            "is unrelated to this tensor in all ingredients, while the others are close: the runs "
            "did not start from this head" + and_more(len(tensors) - 1),
            "Averages of ingredients are valid, but paths to the base are not. Replace it with the "
            "checkpoint from which fine-tuning started, including its head.",
        )
        for tensors in [*from_base.values()][:1]
    ]


def _own_heads(apart: Mapping[str, list[str]], one: str) -> list[Finding]:
    return [
        Finding(
            "warning",
            name,
            tensors[0],
            f"is unrelated to this tensor in {one}, while their other tensors are close: this run "
            "started from a different head" + and_more(len(tensors) - 1),
            "An average of such heads is meaningless. Exclude it, or let all tensors but the head "
            f"take part in recipes, and use the head of {one}.",
        )
        for name, tensors in apart.items()
    ]


def _samples(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    values = {name: found.values for name, found in checkpoint.scan().items() if found.sample}
    return {name: sample for name, sample in values.items() if len(sample) >= _ENOUGH}


def _apart_from(one: Samples, others: Mapping[str, Samples]) -> dict[str, list[str]]:
    """Return for each checkpoint the matrices that are unrelated to those of `one`."""
    # A matrix of zeros, as adapters are initialised with, has no direction. A tensor that is stored
    # as integers has no sample.
    names = [
        name
        for name, sample in one.items()
        if sample.any() and all(name in samples for samples in others.values())
    ]
    cosines = {
        name: torch.cosine_similarity(
            torch.stack([samples[name] for samples in others.values()]), one[name]
        ).tolist()
        for name in names
    }
    found = {}
    for index, other in enumerate(others):
        apart = [name for name in names if cosines[name][index] < _APART]
        close = sorted(cosines[name][index] for name in names if name not in apart)
        few = len(apart) <= max(1, _MOST_APART * len(names))
        if apart and close and few and close[int(_MAY_STRAY * len(close))] > _CLOSE:
            found[other] = apart
    return found
