import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from soupcore import (
    Checkpoint,
    CheckpointError,
    Mixture,
    TensorInfo,
    interpolate,
    mean,
    open_checkpoint,
)
from soupcore.checkpoints.chunks import CHUNK
from soupcore.checkpoints.dtypes import DTYPES
from soupcore.mixtures import as_fraction
from soupcore.writers import write_safetensors
from tests.helpers import any_tensor, average, same_bits, same_weights
from tests.toy import build_model, random_state

CheckpointOf = Callable[[Mapping[str, Tensor]], Checkpoint]

FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_floating_point or dtype.is_complex]
fractions = st.fractions(-5, 5, max_denominator=60)
positive = st.fractions(Fraction(1, 60), 5, max_denominator=60)


def point(checkpoint: Checkpoint) -> Mixture:
    return Mixture([(checkpoint, 1)])


@pytest.fixture
def abc(checkpoint_of: CheckpointOf) -> list[Checkpoint]:
    return [checkpoint_of(random_state(seed)) for seed in (1, 2, 3)]


# Against other ways to average


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_the_mean_is_torch_s_averaged_model_on_floats(checkpoint_of: CheckpointOf, k: int) -> None:
    averaged = AveragedModel(build_model(), use_buffers=True)
    for seed in range(k):
        model = build_model()
        model.load_state_dict(random_state(seed))
        averaged.update_parameters(model)
    mixed = mean(point(checkpoint_of(random_state(seed))) for seed in range(k)).state_dict()
    expected = averaged.module.state_dict()
    assert mixed.keys() == expected.keys()
    for name, tensor in expected.items():  # torch accumulates in float32, so not to the last bit
        torch.testing.assert_close(mixed[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 16])
def test_the_mean_of_float32_is_the_exact_mean_rounded_once(
    checkpoint_of: CheckpointOf, k: int
) -> None:
    tensors = [any_tensor(torch.float32, 500, seed=seed) for seed in range(k)]
    mixed = mean(point(checkpoint_of({"w": tensor})) for tensor in tensors).tensor("w")
    columns = zip(*(tensor.tolist() for tensor in tensors), strict=True)
    expected = np.array([math.fsum(column) / k for column in columns]).astype(np.float32)
    assert mixed.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("k", [2, 3, 7])
def test_the_mean_of_half_types_is_summed_in_float32_in_the_order_of_digests(
    checkpoint_of: CheckpointOf, dtype: torch.dtype, k: int
) -> None:
    checkpoints = [checkpoint_of({"w": any_tensor(dtype, 500, seed=seed)}) for seed in range(k)]
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.digest)
    total = np.zeros(500, np.float32)
    for checkpoint in ordered:
        total += checkpoint.read("w").float().numpy()
    expected = torch.from_numpy(total / np.float32(k)).to(dtype)
    assert same_bits(mean(map(point, checkpoints)).tensor("w"), expected)


@pytest.mark.parametrize(
    ("dtype", "large"),
    [
        (torch.float32, 2.0**30),
        (torch.float16, 2.0**12),
        (torch.bfloat16, 2.0**12),
        (torch.float8_e4m3fn, 2.0**7),
        (torch.float8_e5m2, 2.0**12),
        (torch.complex64, 2.0**30),
    ],
    ids=str,
)
def test_sums_are_kept_in_a_wider_type_than_the_weights(
    checkpoint_of: CheckpointOf, dtype: torch.dtype, large: float
) -> None:
    # In the weights' own type large + 1 is large, so whichever order the terms are added in, the
    # 1 would be lost in some column.
    columns = list(itertools.permutations([large, 1, -large]))
    rows = [torch.tensor(row, dtype=torch.float64).to(dtype) for row in zip(*columns, strict=True)]
    mixed = mean(point(checkpoint_of({"w": row})) for row in rows).tensor("w")
    assert same_bits(mixed, torch.full((6,), 1 / 3).to(dtype))


