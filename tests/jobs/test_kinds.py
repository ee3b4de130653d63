import json
from collections.abc import Mapping
from dataclasses import asdict
from math import nan
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from soupcore import (
    Cancelled,
    ClassificationTask,
    Evaluator,
    RecipeError,
    Store,
    Sweep,
    SweepError,
    TaskError,
    ema,
    load_task,
)
from soupcore.analysis import cross_fit, cross_fit_greedy
from soupcore.calls import CALLS, Result, StoredCall
from soupcore.checkpoints import sandbox
from soupcore.checkpoints.safetensors_format import SafetensorsCheckpoint
from soupcore.evaluation import StatisticsChoice
from soupcore.jobs.kinds import KINDS, WarmState
from tests.helpers import State


def state(value: float) -> State:
    return {"w": torch.full((2,), value)}


@pytest.fixture
def warm(store: Store) -> WarmState:
    return WarmState(store, [], "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with raw and EMA weights."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    torch.save({"model": state(1.0), "ema": state(2.0)}, folder / "run.pt")
    return folder


@pytest.mark.parametrize(
    ("weights", "value"),
    [({}, 2), ({"weights": ""}, 2), ({"weights": "raw weights"}, 1), ({"weights": "model"}, 1)],
    ids=str,
)
def test_a_request_says_which_weights_to_take(
    warm: WarmState, folder: Path, weights: dict[str, str], value: float
) -> None:
    request = {"sweep": str(folder), **weights}
    assert warm.sweep(request)["run"].checkpoint.read("w").tolist() == [value, value]
    assert KINDS["open"](warm, request, lambda done, total, partial=None: None)["ingredients"] == 1


def test_a_file_that_cannot_be_read_to_its_end_fails_the_job(
    warm: WarmState, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the page would have it read again and again."""
    save_file(state(3.0), folder / "broken.safetensors")

    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(SafetensorsCheckpoint, "read_into", fail)
    request = {"sweep": str(folder)}
    assert warm.sweep(request).fit.misfits == {"broken"}
    with pytest.raises(SweepError, match=r"could be read completely: broken: .*Input/output error"):
        KINDS["open"](warm, request, lambda done, total, partial=None: None)


def test_a_sweep_stays_open_until_its_files_or_the_weights_change(
    warm: WarmState, folder: Path
) -> None:
    request = {"sweep": str(folder), "weights": ""}
    first = warm.sweep(request)
    assert warm.sweep(dict(request)) is first
    other = warm.sweep(request | {"weights": "model"})
    assert other["run"].digest != first["run"].digest
    assert warm.sweep(request)["run"].digest == first["run"].digest
    save_file(state(3.0), folder / "new.safetensors")
    assert len(warm.sweep(request)) == 2


def test_a_sweep_with_a_file_whose_reader_was_killed_is_read_again(
    warm: WarmState, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {"sweep": str(folder), "weights": ""}
    torch.save({"w": state(3.0)["w"]}, folder / "other.pt")
    warm.sweep(request)
    torch.save({"w": state(4.0)["w"]}, folder / "new.pt")
    with monkeypatch.context() as killed:
        killed.setattr(sandbox, "_PROGRAM", "import os; os.kill(os.getpid(), 9)")
        with pytest.raises(SweepError, match=r"new: the file cannot be opened: .* was killed"):
            KINDS["open"](warm, request, lambda done, total, partial=None: None)
    assert sorted(warm.sweep(request).ingredients) == ["new", "other", "run"]


@pytest.mark.parametrize(("seed", "is_accepted"), [("torch.manual_seed(0)", True), ("", False)])
def test_a_task_with_varying_data_is_refused_with_a_sentence(
    store: Store, tmp_path: Path, seed: str, is_accepted: bool
) -> None:
    spec = f"{tmp_path / 'task.py'}:task"
    (tmp_path / "task.py").write_text(
        "import torch\n"
        "from soupcore import ClassificationTask, Split\n"
        f"{seed}\n"
        "split = Split('select', torch.rand(9, 4), torch.arange(9) % 3)\n"
        "task = ClassificationTask(lambda: torch.nn.Linear(4, 3), {'select': split})\n"
    )
    seen = {"select": load_task(spec).split("select").digest}
    request, warm = {"task": spec, "data": seen}, WarmState(store, [spec], "cpu")
    if is_accepted:
        assert warm.evaluator(request).task.split("select").digest == seen["select"]
    else:
        with pytest.raises(TaskError, match=r"'select' has different data each time .* Seed its"):
            warm.evaluator(request)


@pytest.fixture
def asked(sweep: Sweep, store: Store, task: ClassificationTask) -> tuple[WarmState, dict[str, str]]:
    """Jobs on the toy sweep, judged by the toy task."""

    class Warm(WarmState):
        def evaluator(self, request: Mapping[str, Any]) -> Evaluator:
            return Evaluator(task, store, device="cpu")

    return Warm(store, [], "cpu"), {"sweep": str(sweep.folder), "task": "toy"}


def quietly(done: int, total: int, partial: object = None) -> None:
    assert 0 <= done <= total


def kept(warm: WarmState, request: Mapping[str, Any], kind: str) -> Result:
    """Do a job, and return the result that the store keeps of it."""
    KINDS[kind](warm, request, quietly)
    call = CALLS[kind].from_request(request)
    assert isinstance(call, StoredCall)
    found = call.result(warm.context(request))
    assert found is not None
    return found


@pytest.mark.parametrize("recipe", ["uniform", "ties", "wise_ft"])
def test_attribution_is_of_the_soup_that_is_stored(
    asked: tuple[WarmState, dict[str, str]], recipe: str
) -> None:
    warm, request = asked
    told = {"recipe": recipe, "names": ["run1", "run2"], "parameters": {}}
    soup = KINDS["soup"](warm, request | told, quietly)["soup"]
    found = kept(warm, request | {"soup": soup, "split": "test"}, "attribution")
    assert list(found["without"]) == list(found["shapley"]) == ["run1", "run2"]
    with pytest.raises(RecipeError, match="no soup 'gone' in the store"):
        KINDS["attribution"](warm, request | {"soup": "gone", "split": "test"}, quietly)


def test_a_soup_with_batchnorm_is_remembered_with_both_statistics(
    asked: tuple[WarmState, dict[str, str]],
) -> None:
    warm, request = asked
    told = {"recipe": "uniform", "names": ["run1", "run2"], "parameters": {}}
    made = KINDS["soup"](warm, request | told, quietly)["soup"]
    bodies = {row.id: row.body for row in warm.store.soups(request["sweep"])}
    (other,) = bodies.keys() - {made}
    assert bodies[made]["batchnorm"] is None
    assert bodies[other]["batchnorm"] is not None
    assert all(len(body["scores"]) == 3 for body in bodies.values())


def test_a_cross_fit_follows_the_given_rule(asked: tuple[WarmState, dict[str, str]]) -> None:
    warm, request = asked
    told = {"names": ["run1", "run2"], "parameters": {"accept": ">", "metric": "loss", "seed": 1}}
    found = kept(warm, request | told, "optimism")
    assert found["taken"].keys() == {"run1", "run2"}
    evaluator = warm.evaluator(request)
    points = {name: warm.sweep(request)[name].mixture for name in ("run1", "run2")}
    expected = asdict(cross_fit_greedy(evaluator, points, accept=">", metric="loss"))
    assert found == json.loads(json.dumps(expected))


def test_the_best_pass_before_a_stop_is_kept_and_can_be_scored(
    asked: tuple[WarmState, dict[str, str]],
) -> None:
    warm, request = asked
    told = {"recipe": "learned", "names": ["run1", "run2"], "parameters": {"passes": 50}}
    last: Mapping[str, Any] = {}

    def stop(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        nonlocal last
        last = partial or {}
        if len(last.get("passes", [])) > 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        KINDS["soup"](warm, request | told, stop)
    row = warm.store.soup(last["soup"])
    assert row is not None
    assert list(row.body["scores"]) == ["val"]
    KINDS["scores"](warm, request | {"soup": last["soup"]}, quietly)
    row = warm.store.soup(last["soup"])
    assert row is not None
    assert list(row.body["scores"]) == ["val", "test", "shift/noise"]


@pytest.mark.parametrize("statistics", ["averaged", "re-estimated"])
def test_a_point_of_a_curve_is_the_soup_built_from_it(
    sweep: Sweep, store: Store, task: ClassificationTask, statistics: StatisticsChoice
) -> None:
    class Warm(WarmState):
        def evaluator(self, request: Mapping[str, Any]) -> Evaluator:
            return Evaluator(task, store, device="cpu").with_statistics(statistics)

    warm = Warm(store, [], "cpu")
    request = {"sweep": str(sweep.folder), "task": "toy", "recipe": "ema", "names": sweep.names()}
    asked = request | {"parameter": "decay", "values": [0, 0.5], "splits": ["test"]}
    drawn = kept(warm, asked | {"parameters": {}}, "curve")
    for point in drawn["points"]:
        told = {"parameters": {"decay": float(point["value"])}}
        assert KINDS["soup"](warm, request | told, quietly)["soup"] == point["soup"]
    soups = [ema(sweep, decay=value).evaluate(warm.evaluator({}), ["val"]) for value in (0, 0.5)]
    known = [soup.evaluations["val"] for soup in soups]
    found = cross_fit([each.scores for each in known], [each.losses for each in known])
    assert drawn["cross_fit"] == {"promised": found.promised, "delivered": found.delivered}


def test_a_curve_without_defined_scores_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[WarmState, dict[str, str]],
    task: ClassificationTask,
) -> None:
    monkeypatch.setattr(task, "score", lambda outputs, targets: torch.full((len(targets),), nan))
    warm, request = asked
    told = {"recipe": "ema", "names": ["run1", "run2"], "parameters": {}, "parameter": "decay"}
    with pytest.raises(TaskError, match=r"undefined .* for every example of 'val'"):
        KINDS["curve"](warm, request | told | {"values": [0, 1], "splits": []}, quietly)


@pytest.mark.parametrize("outside", ["link", "../elsewhere", "root/../../elsewhere"])
def test_jobs_read_no_files_outside_the_roots(
    sweep: Sweep, store: Store, tmp_path: Path, outside: str
) -> None:
    root, elsewhere = tmp_path / "here" / "root", tmp_path / "elsewhere"
    root.mkdir(parents=True)
    copytree(sweep.folder, elsewhere)
    (root / "link").symlink_to(elsewhere)
    warm = WarmState(store, [], "cpu", [root])
    with pytest.raises(SweepError, match="is not in a folder that the app was started with"):
        warm.sweep({"sweep": str(root.parent / "root" / outside)})


def test_no_file_outside_the_roots_is_an_ingredient(
    sweep: Sweep, store: Store, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.safetensors"
    copy(sweep.folder / "run1.safetensors", outside)
    (sweep.folder / "link.safetensors").symlink_to(outside)
    opened = WarmState(store, [], "cpu", [sweep.folder]).sweep({"sweep": str(sweep.folder)})
    assert opened.names() == sweep.names()
    assert WarmState(store, [], "cpu").sweep({"sweep": str(sweep.folder)}).names() != sweep.names()
