"""Token classification, such as the names in a sentence."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcore.tasks.language_models import IGNORED
from soupcore.tasks.metrics import Metric, weighted_sums
from soupcore.tasks.task import Task


class TaggingTask(Task):
    """Token classification, such as the names in a sentence.

    A word's tag is that of its first token. The record of a sentence has the summed cross-entropy
    in nats, the number of words, of correct words, and of correct, predicted and true entities.

    An entity is a maximal run of words of one type (CoNLL-2000, seqeval's default): `B-` begins
    one, and so does `I-` after another type or after `O`. It is correct if its words and type are.

    Args:
        tags: The names of the tags, by index.
    """

    score_name = "negative loss"
    loss_name = "nats per word"
    output_kind = "logits"
    averages = "outputs"

    def __init__(self, *args: Any, tags: Sequence[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._tags = tags

    def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        """Return the record of each sentence, shape [m, 6]."""
        logits = super().record(outputs, inputs, targets).float()
        nats = cross_entropy(
            logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED
        ).sum(1)
        is_word = targets != IGNORED
        best = logits.argmax(2)
        right = ((best == targets) & is_word).sum(1)
        counts = []
        for predicted, true, words in zip(best.cpu(), targets.cpu(), is_word.cpu(), strict=True):
            found, wanted = (
                entities([self._tags[tag] for tag in tags[words].tolist()])
                for tags in (predicted, true)
            )
            counts.append([len(found & wanted), len(found), len(wanted)])
        return torch.cat(
            [
                torch.stack([nats, is_word.sum(1).float(), right.float()], dim=1),
                torch.tensor(counts).to(nats),
            ],
            dim=1,
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the nats per word of each sentence."""
        return outputs[:, 0] / outputs[:, 1].clamp(min=1)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the numbers of correct words, correct entities and predicted entities."""
        return outputs[:, 2:5].long()


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities of a sentence: type, first word, and the word after the last one."""
    found = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, of = tag.partition("-")
        continues = prefix == "I" and of == kind and kind
        if not continues:
            if kind:
                found.add((kind, start, place))
            start, kind = place, of if prefix in ("B", "I") else ""
    return found


def _entity_f1(records: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return 2 · correct ⁄ (predicted + true) over all sentences; 0 without entities."""
    right, found, true = weighted_sums(records[:, 3:], weights).tolist()
    return 2 * right / (found + true) if found + true else 0.0


def _token_accuracy(records: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    words, right = weighted_sums(records[:, 1:3], weights).tolist()
    return right / words if words else math.nan


TAGGING_METRICS = tuple(
    Metric(name, range=(0.0, 1.0), compute=compute, source="outputs", takes_weights=True)
    for name, compute in (("entity F1", _entity_f1), ("token accuracy", _token_accuracy))
)
