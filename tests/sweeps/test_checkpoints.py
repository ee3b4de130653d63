from pathlib import Path

import pytest
import torch

from soupcore import Sweep, SweepError
from soupcore.sweeps.checkpoints import Weights
from soupcore.sweeps.opening import is_scanned
from tests.helpers import State, save_sweep


def state(value: int) -> State:
    return {"w": torch.full((2,), float(value))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs with both raw and EMA weights, under two tools' names, and one with raw ones."""
    torch.save({"model": state(1), "ema": state(10)}, tmp_path / "yolo.pt")
    torch.save({"state_dict": state(2), "state_dict_ema": state(20)}, tmp_path / "timm.pt")
    save_sweep(tmp_path, {"plain": state(3)})
    return tmp_path


def opened(sweep: Sweep) -> dict[str, float]:
    return {n: float(i.checkpoint.read("w")[0]) for n, i in sweep.ingredients.items()}


@pytest.mark.parametrize(
    ("weights", "values"),
    [
        ("", {"plain": 3, "timm": 20, "yolo": 10}),
        ("EMA weights", {"plain": 3, "timm": 20, "yolo": 10}),
        ("raw weights", {"plain": 3, "timm": 2, "yolo": 1}),
        ({"yolo": "model"}, {"plain": 3, "timm": 20, "yolo": 1}),
        ({}, {"plain": 3, "timm": 20, "yolo": 10}),
    ],
    ids=str,
)
def test_the_requested_weight_set_is_opened(
    folder: Path, weights: Weights, values: dict[str, float]
) -> None:
    assert not is_scanned(folder, weights)
    sweep = Sweep.from_folder(folder, weights=weights)
    assert opened(sweep) == values
    assert sweep.weights == weights
    assert not [finding for finding in sweep.fit.findings if finding.severity != "note"]
    assert [found.title for found in sweep.weight_sets] == ["EMA weights", "raw weights"]
    assert is_scanned(folder, weights)


def test_a_checkpoint_without_the_weights_requested_is_reported(folder: Path) -> None:
    sweep = Sweep.from_folder(folder, weights="model")
    assert opened(sweep) == {"plain": 3, "timm": 20, "yolo": 1}
    (finding,) = [f for f in sweep.fit.findings if f.severity == "warning"]
    assert finding.ingredient == "timm"
    assert (
        "has no weight set 'model'; the default is used: EMA weights (state_dict_ema)"
        in finding.problem
    )


def test_a_weight_set_of_one_that_is_not_there_leaves_it_out(folder: Path) -> None:
    sweep = Sweep.from_folder(folder, weights={"yolo": "teacher"})
    (finding,) = [f for f in sweep.fit.findings if f.severity == "misfit"]
    assert finding.ingredient == "yolo"
    assert "the file has no weights 'teacher'; it has 'ema', 'model'" in finding.problem


def test_weights_of_a_checkpoint_that_is_not_there_are_refused(folder: Path) -> None:
    with pytest.raises(SweepError, match="has no checkpoint 'nobody', which `weights` names"):
        Sweep.from_folder(folder, weights={"nobody": "ema"})


def test_the_choice_of_a_weight_set_is_noted(folder: Path) -> None:
    notes = [f for f in Sweep.from_folder(folder).fit.findings if f.severity == "note"]
    assert [note.ingredient for note in notes] == ["timm", "yolo"]
    assert "it was opened and not 'model'" in notes[1].problem


def test_raw_and_averaged_weights_are_different_points(folder: Path) -> None:
    digests = {Sweep.from_folder(folder, weights=w)["yolo"].digest for w in ("ema", "model")}
    assert len(digests) == 2


def test_a_file_whose_checksum_is_wrong_is_left_out_and_remembered(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save({"w": torch.full((100,), float(ord(name)))}, tmp_path / f"{name}.pt")
    value = torch.tensor(float(ord("b"))).numpy().tobytes()
    damaged = (tmp_path / "b.pt").read_bytes().replace(value, b"\0\0\1\0", 1)
    (tmp_path / "b.pt").write_bytes(damaged)
    for _ in ("first", "second look"):
        (finding,) = Sweep.from_folder(tmp_path).fit.findings
        assert (finding.severity, finding.ingredient) == ("misfit", "b")
        assert "the checksum of the record 'data/0' is wrong" in finding.problem
        assert is_scanned(tmp_path)
