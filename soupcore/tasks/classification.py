"""Single-label classification."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcore.errors import TaskError
from soupcore.tasks.task import Task


class ClassificationTask(Task):
    """Cross-entropy and accuracy over logits of shape [n, classes] and classes of shape [n].

    Classes are integers from 0; other integer dtypes are converted to int64.

    The prediction is the class with the largest logit, or the lowest such class if several are
    equal. An example with a non-finite logit counts as wrong.
    """

    score_name = "accuracy"
    score_range = (0.0, 1.0)
    output_kind = "logits"
    is_classification = True

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Check that there is one class per example and one logit per class.

        Raises:
            TaskError: Shapes or dtypes differ from that, or a class has no logit.
        """
        if outputs.dim() != 2 or not outputs.is_floating_point():
            raise TaskError(
                f"A classification needs logits of shape [n, classes], and the network returns "
                f"{_in_words(outputs)} for {len(outputs)} examples. Have it return one float for "
                "each class of each example, or subclass Task."
            )
        if targets.is_floating_point() or targets.is_complex() or targets.dim() != 1:
            advice = "Give one integer for each example"
            if targets.dim() == 2 and targets.shape[1] == outputs.shape[1]:
                advice += (
                    " (targets.argmax(1), if they are one-hot), or for several labels an example "
                    "subclass Task with a loss such as binary_cross_entropy_with_logits, averaged "
                    "over the labels of each example"
                )
            raise TaskError(
                f"A classification needs one class for each example, integers of shape [n], and "
                f"the targets are {_in_words(targets)}. {advice}."
            )
        low, high = (int(end) for end in targets.long().aminmax())
        classes = outputs.shape[1]
        if low < 0 or high >= classes:
            advice = "Leave out examples without a class, and check that the network has all."
            if low == 1 and high == classes:
                advice = "Subtract 1: classes count from 0."
            raise TaskError(
                f"The targets are classes from {low} to {high}, and the network has {classes}, "
                f"which are 0 to {classes - 1}. {advice}"
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each example in nats."""
        return cross_entropy(outputs.float(), targets.long(), reduction="none")

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 1 for each correct example, else 0."""
        correct = self.predict(outputs) == targets
        return (correct & outputs.isfinite().all(dim=-1)).float()

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the class of each example, int64."""
        return outputs.argmax(dim=-1)


def _in_words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"