def equal_but_for_the_last(dtype: torch.dtype, make: CheckpointOf, k: int) -> list[Checkpoint]:
    # A tensor that is equal as a whole would be copied, and prove nothing of sums.
    w = any_tensor(dtype, 3000)
    return [make({"w": torch.cat([w, torch.tensor([i]).to(dtype)])}) for i in range(k)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_k_equal_tensors_average_to_the_same_bits(
    checkpoint_of: CheckpointOf, dtype: torch.dtype
) -> None:
    made = equal_but_for_the_last(dtype, checkpoint_of, 20)
    w = made[0].read("w")
    for k in range(1, 21):
        assert same_bits(mean(map(point, made[:k])).tensor("w")[:-1], w[:-1]), k


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_any_weighted_mean_of_equal_tensors_is_that_tensor(
    checkpoint_of: CheckpointOf, dtype: torch.dtype
) -> None:
    made = equal_but_for_the_last(dtype, checkpoint_of, 4)
    w = made[0].read("w")

    @given(
        st.lists(fractions, min_size=4, max_size=4).filter(lambda cs: sum(cs) != 0),
        st.sampled_from([1, 7, 1 << 30]),
    )
    def holds(numbers: list[Fraction], divisor: int) -> None:
        coefficients = [c / sum(numbers) for c in numbers[1:]]
        coefficients = [c + Fraction(1, divisor * 1009) for c in coefficients]
        coefficients.append(1 - sum(coefficients, Fraction()))
        mixed = Mixture(zip(made, coefficients, strict=True))
        assert same_bits(mixed.tensor("w")[:-1], w[:-1])

    holds()


def test_identical_files_are_one_point(checkpoint_of: CheckpointOf) -> None:
    copies = [point(checkpoint_of(random_state(1))) for _ in range(3)]
    assert mean(copies) == copies[0]
    assert same_weights(mean(copies).state_dict(), random_state(1))


# The order of ingredients, and the identity of a point


def test_the_order_of_ingredients_changes_nothing(checkpoint_of: CheckpointOf) -> None:
    state = {"a": any_tensor(torch.float16, 300), "n": torch.tensor([1, 2])}
    checkpoints = [
        checkpoint_of({name: tensor + seed for name, tensor in state.items()}) for seed in range(4)
    ]
    results = [
        Mixture((checkpoint, Fraction(1, 4)) for checkpoint in order)
        for order in itertools.permutations(checkpoints)
    ]
    assert {result.key for result in results} == {results[0].key}
    assert all(same_weights(r.state_dict(), results[0].state_dict()) for r in results[1:])


def test_equal_points_have_equal_keys(abc: list[Checkpoint]) -> None:
    a, b, c = map(point, abc)
    half = Fraction(1, 2)
    ways = [
        mean([a, b]),
        mean([b, a]),
        interpolate(a, b, 0.5),
        interpolate(b, a, half),
        a * 0.5 + b * half,
        half * (a + b),
        a + half * (b - a),
        (a + b + c) * half - c * 0.5,
        mean([mean([a, b]), mean([a, b])]),
        Mixture([(abc[0], 0.25), (abc[1], half), (abc[0], 0.25), (abc[2], 0)]),
    ]
    assert {way.key for way in ways} == {ways[0].key}
    assert set(ways) == {ways[0]}
    assert ways[0] not in {a, b, c, mean([a, c])}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.1, Fraction(1, 10)),
        (0.3, Fraction(3, 10)),
        (1e-20, Fraction(1, 10**20)),
        (-2.5, Fraction(-5, 2)),
        (3, Fraction(3)),
        (Fraction(1, 3), Fraction(1, 3)),
        (np.float64(0.7), Fraction(7, 10)),
    ],
)
def test_a_float_coefficient_is_its_shortest_decimal(
    given: float | Fraction, expected: Fraction
) -> None:
    assert as_fraction(given) == expected


