import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from soupcore.checkpoints.buffers import why_no_weight, why_no_weight_in
from soupcore.checkpoints.checkpoint import TensorInfo
from tests.helpers import Held


def reason(name: str, tensor: Tensor) -> str:
    info = TensorInfo(tuple(tensor.shape), tensor.dtype)
    flat = tensor.reshape(-1)
    return why_no_weight(name, {name: info}, lambda start, stop: flat[start:stop])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frequencies(count: int, base: float = 10_000) -> Tensor:
    return 1 / base ** (torch.arange(count, dtype=torch.float32) / count)


def sinusoids(rows: int, columns: int) -> Tensor:
    """As in "Attention is all you need": sin and cos in turn."""
    angles = torch.arange(rows)[:, None] * frequencies(columns // 2)
    table = torch.empty(rows, columns)
    table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
    return table


def fairseq_sinusoids(rows: int, columns: int, padding: int) -> Tensor:
    half = columns // 2
    steps = torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))
    angles = torch.arange(rows)[:, None] * steps
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    table[padding] = 0
    return table


def causal(size: int, low: float) -> Tensor:
    return torch.full((size, size), low).triu(1)


ANGLES = torch.arange(20)[:, None] * frequencies(8)

NO_WEIGHTS = {
    "1.num_batches_tracked": (torch.tensor(7), "whole numbers"),
    "embeddings.position_ids": (torch.arange(512)[None], "whole numbers"),
    "attn.relative_position_index": (torch.arange(9).reshape(3, 3), "whole numbers"),
    "attn.bias": (torch.ones(1, 1, 8, 8, dtype=torch.bool).tril(), "a mask"),
    "attn.bias_of_bytes": (torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril(), "whole numbers"),
    "float_position_ids": (torch.arange(16.0)[None], "positions counted from 0"),
    "rotary.inv_freq": (frequencies(32), "frequencies of a rotary embedding"),
    "of.another.base": (frequencies(64, 500_000), "frequencies of a rotary embedding"),
    "in.half.inv_freq": (frequencies(32).half(), "frequencies of a rotary embedding"),
    "in.bfloat16.inv_freq": (frequencies(32).bfloat16(), "frequencies of a rotary embedding"),
    "short.inv_freq": (frequencies(2), "frequencies of a rotary embedding"),
    "tril": (torch.ones(1, 1, 9, 9).tril(), "a mask"),
    "future": (causal(9, -torch.inf), "a mask"),
    "future_in_half": (causal(9, -1e4).half(), "a mask"),
    "attn.masked_bias": (torch.tensor(-1e4), "a mask"),
    "layers.0.attn_mask": (torch.where(noise(4, 9, 9) > 0, 0.0, -100.0), "a mask"),
    "pos.pe": (sinusoids(50, 16)[:, None], "sinusoids of positions"),
    "pos.batch_first.pe": (sinusoids(50, 16)[None], "sinusoids of positions"),
    "embed_positions.weights": (fairseq_sinusoids(40, 12, padding=1), "sinusoids of positions"),
    "cos_cached": (torch.cat([ANGLES.cos()] * 2, 1)[None, None], "sinusoids of positions"),
    "sin_cached": (torch.cat([ANGLES.sin()] * 2, 1)[None, None], "sinusoids of positions"),
    "layer1.conv.total_ops": (torch.tensor([123456.0], dtype=torch.float64), "the profiler thop"),
    "layer1.conv.total_params": (torch.zeros(1, dtype=torch.float64), "the profiler thop"),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_buffers_are_recognised_by_their_values(name: str) -> None:
    tensor, what = NO_WEIGHTS[name]
    assert reason(name, tensor).endswith(what)


def moved(tensor: Tensor) -> Tensor:
    return tensor + 0.1 * noise(*tensor.shape)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        *((name, moved(t)) for name, (t, _) in NO_WEIGHTS.items() if t.dtype is torch.float32),
        ("position_ids", noise(1, 16)),
        ("num_batches_tracked", torch.tensor(7.5)),
        ("rotary.inv_freq", 1.1 * frequencies(32)),
        ("attn.bias", noise(8)),
        ("total_ops", torch.tensor([1.5])),
        ("total_ops", torch.tensor([-3.0])),
        ("total_ops", torch.arange(1.0, 4.0)),
        ("norm.weight", torch.ones(64)),
        ("norm.bias", torch.zeros(64)),
        ("head.weight", torch.zeros(8, 8)),
        ("head.weight", torch.eye(8)),
        ("head.weight", torch.ones(8, 8)),
        ("pair", torch.tensor([1.0, 0.5])),
        ("scale", torch.tensor(1.0)),
        ("scale", torch.tensor(0.0)),
        ("first", torch.tensor([0.0, 1.0, 2.0])),
        ("columns", torch.arange(16.0)[:, None]),
        ("nothing", torch.zeros(0)),
        ("complex", torch.ones(4, dtype=torch.complex64)),
    ],
    ids=str,
)  # fmt: skip
def test_learnable_tensors_are_weights_whatever_their_name(name: str, tensor: Tensor) -> None:
    assert reason(name, tensor) == ""


@given(
    st.lists(st.integers(1, 9), min_size=0, max_size=3),
    st.integers(0, 999),
    st.sampled_from(["position_ids", "inv_freq", "mask", "total_params", "weight"]),
)
def test_random_weights_are_weights(shape: list[int], seed: int, name: str) -> None:
    assert reason(name, noise(*shape, seed=seed)) == ""


def test_only_the_beginning_of_a_large_weight_is_read() -> None:
    read: list[int] = []

    def values(start: int, stop: int) -> Tensor:
        read.append(stop - start)
        return noise(stop - start)

    assert why_no_weight("w", {"w": TensorInfo((10_000, 10_000), torch.float32)}, values) == ""
    assert sum(read) <= 64


BODY = {"model.0.weight": noise(4, 8), "model.0.bias": noise(4)}


@pytest.mark.parametrize(
    ("more", "name", "is_loss"),
    [
        ({"criterion.weight": torch.ones(4)}, "criterion.weight", True),
        ({"loss_fn.bce.pos_weight": torch.tensor([3.0])}, "loss_fn.bce.pos_weight", True),
        ({"model.train_loss.weight": torch.ones(4)}, "model.train_loss.weight", True),
        ({"criterion.weight": noise(4)}, "criterion.weight", False),
        ({"criterion.weight": torch.full((4,), torch.nan)}, "criterion.weight", False),
        ({"criterion.weight": noise(4, 8).abs()}, "criterion.weight", False),
        (
            {"criterion.scale": torch.ones(1), "criterion.centres": noise(4, 8)},
            "criterion.scale",
            False,
        ),
        ({"class.weight": torch.ones(4)}, "class.weight", False),
        ({"glossary.weight": torch.ones(4)}, "glossary.weight", False),
        ({"criterion": torch.ones(4)}, "criterion", False),
    ],
    ids=str,
)
def test_the_weights_of_a_loss_are_recognised_by_its_module(
    more: dict[str, Tensor], name: str, is_loss: bool
) -> None:
    found = why_no_weight_in(Held(BODY | more), name)
    assert found == ("the weights of a loss" if is_loss else "")


def test_a_checkpoint_of_a_loss_alone_holds_weights() -> None:
    assert why_no_weight_in(Held({"criterion.weight": torch.ones(4)}), "criterion.weight") == ""
