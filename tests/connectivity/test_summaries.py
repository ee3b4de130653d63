from dataclasses import astuple, replace

import numpy as np
import pytest

from soupcore import (
    Barriers,
    Cancelled,
    ClassificationTask,
    Evaluator,
    LinearPath,
    Store,
    Sweep,
    barriers,
    linear_path,
)
from soupcore.connectivity import (
    Adaptive,
    PairSummaries,
    evaluate_lines,
    known_pairs,
    stored_lines,
)
from soupcore.connectivity import lines as lines_module
from soupcore.connectivity.lines import keep_stored_lines
from soupcore.connectivity.path import Alphas, Pair
from soupcore.connectivity.summaries import LineSummary
from soupcore.evaluation import Evaluations, StatisticsChoice
from tests.helpers import State, held_sweep

NAMES = ["run1", "run2", "run10"]
FIELDS = {
    "loss": "barrier",
    "error": "error_barrier",
    "error_over_mean": "over_mean",
    "midpoint_advantage": "midpoint_advantage",
}
PAIRS = [("run1", "run2"), ("run1", "run10"), ("run2", "run10")]


@pytest.fixture
def reading(task: ClassificationTask, store: Store) -> Evaluations:
    """What a page has: no task, only its description."""
    return Evaluations(task.describe(), store)


def stored(sweep: Sweep, evaluator: Evaluator, alphas: Alphas) -> tuple[Barriers, set[Pair]]:
    """Return the stored paths of the pairs, and the pairs whose paths are preliminary."""
    lines = stored_lines([(sweep[a], sweep[b]) for a, b in PAIRS], evaluator, alphas)
    paths = {pair: path for pair, path in zip(PAIRS, lines.paths, strict=True) if path is not None}
    still_open = {pair for pair, is_open in zip(PAIRS, lines.open, strict=True) if is_open}
    return Barriers(tuple(NAMES), paths), still_open & paths.keys()


def assert_summarised(known: PairSummaries, found: Barriers) -> None:
    assert list(known.paths) == list(found.paths)
    for pair, path in found.paths.items():
        np.testing.assert_array_equal(astuple(known.paths[pair]), astuple(LineSummary.of(path)))
    by_pair = known.by_pair("midpoint_gain")
    assert list(by_pair) == list(found.paths)
    np.testing.assert_array_equal([*by_pair.values()], known.column("midpoint_gain"))


@pytest.mark.parametrize("alphas", [2, 3, 5, Adaptive(), Adaptive(0.0001)], ids=str)
@pytest.mark.parametrize("statistics", ["averaged", "re-estimated"])
def test_summaries_are_those_of_the_paths(
    monkeypatch: pytest.MonkeyPatch,
    sweep: Sweep,
    evaluator: Evaluator,
    reading: Evaluations,
    alphas: Alphas,
    statistics: StatisticsChoice,
) -> None:
    evaluator, reading = evaluator.with_statistics(statistics), reading.with_statistics(statistics)
    monkeypatch.setattr(lines_module, "_WRITE_EVERY", 0)
    found = barriers(sweep, evaluator, NAMES, alphas, split="test")
    known = known_pairs(sweep, reading, NAMES, alphas, split="test")
    for measure, field in FIELDS.items():
        np.testing.assert_array_equal(known.matrix(field), getattr(found, measure))
    assert_summarised(known, found)
    assert known.settled.all()
    assert known.preliminary == []
    assert known.known.all()
    other: StatisticsChoice = "averaged" if statistics == "re-estimated" else "re-estimated"
    assert len(known_pairs(sweep, reading.with_statistics(other), NAMES, alphas)) == 0


def test_pairs_are_known_whatever_else_was_evaluated_and_in_either_direction(
    sweep: Sweep, evaluator: Evaluator, reading: Evaluations
) -> None:
    assert len(known_pairs(sweep, reading, alphas=5)) == 0
    path = linear_path(sweep["run10"], sweep["run1"], evaluator, 5)
    linear_path(sweep["base"], sweep["run1"], evaluator, 5)
    known = known_pairs(sweep, reading, alphas=5)
    (summary,) = known.paths.values()
    assert list(known.paths) == [("run1", "run10")]
    assert summary.barrier_alpha == pytest.approx(1 - path.barrier_alpha)
    assert summary.barrier == path.barrier
    assert known.is_settled(("run10", "run1"))
    assert not known.is_settled(("run1", "run2"))
    assert known.known.sum() == 3 + 2
    assert len(known_pairs(sweep, reading, ["run1", "run2"], alphas=5)) == 0
    assert len(known_pairs(sweep, reading, alphas=5, split="test")) == 0
    assert len(known_pairs(sweep, reading, alphas=3)) == 0


