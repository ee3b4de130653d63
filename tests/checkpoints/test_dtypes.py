import math

import pytest
import torch

from soupcore.checkpoints.chunks import CHUNK
from soupcore.checkpoints.dtypes import DTYPES, all_finite, round_into
from tests.helpers import any_tensor, bits

FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_floating_point]


@pytest.mark.parametrize("dtype", [*FLOATS, torch.complex64], ids=str)
def test_all_finite_agrees_with_torch(dtype: torch.dtype) -> None:
    finite = any_tensor(dtype, 40)
    finite[:4] = torch.tensor([0.0, -0.0, 1.0, -1.0]).to(dtype)
    if dtype.is_floating_point:
        finite[4], finite[5] = torch.finfo(dtype).max, torch.finfo(dtype).min
    assert all_finite(finite)
    for value in (math.nan, math.inf, -math.inf):
        for place in (0, 17, 39):
            tensor = finite.float() if dtype.itemsize == 1 else finite.clone()
            tensor[place] = value
            tensor = tensor.to(dtype)
            number = tensor.float() if dtype.itemsize == 1 else tensor
            assert all_finite(tensor) == bool(number.isfinite().all()), (value, place)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz], ids=str)
def test_the_nan_of_fnuz_types_is_not_finite(dtype: torch.dtype) -> None:
    every = torch.arange(256, dtype=torch.uint8)
    nan = 0x80
    assert all_finite(every[every != nan].view(dtype))
    assert not all_finite(every.view(dtype))


@pytest.mark.parametrize("dtype", [d for d in FLOATS if "fnuz" not in str(d)], ids=str)
def test_nan_of_either_sign_is_not_finite(dtype: torch.dtype) -> None:
    nan = torch.tensor([0xFF] * dtype.itemsize, dtype=torch.uint8)  # all bits set: a negative NaN
    positive = nan.clone()
    positive[-1] = 0x7F
    assert not all_finite(nan.view(dtype))
    assert not all_finite(positive.view(dtype))


@pytest.mark.parametrize("part", [complex(math.nan, 1), complex(1, -math.inf)])
def test_both_parts_of_a_complex_number_must_be_finite(part: complex) -> None:
    assert not all_finite(torch.tensor([1 + 1j, part], dtype=torch.complex64))


def test_empty_tensors_and_tensors_of_integers_are_finite() -> None:
    assert all_finite(torch.tensor([-1, (1 << 63) - 1]))
    assert all_finite(torch.tensor([True]))
    assert all_finite(torch.empty(0))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_chunk_is_rounded_as_torch_rounds(dtype: torch.dtype) -> None:
    numbers = any_tensor(torch.float32, CHUNK - 3)
    out = torch.empty(CHUNK - 3, dtype=dtype)
    round_into(out, numbers)
    assert bits(out) == bits(numbers.to(dtype))


@pytest.mark.parametrize(
    ("dtype", "kept", "lost"),
    [
        (torch.float16, 65519.0, 65520.0),
        (torch.bfloat16, 3.39e38, 3.4e38),
        (torch.float8_e4m3fn, 464.0, 465.0),
        (torch.float8_e5m2, 61439.0, 61440.0),
    ],
    ids=str,
)
def test_values_too_large_to_round_are_not_finite(
    dtype: torch.dtype, kept: float, lost: float
) -> None:
    for sign in (1, -1):
        out = torch.empty(2, dtype=dtype)
        round_into(out, torch.tensor([sign * kept, sign * lost]))
        assert out.float().isfinite().tolist() == [True, False]