@pytest.mark.parametrize("coefficient", [math.nan, math.inf, -math.inf])
def test_a_coefficient_must_be_finite(abc: list[Checkpoint], coefficient: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        Mixture([(abc[0], coefficient)])


@pytest.mark.parametrize("terms", [[], [0], [0.0, 0], [1, -1], [0.1, 0.2, Fraction(-3, 10)]])
def test_a_mixture_without_terms_is_refused(abc: list[Checkpoint], terms: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one non-zero coefficient"):
        Mixture((abc[0], coefficient) for coefficient in terms)


def test_a_mean_of_no_points_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean([])


# Algebra


@given(x=positive, y=positive, z=positive)
def test_mixtures_follow_the_laws_of_a_vector_space(
    tmp_path: Path, x: Fraction, y: Fraction, z: Fraction
) -> None:
    a, b, c = (point(checkpoint) for checkpoint in saved_scalars(tmp_path))
    p, q, r = x * a + b, y * b + c, z * c + a  # no sum below is the point 0, which is none
    assert p + q == q + p
    assert (p + q) + r == p + (q + r)
    assert x * (y * p) == (x * y) * p
    assert x * (p + q) == x * p + x * q
    assert (x + y) * p == x * p + y * p
    assert 1 * p == p
    assert p - q == p + q * -1 == -1 * (q - p)
    assert interpolate(p, q, x) == p + x * (q - p)
    assert mean([p, q, r]) == (p + q + r) * Fraction(1, 3)


@given(x=fractions.filter(bool), y=fractions.filter(bool), z=fractions.filter(bool))
def test_mixing_weights_is_mixing_numbers(
    tmp_path: Path, x: Fraction, y: Fraction, z: Fraction
) -> None:
    made = saved_scalars(tmp_path)
    mixed = Mixture(zip(made, (x, y, z), strict=True)).tensor("w").item()
    values = [Fraction(checkpoint.read("w").item()) for checkpoint in made]
    exact = x * values[0] + y * values[1] + z * values[2]
    assert mixed == pytest.approx(float(exact), rel=1e-15, abs=1e-14)


def saved_scalars(folder: Path) -> list[Checkpoint]:
    made = []
    for value in (0.3, -1.7, 2.9):
        path = folder / f"scalar {value}.safetensors"
        if not path.exists():
            save_file({"w": torch.tensor(value, dtype=torch.float64)}, path)
        made.append(open_checkpoint(path))
    return made


@pytest.mark.parametrize(
    "coefficients",
    [
        (0.123456789, 0.876543211),  # denominators too large for exact numerators
        (Fraction(1, 3), Fraction(2, 3)),
        (Fraction(1, 1_000_003), Fraction(999, 1009)),
        (1.7, -0.7),
        (1, 1),
        (-2, Fraction(1, 7)),
    ],
)
def test_a_weighted_sum_is_the_exact_one_rounded(
    checkpoint_of: CheckpointOf, coefficients: tuple[float | Fraction, ...]
) -> None:
    tensors = [any_tensor(torch.float32, 200, seed=seed) for seed in (1, 2)]
    exact = [
        float(sum(as_fraction(c) * Fraction(v) for c, v in zip(coefficients, column, strict=True)))
        for column in zip(*(tensor.tolist() for tensor in tensors), strict=True)
    ]
    made = [checkpoint_of({"w": tensor}) for tensor in tensors]
    mixed = Mixture(zip(made, coefficients, strict=True)).tensor("w")
    torch.testing.assert_close(mixed, torch.tensor(exact), rtol=1.2e-7, atol=1e-12)


# Paths


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_ends_of_an_interpolation_are_the_ends_bit_for_bit(
    checkpoint_of: CheckpointOf, dtype: torch.dtype
) -> None:
    special = torch.tensor([0.0, -0.0, 1e-40, -1e-7, 240.0, math.inf, math.nan]).to(dtype)
    states = [
        {"w": torch.cat([special, any_tensor(dtype, 20, seed=seed)]), "n": torch.tensor(seed)}
        for seed in (1, 2)
    ]
    start, end = (point(checkpoint_of(state)) for state in states)
    assert interpolate(start, end, 0) == start
    assert interpolate(start, end, 1.0) == end
    assert same_weights(interpolate(start, end, 0).state_dict(), states[0])
    assert same_weights(interpolate(start, end, 1).state_dict(), states[1])


@pytest.mark.parametrize(("alpha", "expected"), [(-1, -1.0), (0.25, 1.5), (2, 5.0)])
def test_interpolation_goes_on_beyond_the_ends(
    checkpoint_of: CheckpointOf, alpha: float, expected: float
) -> None:
    start, end = (point(checkpoint_of({"w": torch.tensor([value])})) for value in (1.0, 3.0))
    assert interpolate(start, end, alpha).tensor("w").tolist() == [expected]


# What is not a float


def test_integers_come_from_the_source_with_the_largest_coefficient(
    checkpoint_of: CheckpointOf,
) -> None:
    made = [
        checkpoint_of({"w": torch.tensor([float(i)]), "n": torch.tensor([10 * i, 3])})
        for i in range(3)
    ]
    mixed = Mixture(zip(made, (0.2, 0.5, 0.3), strict=True))
    assert mixed.tensor("n").tolist() == [10, 3]
    assert Mixture(zip(made, (-2, 1, 2), strict=True)).tensor("n").tolist() == [20, 3]


def test_integers_of_equal_shares_come_from_the_lowest_digest(checkpoint_of: CheckpointOf) -> None:
    made = [
        checkpoint_of({"w": torch.tensor([float(i)]), "mask": torch.tensor([i == 0, i == 1])})
        for i in range(3)
    ]
    lowest = min(made, key=lambda checkpoint: checkpoint.digest)
    assert same_bits(mean(map(point, made)).tensor("mask"), lowest.read("mask"))


@pytest.mark.parametrize(
    "ids",
    [
        *(
            pytest.param(any_tensor(dtype, 50), id=str(dtype))
            for dtype in DTYPES.values()
            if dtype not in FLOATS
        ),
        pytest.param(torch.tensor([(1 << 62) + 1, -(1 << 62) - 1]), id="larger than float64 holds"),
    ],
)
def test_integers_are_kept_to_the_bit(checkpoint_of: CheckpointOf, ids: Tensor) -> None:
    made = [checkpoint_of({"w": torch.tensor([float(i)]), "ids": ids}) for i in range(3)]
    assert same_bits(mean(map(point, made)).tensor("ids"), ids)


# What all sources hold alike


MASK = torch.tensor([0.0, -math.inf, math.nan])


@pytest.mark.parametrize("shares", [(0.5, 0.25, 0.25), (1, 1, -1), (0.9, 0.2, -0.1)])
def test_a_tensor_that_all_sources_hold_alike_is_copied_from_one(
    checkpoint_of: CheckpointOf, shares: tuple[float, ...]
) -> None:
    made = [checkpoint_of({"w": torch.tensor([float(i)]), "mask": MASK}) for i in range(3)]
    mixed = Mixture(zip(made, shares, strict=True))
    read: list[tuple[Checkpoint, str]] = []

    def counted(checkpoint: Checkpoint, name: str, start: int, stop: int) -> Tensor:
        read.append((checkpoint, name))
        return checkpoint.read_elements(name, start, stop)

    assert same_bits(mixed.tensor("mask", counted), MASK)
    assert read == [(mixed.copied_from("mask"), "mask")]
    assert mixed.copied_from("w") is None


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        pytest.param(MASK, (1, 1), id="coefficients that do not add up to 1"),
        pytest.param(MASK, (1, -1), id="a difference"),
        pytest.param(MASK.flip(0), (0.5, 0.5), id="other values"),
        pytest.param(MASK.double(), (0.5, 0.5), id="another dtype"),
    ],
)
def test_a_tensor_is_summed_where_a_copy_would_be_wrong(
    checkpoint_of: CheckpointOf, other: Tensor, shares: tuple[float, ...]
) -> None:
    made = [
        checkpoint_of({"w": torch.tensor([float(i)]), "mask": mask})
        for i, mask in enumerate([MASK, other])
    ]
    assert Mixture(zip(made, shares, strict=True)).copied_from("mask") is None


