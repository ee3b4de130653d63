"""Language models and token classifiers: networks of texts that are scored by their tokens."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcore.tasks.examples import IGNORED
from soupcore.tasks.metrics import METRICS, Metric, weighted_sums
from soupcore.tasks.splits import Split
from soupcore.tasks.task import Task

_MOST_OUTPUTS = 1 << 24  # numbers


def batch_size_for(splits: Mapping[str, Split], words: int) -> int:
    """Return the batch size whose logits take at most 64 MB: one number per token and word.

    Args:
        splits: The splits, whose inputs have `input_ids`.
        words: Size of the vocabulary.
    """
    longest = max(
        int(part.shape[-1])
        for split in splits.values()
        for part in [split.load()[0].batch(slice(0, None))["input_ids"]]
    )
    return min(128, max(1, _MOST_OUTPUTS // (longest * words)))


class LanguageModelTask(Task):
    """A language model that is scored by the negative log-likelihood of tokens.

    The record of an example is its summed negative log-likelihood in nats and number of tokens. The
    loss is the mean over examples of nats per token; metrics are means over tokens. Where tokens
    have weights (see `Split`), both sums are weighted: a token of weight zero, such as one of a
    prompt, is ignored. A token's weight applies to its prediction.
    """

    score_name = "negative loss"
    loss_name = "nats per token"
    output_kind = "logits"
    averages = "outputs"

    @abstractmethod
    def predicted(self, logits: Tensor, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, shape [m, tokens, words], and the true tokens, -100 if ignored."""

    def record(
        self, outputs: Any, inputs: Any, targets: Any, weights: Tensor | None = None
    ) -> Tensor:
        """Return the summed negative log-likelihood and number of tokens of each example."""
        logits, words = self.predicted(super().record(outputs, inputs, targets), inputs, targets)
        nats = cross_entropy(
            logits.float().transpose(1, 2), words, reduction="none", ignore_index=IGNORED
        )
        counts = words != IGNORED
        if weights is None:
            return torch.stack([nats.sum(1), counts.sum(1).to(nats.dtype)], dim=1)
        of_words = weights[:, -words.shape[1] :]  # a causal model does not predict the first token
        return torch.stack([(nats * of_words).sum(1), (counts * of_words).sum(1)], dim=1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the nats per token of each example."""
        tokens = outputs[:, 1]
        return outputs[:, 0] / tokens.masked_fill(tokens == 0, 1)


class CausalTask(LanguageModelTask):
    """Each token is predicted from those before it."""

    def predicted(self, logits: Tensor, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and true tokens; see `LanguageModelTask.predicted`."""
        words = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
        return logits[:, :-1], words[:, 1:]


class MaskedTask(LanguageModelTask):
    """Masked tokens are predicted from all others."""

    def predicted(self, logits: Tensor, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and true tokens; see `LanguageModelTask.predicted`."""
        return logits, targets


def _bits_per_byte(records: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return Σ nats ⁄ (ln 2 · Σ bytes) of the texts that the tokens spell."""
    nats, n_bytes = records.double()[:, 0], targets.double()
    if weights is not None:
        nats, n_bytes = nats * weights, n_bytes * weights
    return float(nats.sum() / (torch.tensor(2.0).double().log() * n_bytes.sum()))


BITS_PER_BYTE = Metric(
    "bits per byte", False, compute=_bits_per_byte, source="outputs", takes_weights=True
)
PERPLEXITY = METRICS["perplexity"]


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
