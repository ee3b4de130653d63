from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore.merges.ties import kth_largest

Row = npt.NDArray[np.floating]


def in_pieces(rows: list[Row], size: int) -> Iterator[tuple[int, Row]]:
    for row, numbers in enumerate(rows):
        for start in range(0, len(numbers), size):
            yield row, numbers[start : start + size]


@given(
    st.lists(
        st.lists(st.floats(0, width=32, allow_nan=False), min_size=1, max_size=40),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 9),
    st.data(),
)
def test_a_threshold_is_an_element_of_the_sorted_row(
    rows: list[list[float]], dtype: type[np.floating], size: int, data: st.DataObject
) -> None:
    arrays = [np.array(row, dtype=dtype) for row in rows]
    ranks = [data.draw(st.integers(1, len(row))) for row in rows]
    found = kth_largest(lambda: in_pieces(arrays, size), ranks, dtype)
    assert found == [float(np.sort(row)[-rank]) for row, rank in zip(arrays, ranks, strict=True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", ["normal", "few values", "one value", "wide"])
def test_thresholds_of_long_rows_are_exact(dtype: type[np.floating], spread: str) -> None:
    generator = np.random.default_rng(0)
    row = np.abs(generator.standard_normal(600_000))
    if spread == "few values":
        row = np.round(row)
    if spread == "one value":
        row = np.full(600_000, 0.25)
    if spread == "wide":
        row = np.exp(10 * generator.standard_normal(600_000))
    row = row.astype(dtype)
    for rank in (1, 2, 120_000, 599_999, 600_000):
        (found,) = kth_largest(lambda: in_pieces([row], 250_000), [rank], dtype)
        assert found == np.partition(row, len(row) - rank)[len(row) - rank]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("off", [0.0, 1e-4, -1e-4, 0.5, -1.0, 1e30], ids=str)
def test_guessed_thresholds_change_only_the_number_of_reads(
    dtype: type[np.floating], off: float
) -> None:
    generator = np.random.default_rng(1)
    rows = [np.abs(generator.standard_normal(300_000)).astype(dtype) for _ in range(2)]
    ranks = [60_000, 299_000]
    answers = [float(np.sort(row)[-rank]) for row, rank in zip(rows, ranks, strict=True)]
    reads = 0

    def pieces() -> Iterator[tuple[int, Row]]:
        nonlocal reads
        reads += 1
        return in_pieces(rows, 100_000)

    guesses = [max(0.0, answer * (1 + off)) for answer in answers]
    assert kth_largest(pieces, ranks, dtype, guesses) == answers
    is_near = off == 0 or (dtype == np.float32 and abs(off) < 1e-3)
    assert reads == 1 if is_near else reads > 1
