"""Language models, scored by the negative log-likelihood of tokens."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcore.tasks.metrics import METRICS, Metric
from soupcore.tasks.task import Split, Task

IGNORED = -100  # the class that cross-entropy ignores, in torch and transformers


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
