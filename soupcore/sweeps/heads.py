"""Parts of a network that each run began anew, such as the head of a classifier.

Fine-tuned from one initialisation, two runs keep every matrix close to each other's. A head that
each run initialised for itself points elsewhere in each, and its mean points nowhere (WiSE-FT,
arXiv:2109.01903, and model soups, arXiv:2203.05482, start all runs from one head for that reason).
What is compared is the sample that the scan of each file kept of every matrix, about 64 values:
the cosine of two samples is that of the matrices to about 0.1.
"""

from collections.abc import Mapping

import torch

from soupcore.checkpoints import Checkpoint
from soupcore.sweeps.findings import Finding, and_more

_ENOUGH = 60  # values of a sample, below which its cosine says too little
_CLOSE = 0.7  # cosine of matrices that come from one initialisation
_APART = 0.5
_MOST_APART = 0.25  # share of the matrices; where more are apart, so are the runs
_MAY_STRAY = 0.05  # share of the others that need not be close

Samples = Mapping[str, torch.Tensor]


def head_findings(
    checkpoints: Mapping[str, Checkpoint], base_name: str, base: Checkpoint | None
) -> list[Finding]:
    """Find matrices that are unrelated between runs which are close in all others.

    Args:
        checkpoints: The ingredients, of one layout.
        base_name: What the base is called.
        base: It, where there is one.
    """
    samples = {name: _samples(checkpoint) for name, checkpoint in checkpoints.items()}
    from_base = _apart_from(_samples(base), samples) if base else {}
    if 0 < len(from_base) < len(samples) / 2:
        return _own_heads(from_base, "the base")
    # The first one may be the odd one, so the second is asked too.
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
            "unrelated to that of every ingredient, while the rest is close: the runs did not "
            "begin with this head" + and_more(len(tensors) - 1),
            "Averages of ingredients are sound. Paths to the base are not: put the checkpoint "
            "there that fine-tuning began from, its head included.",
        )
        for tensors in [*from_base.values()][:1]
    ]


def _own_heads(apart: Mapping[str, list[str]], one: str) -> list[Finding]:
    return [
        Finding(
            "warning",
            name,
            tensors[0],
            f"unrelated to that of {one}, while the rest of the two is close: this run began "
            "with a head of its own" + and_more(len(tensors) - 1),
            "A mean of such heads is noise. Leave it out, or average the rest only and keep the "
            f"head of {one} for all.",
        )
        for name, tensors in apart.items()
    ]


def _samples(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    values = {name: found.values for name, found in checkpoint.scan().items() if found.sample}
    return {name: sample for name, sample in values.items() if len(sample) >= _ENOUGH}


def _apart_from(one: Samples, others: Mapping[str, Samples]) -> dict[str, list[str]]:
    """Return the matrices that are apart from those of one checkpoint, by checkpoint."""
    # A matrix of zeros is related to none, as where an adapter begins with zeros.
    names = [name for name, sample in one.items() if sample.any()]
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
