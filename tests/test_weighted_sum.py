from fractions import Fraction

import pytest
import torch
from torch import Tensor

from soupcore.checkpoints.dtypes import DTYPES
from soupcore.weighted_sum import WeightedSum
from tests.helpers import any_tensor, bits, same_bits

FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_floating_point or dtype.is_complex]
WIDE = [torch.float64, torch.float32]


def weighted_sum(
    tensors: list[Tensor], coefficients: list[Fraction], accumulate: torch.dtype = torch.float64
) -> Tensor:
    out = torch.empty_like(tensors[0])
    WeightedSum(coefficients, out.dtype, accumulate)(out, tensors)
    return out


@pytest.mark.parametrize("accumulate", WIDE, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equal_terms_and_zeros_of_either_sign_average_to_the_same_bits(
    dtype: torch.dtype, accumulate: torch.dtype
) -> None:
    signs = torch.tensor([0.0, -0.0]).to(dtype)
    tensor = torch.cat([signs, any_tensor(dtype, 50), signs])
    for k in range(2, 21):
        mean = weighted_sum([tensor] * k, [Fraction(1, k)] * k, accumulate)
        assert bits(mean) == bits(tensor), k


@pytest.mark.parametrize("accumulate", WIDE, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "coefficients",
    [[Fraction(1, 4)] * 4, [Fraction(1, 3), Fraction(-2, 7), Fraction(5), Fraction("0.3")]],
    ids=["mean", "any"],
)
def test_chunk_sizes_do_not_change_the_weighted_sum(
    dtype: torch.dtype, accumulate: torch.dtype, coefficients: list[Fraction]
) -> None:
    n = 1111
    tensors = [any_tensor(dtype, n, seed=seed) for seed in range(4)]
    whole = weighted_sum(tensors, coefficients, accumulate)
    for size in (1, 3, 8, 17, 64, 1000):
        sum_into = WeightedSum(coefficients, dtype, accumulate)
        cut = torch.empty(n, dtype=dtype)
        for start in range(0, n, size):
            place = slice(start, start + size)
            sum_into(cut[place], [tensor[place] for tensor in tensors])
        assert same_bits(cut, whole), size


def test_terms_may_share_a_buffer() -> None:
    tensors = [any_tensor(torch.float32, 9, seed=seed) for seed in range(3)]
    shares = [Fraction(1, 3)] * 3
    for accumulate in WIDE:
        buffer = torch.empty(9)
        out = torch.empty(9)
        shared = (buffer.copy_(tensor) for tensor in tensors)
        WeightedSum(shares, torch.float32, accumulate)(out, shared)
        assert same_bits(out, weighted_sum(tensors, shares, accumulate))


def test_float32_sums_of_fine_tuned_weights_are_almost_exact() -> None:
    base = any_tensor(torch.float32, 10_000)
    moved = [base + 0.01 * any_tensor(torch.float32, 10_000, seed=seed) for seed in range(1, 6)]
    exact = torch.stack(moved).double().mean(0)
    found = weighted_sum(moved, [Fraction(1, 5)] * 5, torch.float32)
    assert (found != exact.float()).float().mean() < 0.03  # of a plain sum, more than half
    torch.testing.assert_close(found, exact.float(), rtol=1.2e-7, atol=1e-9)


def test_a_wrong_number_of_terms_is_refused() -> None:
    tensors = [torch.ones(2)] * 3
    for k in (2, 4):
        with pytest.raises(ValueError, match="zip"):
            weighted_sum(tensors, [Fraction(1, k)] * k)


@pytest.mark.parametrize("divisor", [2, 3, 4, 7, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_sum_is_divided_last(dtype: torch.dtype, divisor: int) -> None:
    wide = torch.float64 if dtype.itemsize >= 4 else torch.float32
    one, other = (any_tensor(dtype, 300, seed=seed) for seed in (1, 2))
    found = weighted_sum([one, other], [Fraction(1, divisor), Fraction(3, divisor)])
    if dtype is torch.float64:
        expected = one * (4 / divisor) - (one - other) * 3 / divisor
    else:
        expected = ((one.to(wide) + other.to(wide) * 3) / divisor).to(dtype)
    assert same_bits(found, expected)
