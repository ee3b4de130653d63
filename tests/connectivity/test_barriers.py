import numpy as np
import pytest

from soupcore import Barriers, Evaluator, LinearPath, Sweep, SweepError, barriers, linear_path
from tests.connectivity.well import Well

NAMES = ("run1", "run2", "run10")


def test_barriers_of_a_double_well_are_exact(well: Well) -> None:
    found = barriers(well.sweep, well.evaluator, alphas=[0.25, 4 / 9, 0.5])
    assert found.names == ("left", "right", "right_too")
    # left to right_too goes through w = 0 at α = 4/9, where the chord has risen to 4/9 · L(1.25).
    tilted = 1 - 4 / 9 * (1.25**2 - 1) ** 2
    expected = np.array([[0, 1, tilted], [1, 0, 0], [tilted, 0, 0]])
    np.testing.assert_allclose(found.loss, expected, atol=1e-5)
    np.testing.assert_allclose(found.error, [[0, 1, 1], [1, 0, 0], [1, 0, 0]], atol=1e-6)


def test_each_pair_is_its_path_and_the_matrices_are_symmetric(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    found = barriers(sweep, evaluator, alphas=5)
    assert found.names == NAMES
    assert list(found.paths) == [("run1", "run2"), ("run1", "run10"), ("run2", "run10")]
    for (a, b), path in found.paths.items():
        expected = linear_path(sweep[a], sweep[b], evaluator, 5)
        assert path.losses.tolist() == expected.losses.tolist()
        i, j = NAMES.index(a), NAMES.index(b)
        assert found.loss[i, j] == found.loss[j, i] == expected.barrier
        assert found.error[i, j] == found.error[j, i] == expected.error_barrier
        assert found.error_over_mean[i, j] == expected.error_barrier_over_mean
    assert not found.loss.diagonal().any()
    assert not found.error.diagonal().any()
    assert (found.loss >= 0).all()


@pytest.mark.parametrize(("alphas", "inner"), [(2, 0), (3, 1), (5, 3)])
def test_ends_are_evaluated_once_for_all_pairs(
    sweep: Sweep, evaluator: Evaluator, passes: list[int], alphas: int, inner: int
) -> None:
    barriers(sweep, evaluator, alphas=alphas)
    assert len(passes) == 3 + 3 * inner
    barriers(sweep, evaluator, ["run10", "run2"], alphas=alphas)
    assert len(passes) == 3 + 3 * inner


def test_barriers_are_of_the_ingredients_named_in_the_order_of_the_sweep(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    found = barriers(sweep, evaluator, ["run10", "run1"], 3, split="test")
    assert found.names == ("run1", "run10")
    assert found.paths["run1", "run10"].split == "test"
    assert barriers(sweep, evaluator, ["run2"]).loss.tolist() == [[0]]
    assert barriers(sweep, evaluator, []).loss.shape == (0, 0)
    with pytest.raises(SweepError, match="no usable ingredient 'run3'"):
        barriers(sweep, evaluator, ["run3"])


def test_progress_of_barriers_ends_complete(sweep: Sweep, evaluator: Evaluator) -> None:
    shares: list[float] = []
    barriers(sweep, evaluator, alphas=3, on_progress=lambda done, of: shares.append(done / of))
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_pair_without_a_path_is_unknown() -> None:
    line = np.array([0.0, 0.5, 1.0])
    path = LinearPath(line, np.array([0.0, 2.0, 0.0]), np.array([1.0, 0.5, 1.0]), "val", 4)
    found = Barriers(("a", "b", "c"), {("a", "c"): path})
    nan = np.nan
    np.testing.assert_equal(found.loss, [[0, nan, 2], [nan, 0, nan], [2, nan, 0]])
    np.testing.assert_equal(found.error, [[0, nan, 0.5], [nan, 0, nan], [0.5, nan, 0]])
    assert repr(found).startswith("Barriers(1 of 3 pairs of 3 ingredients")
    assert found.known.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
