"""BatchNorm statistics and previews as jobs take them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from soupcore import Soup, Split, Store, uniform
from soupcore.jobs.kinds import KINDS, WarmState
from soupcore.writers.forms import Form
from tests.helpers import State, same_weights, save_sweep
from tests.toy import toy_split, write_task

NAMES = ["run1", "run2", "run10"]


@pytest.fixture
def request_(tmp_path: Path, states: dict[str, State]) -> dict[str, Any]:
    select = toy_split("select", 60)
    train = Split("train", select.inputs + 1, select.targets)
    task_file = write_task(tmp_path, {"train": train, "val": select})
    return {"sweep": str(save_sweep(tmp_path / "sweep", states)), "task": f"{task_file}:task"}


@pytest.fixture
def warm(store: Store, request_: dict[str, Any]) -> WarmState:
    return WarmState(store, [request_["task"]], "cpu")


def silent(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
    assert 0 <= done <= total


def stored(warm: WarmState, request: Mapping[str, Any], soup_id: str) -> Soup:
    row = warm.store.soup(soup_id)
    assert row is not None
    return Soup.from_json(warm.sweep(request), row.body)


@pytest.mark.parametrize("recipe", ["uniform", "greedy"])
def test_a_soup_has_the_statistics_that_were_asked_for_and_is_made_with_the_others_too(
    warm: WarmState, request_: dict[str, Any], recipe: str
) -> None:
    wanted = request_ | {"recipe": recipe, "names": NAMES, "parameters": {}}
    anew = wanted | {"batchnorm": "re-estimated"}
    made = stored(warm, anew, KINDS["soup"](warm, anew, silent)["soup"])
    assert made.estimate == warm.evaluator(anew).estimate
    ids = {row.id for row in warm.store.soups(request_["sweep"])}

    other_id = KINDS["statistics"](warm, anew | {"soup": made.id}, silent)["soup"]
    assert ids == {made.id, other_id}
    other = stored(warm, anew, other_id)
    assert (other.estimate, other.mixture) == (None, made.mixture)
    losses = {
        batchnorm: warm.evaluator(request_ | {"batchnorm": batchnorm}).stored(
            [made.mixture], "val"
        )[0]
        for batchnorm in ("averaged", "re-estimated")
    }
    found = [evaluation.loss for evaluation in losses.values() if evaluation is not None]
    assert len(set(found)) == 2
    assert [s.recorded["scores"]["val"]["loss"] for s in (other, made)] == found

    # And back.
    back = KINDS["statistics"](warm, wanted | {"soup": other.id}, silent)["soup"]
    assert back == made.id


def test_the_weights_of_a_soup_are_written_with_its_statistics(
    warm: WarmState, request_: dict[str, Any]
) -> None:
    wanted = request_ | {"recipe": "uniform", "names": NAMES, "parameters": {}}
    ids = [
        KINDS["soup"](warm, wanted | {"batchnorm": kind}, silent)["soup"]
        for kind in ("averaged", "re-estimated")
    ]
    weights = []
    for soup in ids:
        # The choice on the page may be the other one by the time that the weights are asked for.
        written = KINDS["weights"](warm, request_ | {"soup": soup, "form": {}}, silent)
        weights.append(load_file(warm.store.soup_folder(soup, Form().key) / written["files"][0]))
    averaged, anew = weights
    soup_anew = uniform(warm.sweep(request_), NAMES).re_estimate(warm.evaluator(request_))
    assert same_weights(anew, soup_anew.state_dict())
    differing = {name for name in anew if not torch.equal(averaged[name], anew[name])}
    assert differing
    assert all("running_" in name for name in differing)


def test_a_preview_gives_its_error_and_is_not_stored(
    warm: WarmState, request_: dict[str, Any]
) -> None:
    wanted = request_ | {"coefficients": {"run1": "1/2", "run2": "1/2"}, "splits": ["val"]}
    seen = KINDS["preview"](warm, wanted, silent)["previews"]["val"]
    sweep, evaluator = warm.sweep(request_), warm.evaluator(request_)
    point = sweep.mixture({"run1": 0.5, "run2": 0.5})
    assert evaluator.stored([point], "val") == [None]
    assert seen["reference"] in ("run1", "run2")
    assert seen["loss"] == pytest.approx(evaluator.evaluate(point, "val").loss, abs=0.05)
    assert 0 < abs(seen["loss_effect"]) < 0.05