# Sources that differ


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (torch.float16, torch.float32, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float32, torch.float64, torch.float64),
        (torch.int32, torch.int64, torch.int64),
        (torch.int64, torch.float32, torch.float32),
    ],
    ids=str,
)
def test_sources_of_two_dtypes_give_the_one_that_torch_promotes_to(
    checkpoint_of: CheckpointOf, one: torch.dtype, other: torch.dtype, expected: torch.dtype
) -> None:
    made = [
        checkpoint_of({"w": torch.tensor([4, 8]).to(one)}),
        checkpoint_of({"w": torch.tensor([4, 8]).to(other)}),
    ]
    mixed = mean(map(point, made))
    assert mixed.tensors == {"w": TensorInfo((2,), expected)}
    assert same_bits(mixed.tensor("w"), torch.tensor([4, 8]).to(expected))


SOURCE = {"w": torch.ones(2, 3), "b": torch.ones(2), "c": torch.ones(1)}


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        (SOURCE, {"w": torch.ones(2, 3), "b": torch.ones(2)}, "has no tensor 'c'"),
        (SOURCE, SOURCE | {"w": torch.ones(3, 2)}, r"'w' has shape \["),
        (SOURCE, SOURCE | {"w": torch.ones(6)}, r"'w' has shape \["),
        (
            SOURCE,
            {"v": torch.ones(2, 3), "b": torch.ones(2), "c": torch.ones(1)},
            r"no tensor '[vw]'",
        ),
        ({"w": torch.ones(2).to(torch.float8_e4m3fn)}, {"w": torch.ones(2)}, "'w'"),
        (
            {"w": torch.ones(2, dtype=torch.uint16)},
            {"w": torch.ones(2, dtype=torch.int32)},
            "'w'",
        ),
    ],
    ids=["missing", "shape", "rank", "renamed", "float8 and float32", "uint16 and int32"],
)
def test_sources_that_do_not_fit_are_refused_by_tensor_and_both_files(
    checkpoint_of: CheckpointOf, one: dict[str, Tensor], other: dict[str, Tensor], problem: str
) -> None:
    made = [checkpoint_of(one), checkpoint_of(other)]
    with pytest.raises(CheckpointError, match=problem) as caught:
        mean(map(point, made)).state_dict()
    assert all(str(checkpoint.path) in str(caught.value) for checkpoint in made)


