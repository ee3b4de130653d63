from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import Store, TaskError, load_task
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


@pytest.mark.parametrize(("seed", "is_accepted"), [("torch.manual_seed(0)", True), ("", False)])
def test_a_task_with_other_data_each_time_is_refused_in_words(
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
        with pytest.raises(TaskError, match=r"'select' holds other data each time .* Seed its"):
            warm.evaluator(request)
