from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from soupcore import Cancelled, RecipeError, Store, SweepError
from soupcore.analysis import soup_vs_ensemble
from soupcore.connectivity import stored_geometry, stored_lines, stored_plane
from soupcore.jobs.kinds import KINDS, WarmState

Passes = Callable[[], int]
BATCHES = 10  # a pass over the split


@pytest.fixture
def warm(store: Store, task_file: Path) -> WarmState:
    return WarmState(store, [f"{task_file}:task"], device="cpu")


@pytest.fixture
def request_(folder: str, task_file: Path) -> dict[str, Any]:
    return {"sweep": folder, "task": f"{task_file}:task"}


def silent(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
    assert 0 <= done <= total


def test_all_pairs_of_names_are_evaluated_so_that_the_page_finds_them(
    warm: WarmState, request_: dict[str, Any]
) -> None:
    names = ["run1", "run2", "run10"]
    wanted = request_ | {"names": names, "alphas": "adaptive", "splits": ["select"]}
    assert KINDS["paths"](warm, wanted, silent) == {"paths": 3}
    sweep, evaluator = warm.sweep(request_), warm.evaluator(request_)
    found = stored_lines([(sweep[a], sweep[b]) for a, b in combinations(names, 2)], evaluator)
    assert (found.open, found.missing) == ([False] * 3, 0)


def test_a_screen_is_evaluated_on_a_part(
    warm: WarmState, request_: dict[str, Any], passes_made: Passes
) -> None:
    wanted = request_ | {"names": ["run1", "run2"], "alphas": 3, "splits": ["select"], "part": 100}
    KINDS["paths"](warm, wanted, silent)
    assert passes_made() == 2  # 300 examples
    sweep, evaluator = warm.sweep(request_), warm.evaluator(request_)
    part = evaluator.task.part("select", 100)
    line = [(sweep["run1"], sweep["run2"])]
    assert stored_lines(line, evaluator, 3, split=part).missing == 0
    assert stored_lines(line, evaluator, 3).missing == 3


def test_a_plane_is_evaluated_after_its_geometry_and_goes_on_where_it_stopped(
    warm: WarmState, request_: dict[str, Any], passes_made: Passes
) -> None:
    corners = ["base", "run1", "run2"]
    wanted = request_ | {"corners": corners, "split": "select", "size": 3}
    sweep, evaluator = warm.sweep(request_), warm.evaluator(request_)

    def stop(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        if passes_made() >= 4 * BATCHES:
            raise Cancelled

    with pytest.raises(Cancelled):
        KINDS["plane"](warm, wanted, stop)
    assert stored_geometry(sweep, warm.store) is not None
    KINDS["plane"](warm, wanted, silent)
    found = stored_plane(sweep, evaluator, corners, 3)
    assert found is not None
    assert found.missing == 0
    assert passes_made() <= (9 + 1) * BATCHES


def test_the_theory_takes_the_ends_the_middle_and_a_point_on_either_side_of_it(
    warm: WarmState, request_: dict[str, Any], passes_made: Passes
) -> None:
    wanted = request_ | {"names": ["run1", "run2", "run10"], "split": "select"}
    KINDS["two-model theory"](warm, wanted, silent)
    sweep, evaluator = warm.sweep(request_), warm.evaluator(request_)
    soup_vs_ensemble(evaluator, sweep["run1"].mixture, sweep["run2"].mixture)
    assert passes_made() == (3 + 3 * 3) * BATCHES


@pytest.mark.parametrize(
    ("end", "error", "words"),
    [("nobody", SweepError, "'nobody'"), ({"soup": "gone"}, RecipeError, "no soup 'gone'")],
)
def test_a_missing_end_is_refused_with_a_sentence(
    warm: WarmState, request_: dict[str, Any], end: Any, error: type[Exception], words: str
) -> None:
    wanted = request_ | {"pairs": [["run1", end]], "alphas": 2, "splits": ["select"]}
    with pytest.raises(error, match=words):
        KINDS["paths"](warm, wanted, silent)