def test_one_tensor_alone_is_mixed_and_refused_like_all(checkpoint_of: CheckpointOf) -> None:
    one, other = (
        checkpoint_of({"w": torch.full([2], number), name: torch.ones(1)})
        for number, name in ((1.0, "a"), (3.0, "b"))
    )
    mixed = mean(map(point, (one, other)))
    assert mixed.info("w") == TensorInfo((2,), torch.float32)
    assert mixed.tensor("w").tolist() == [2, 2]
    first, second = mixed.sources.values()
    (only_in_first,) = first.tensors.keys() - second.tensors.keys()
    with pytest.raises(CheckpointError, match=f"has no tensor '{only_in_first}', which"):
        mixed.tensor(only_in_first)


def test_tensors_in_another_order_are_mixed_by_name(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2), "b": torch.ones(3)}, tmp_path / "1.pt")
    torch.save({"b": torch.ones(3) * 3, "a": torch.zeros(2)}, tmp_path / "2.pt")
    made = [open_checkpoint(tmp_path / name) for name in ("1.pt", "2.pt")]
    mixed = mean(map(point, made)).state_dict()
    assert mixed["a"].tolist() == [0, 0]
    assert mixed["b"].tolist() == [2, 2, 2]


# Chunks


@pytest.mark.parametrize("numel", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16], ids=str)
def test_chunks_put_together_are_the_mixed_tensor(
    checkpoint_of: CheckpointOf, numel: int, dtype: torch.dtype
) -> None:
    states = [{"w": any_tensor(dtype, numel, seed=seed)} for seed in (1, 2)]
    made = [checkpoint_of(state) for state in states]
    mixed = mean(map(point, made))
    chunks = [chunk.clone() for chunk in mixed.chunks("w")]
    lengths = [len(chunk) for chunk in chunks]
    assert max(lengths, default=0) <= CHUNK
    assert sum(lengths) == numel
    expected = (
        average([*states])["w"]
        if dtype.is_floating_point
        else min(made, key=lambda c: c.digest).read("w")
    )
    assert same_bits(torch.cat([torch.empty(0, dtype=dtype), *chunks]), expected)
    assert same_bits(mixed.tensor("w"), expected)


