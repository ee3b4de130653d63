"""A first look at a point in bfloat16: quicker, and near what it scores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preview:
    """What a point scores by a pass in bfloat16. It is no evaluation, and nothing is chosen by it.

    bfloat16 keeps 8 bits of each number. What that does to the numbers here is measured on a point
    that is known in float32.

    Attributes:
        mixture_key: Which point.
        split: Name of the split.
        n: Number of examples.
        reference: Digest of the known point, an ingredient.
        loss: Mean loss.
        score: Mean score.
        loss_effect: By how much the same pass moved the mean loss of the known point.
        score_effect: By how much it moved its mean score.
    """

    mixture_key: str
    split: str
    n: int
    reference: str
    loss: float
    score: float
    loss_effect: float
    score_effect: float