def test_equal_weights_are_a_pair(
    evaluator: Evaluator, base_state: State, states: dict[str, State]
) -> None:
    twins = {"a": states["run1"], "b": states["run2"], "c": states["run1"]}
    sweep = held_sweep(twins, base_state)
    found = barriers(sweep, evaluator, alphas=3)
    known = known_pairs(sweep, evaluator, alphas=3)
    np.testing.assert_array_equal(known.matrix("barrier"), found.loss)
    assert known.paths.keys() == found.paths.keys()


@pytest.mark.parametrize("size", [1, 2, 32])
def test_computed_values_are_kept_when_the_work_is_stopped(
    monkeypatch: pytest.MonkeyPatch, sweep: Sweep, evaluator: Evaluator, size: int
) -> None:
    def stop(done: int, total: int) -> None:
        assert done <= total
        if done > 0.9 * total:
            raise Cancelled

    monkeypatch.setattr(lines_module, "_FIRST_SIZE", size)
    ends = [(sweep[a], sweep[b]) for a, b in PAIRS]
    with pytest.raises(Cancelled):
        evaluate_lines(ends, evaluator, 3, on_progress=stop)
    known = known_pairs(sweep, evaluator, NAMES, 3)
    found, _ = stored(sweep, evaluator, 3)
    assert 0 < len(known) < 3
    assert known.paths.keys() <= found.paths.keys()
    for pair, summary in known.paths.items():
        assert summary == LineSummary.of(found.paths[pair])


@pytest.mark.parametrize("alphas", [3, Adaptive()], ids=str)
def test_lines_of_earlier_versions_are_looked_up(
    sweep: Sweep, evaluator: Evaluator, reading: Evaluations, alphas: Alphas
) -> None:
    first = [(sweep[a], sweep[b]) for a, b in PAIRS]
    evaluate_lines(first[:1], evaluator, Adaptive())
    evaluate_lines(first[1:], evaluator, 3)  # the middle alone
    with evaluator.store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM lines")
    assert len(known_pairs(sweep, reading, NAMES, alphas)) == 0
    keep_stored_lines(first, reading, alphas)
    known = known_pairs(sweep, reading, NAMES, alphas)
    found, still_open = stored(sweep, evaluator, alphas)
    assert_summarised(known, found)
    assert {p for p in known.paths if not known.is_settled(p)} == still_open
    assert known.preliminary == sorted(still_open, key=PAIRS.index)


def test_a_screen_is_used_where_it_has_more_values(sweep: Sweep, evaluator: Evaluator) -> None:
    part = evaluator.task.part("val", 10)
    barriers(sweep, evaluator, ["run1", "run2"], split=part)  # screened only
    barriers(sweep, evaluator, ["run1", "run10"], split=part)
    barriers(sweep, evaluator, ["run1", "run10"])  # both
    whole, screen = (known_pairs(sweep, evaluator, NAMES, split=s) for s in ("val", part))
    best = whole.or_screened(screen)
    assert dict(zip(best.paths, best.screened.tolist(), strict=True)) == {
        ("run1", "run10"): False,
        ("run1", "run2"): True,
    }
    assert best.preliminary == [("run1", "run2")]
    assert best.paths["run1", "run10"] == whole.paths["run1", "run10"]
    assert best.paths["run1", "run2"] == screen.paths["run1", "run2"]
    assert np.isnan(best.matrix("barrier")[1, 2])


@pytest.mark.parametrize(
    ("barrier", "bound", "settled", "screened", "is_doubtful"),
    [
        (0.05, 0.06, True, True, True),  # near the threshold, on a part of the split
        (0.12, 0.13, False, False, True),  # near it, and not yet converged
        (0.05, 0.06, True, False, False),  # final
        (0.01, 0.04, True, True, False),  # clearly below
        (0.01, 0.05, True, True, True),
        (0.20, 0.90, True, True, True),
        (0.21, 0.90, True, True, False),  # clearly above
        (np.nan, np.nan, True, True, False),  # undefined
    ],
)
def test_doubtful_pairs_are_preliminary_and_near_the_threshold(
    barrier: float, bound: float, settled: bool, screened: bool, is_doubtful: bool
) -> None:
    path = LinearPath(np.array([0, 1]), np.zeros(2), np.zeros(2), split="val", n=9)
    summary = replace(LineSummary.of(path), barrier=barrier, barrier_bound=bound)
    found = PairSummaries(
        ("a", "b"),
        np.array([[0, 1]]),
        np.array([astuple(summary)]),
        np.array([settled]),
        np.array([screened]),
    )
    expected = [("a", "b")] if is_doubtful else []
    assert found.doubtful("barrier", "barrier_bound", 0.1) == expected