@pytest.mark.parametrize("accumulate", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_a_part_mixed_into_a_buffer_has_the_bits_of_the_whole(
    checkpoint_of: CheckpointOf, dtype: torch.dtype, accumulate: torch.dtype
) -> None:
    made = [checkpoint_of({"w": any_tensor(dtype, 1000, seed=seed)}) for seed in range(3)]
    mixture = Mixture(zip(made, (0.5, 0.2, Fraction(2, 7)), strict=True))
    whole = mixture.tensor("w", accumulate=accumulate)
    for start, stop in [(0, 1000), (0, 0), (3, 4), (7, 999), (500, 1000)]:
        buffer = any_tensor(dtype, 1010, seed=9)
        expected = torch.cat([buffer[:5], whole[start:stop], buffer[5 + stop - start :]])
        mixture.mix_into("w", buffer[5 : 5 + stop - start], start, accumulate=accumulate)
        assert same_bits(buffer, expected), (start, stop)


@pytest.mark.parametrize(
    "out", [torch.empty(6, dtype=torch.float64), torch.empty(2, 3)], ids=["dtype", "shape"]
)
def test_a_buffer_that_does_not_fit_is_refused(checkpoint_of: CheckpointOf, out: Tensor) -> None:
    with pytest.raises(ValueError, match=r"'w' is torch\.float32; give a 1-D buffer"):
        point(checkpoint_of({"w": torch.zeros(2, 3)})).mix_into("w", out)


def test_another_way_to_read_may_be_given(abc: list[Checkpoint]) -> None:
    asked: list[tuple[str, str, int, int]] = []

    def read(checkpoint: Checkpoint, name: str, start: int, stop: int) -> Tensor:
        asked.append((checkpoint.digest, name, start, stop))
        return torch.full((stop - start,), 5.0)

    mixed = mean(map(point, abc)).tensor("0.weight", read)
    assert mixed.tolist() == [[5.0] * 4] * 8
    assert asked == [(digest, "0.weight", 0, 32) for digest in sorted(c.digest for c in abc)]


def test_mixing_does_not_change_its_inputs(abc: list[Checkpoint]) -> None:
    held = {c.digest: {n: c.read(n).flatten() for n in c.tensors} for c in abc}
    before = {d: {n: t.clone() for n, t in tensors.items()} for d, tensors in held.items()}
    mixture = abc_mixture(abc)
    for name in mixture.tensors:
        mixture.tensor(name, lambda c, name, start, stop: held[c.digest][name][start:stop])
    assert all(same_weights(held[digest], before[digest]) for digest in held)


def abc_mixture(abc: list[Checkpoint]) -> Mixture:
    return Mixture(zip(abc, (Fraction(1), Fraction(2, 7), Fraction(-2, 7)), strict=True))


def test_a_mixture_written_as_it_streams_is_its_state_dict(
    tmp_path: Path, abc: list[Checkpoint]
) -> None:
    mixed = abc_mixture(abc)
    write_safetensors(tmp_path / "mixed.safetensors", mixed.tensors, mixed.chunks, {})
    assert same_weights(load_file(tmp_path / "mixed.safetensors"), mixed.state_dict())


def test_a_mixture_of_one_written_out_is_the_same_weights_again(
    tmp_path: Path, abc: list[Checkpoint]
) -> None:
    one = point(abc[0])
    write_safetensors(tmp_path / "copy.safetensors", one.tensors, one.chunks, {})
    assert open_checkpoint(tmp_path / "copy.safetensors").digest == abc[0].digest
