"""The task of most sweeps: one of several classes per example."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcore.tasks.task import Task


class ClassificationTask(Task):
    """Cross-entropy and accuracy over logits of shape [n, classes] and int64 targets of shape [n].

    A prediction is the class with the largest logit, the lowest class where several are equal; an
    example whose logits are not all finite counts as wrong.
    """

    score_name = "accuracy"
    score_range = (0.0, 1.0)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each example in nats."""
        return cross_entropy(outputs.float(), targets, reduction="none")

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 1 for each correct example, else 0."""
        correct = self.predict(outputs) == targets
        return (correct & outputs.isfinite().all(dim=-1)).float()

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the class of each example, int64."""
        return outputs.argmax(dim=-1)
