from collections import OrderedDict, namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from soupcore import TaskError
from soupcore.tasks.networks import tensor_of

LOGITS, OTHER = torch.arange(6.0).view(2, 3), torch.ones(2)


class ModelOutput(OrderedDict[str, Any]):
    """As in transformers: a dict whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


Inception = namedtuple("Inception", ["logits", "aux_logits"])


@pytest.mark.parametrize(
    "outputs",
    [
        LOGITS,
        {"logits": LOGITS},
        {"loss": OTHER, "logits": LOGITS, "hidden_states": (OTHER,)},
        {"out": LOGITS},
        (LOGITS,),
        [LOGITS],
        Inception(LOGITS, OTHER),
        SimpleNamespace(logits=LOGITS),
        ModelOutput(logits=LOGITS, hidden_states=(OTHER, OTHER)),
    ],
    ids=lambda outputs: type(outputs).__name__,
)
def test_an_unambiguous_output_is_used(outputs: Any) -> None:
    assert tensor_of(outputs) is LOGITS


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"out": LOGITS, "aux": OTHER}, "a dict with 'out', 'aux'"),
        ({"logits": [LOGITS]}, "a dict with 'logits'"),
        ((LOGITS, OTHER), r"a tuple of 2 \(Tensor, Tensor\)"),
        (([LOGITS],), r"a tuple of 1 \(list\)"),
        ({}, "a dict with nothing in it"),
        (None, "returns None"),
        (0.5, "a float"),
        (LOGITS.numpy(), "a ndarray"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_other_outputs_are_refused_with_a_way_out(outputs: Any, words: str) -> None:
    with pytest.raises(TaskError, match=f"{words}.*build_model"):
        tensor_of(outputs)
