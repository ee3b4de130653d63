import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import soupcore
from soupcore import Sweep, SweepError, uniform
from soupcore.sweeps.folder import folder_signature
from soupcore.sweeps.opening import is_scanned
from soupcore.sweeps.snapshots import Snapshots, Weights, snapshots_from_text, snapshots_to_text
from tests.helpers import State, save_sweep


def save(path: Path, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"w": torch.full((2,), float(value))}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of Ultralytics with three snapshots each, a plain file, and the base."""
    for number in (2, 10):
        weights = tmp_path / f"train-{number}" / "weights"
        save(weights / "epoch1.pt", number + 0.1)
        save(weights / "best.pt", number + 0.2)
        save(weights / "last.pt", number + 0.3)
    save(tmp_path / "plain.safetensors", 5)
    save(tmp_path / "base.safetensors", 0)
    return tmp_path


def values(sweep: Sweep) -> dict[str, float]:
    read = {name: i.checkpoint.read("w")[0].item() for name, i in sweep.ingredients.items()}
    return {name: round(value, 1) for name, value in read.items()}


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        ("", {"plain": 5, "train-2": 2.2, "train-10": 10.2}),
        ("best", {"plain": 5, "train-2": 2.2, "train-10": 10.2}),
        ("last", {"plain": 5, "train-2": 2.3, "train-10": 10.3}),
        ("epoch 1", {"plain": 5, "train-2": 2.1, "train-10": 10.1}),
        (
            "every",
            {
                "plain": 5,
                "train-2/epoch 1": 2.1,
                "train-2/best": 2.2,
                "train-2/last": 2.3,
                "train-10/epoch 1": 10.1,
                "train-10/best": 10.2,
                "train-10/last": 10.3,
            },
        ),
        ({"train-2": "last"}, {"plain": 5, "train-2": 2.3, "train-10": 10.2}),
        ({"*": "last", "train-2": "best"}, {"plain": 5, "train-2": 2.2, "train-10": 10.3}),
        ({"train-2": "weights/epoch1.pt"}, {"plain": 5, "train-2": 2.1, "train-10": 10.2}),
        (
            {"train-2": "every", "*": "last"},
            {
                "plain": 5,
                "train-2/epoch 1": 2.1,
                "train-2/best": 2.2,
                "train-2/last": 2.3,
                "train-10": 10.3,
            },
        ),
    ],
    ids=str,
)
def test_a_snapshot_is_chosen_for_all_runs_or_for_one(
    folder: Path, snapshot: Snapshots, expected: dict[str, float]
) -> None:
    assert not is_scanned(folder, snapshot=snapshot)
    sweep = Sweep.from_folder(folder, snapshot=snapshot)
    assert values(sweep) == expected
    assert [*sweep.ingredients] == [*expected]
    assert sweep.base is not None
    assert sweep.snapshot == snapshot
    assert sweep.including({}).snapshot == snapshot
    assert not [found for found in sweep.fit.findings if found.severity != "note"]
    assert is_scanned(folder, snapshot=snapshot)


def test_the_fit_report_lists_the_snapshots_of_each_run(folder: Path) -> None:
    choices = Sweep.from_folder(folder).fit.snapshots
    assert [(c.run, c.tool, c.names, c.taken) for c in choices] == [
        ("train-2", "Ultralytics", ("epoch 1", "best", "last"), ("best",)),
        ("train-10", "Ultralytics", ("epoch 1", "best", "last"), ("best",)),
    ]
    (first, _) = Sweep.from_folder(folder, snapshot="every").fit.snapshots
    assert first.taken == first.names


def test_a_run_without_the_snapshot_keeps_its_own_with_a_warning(folder: Path) -> None:
    (folder / "train-2" / "weights" / "epoch1.pt").unlink()
    sweep = Sweep.from_folder(folder, snapshot="epoch 1")
    assert values(sweep) == {"plain": 5, "train-2": 2.2, "train-10": 10.1}
    (finding,) = [found for found in sweep.fit.findings if found.severity == "warning"]
    assert finding.ingredient == "train-2"
    assert finding.problem == "has no snapshot 'epoch 1'; best is used"
    assert finding.way_out == "Choose one of its snapshots (best, last), or exclude it."


def test_a_run_without_its_named_snapshot_is_left_out(folder: Path) -> None:
    sweep = Sweep.from_folder(folder, snapshot={"train-2": "epoch 7"})
    assert [*sweep.ingredients] == ["plain", "train-10"]
    (finding,) = [found for found in sweep.fit.findings if found.severity == "misfit"]
    assert finding.problem.startswith("the folder has no snapshot 'epoch 7'")


def test_a_snapshot_of_a_run_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(SweepError, match="no checkpoint 'nobody', which `snapshot` names"):
        Sweep.from_folder(folder, snapshot={"nobody": "best"})


def test_duplicate_snapshots_of_a_run_take_part_once(folder: Path) -> None:
    save(folder / "train-2" / "weights" / "last.pt", 2.1)
    sweep = Sweep.from_folder(folder, snapshot="every")
    assert "train-2/epoch 1" in sweep.ingredients
    assert sweep.fit.misfits == {"train-2/last"}
    (finding,) = [found for found in sweep.fit.findings if found.severity == "misfit"]
    assert finding.problem == "has the same weights as train-2/epoch 1"


def test_an_unclear_run_is_opened_once_its_snapshot_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", 1)
    save(tmp_path / "run" / "epoch_9.pt", 9)
    save(tmp_path / "run" / "epoch_10.pt", 10)
    sweep = Sweep.from_folder(tmp_path)
    assert values(sweep) == {"a": 1}
    assert sweep.fit.snapshots[0].taken == ()
    assert values(Sweep.from_folder(tmp_path, snapshot="last")) == {"a": 1, "run": 10}
    every = Sweep.from_folder(tmp_path, snapshot="every")
    assert values(every) == {"a": 1, "run/epoch 9": 9, "run/epoch 10": 10}


@pytest.mark.parametrize("snapshot", ["", "last", "every", {"train-2": "epoch 1"}], ids=str)
def test_a_soup_of_snapshots_is_rebuilt_from_its_manifest(
    folder: Path, snapshot: Snapshots
) -> None:
    soup = uniform(Sweep.from_folder(folder, snapshot=snapshot))
    again = soupcore.rebuild(soup.to_json(), folder)
    assert again.digests == soup.digests
    read = soup.checkpoint.read("w"), again.checkpoint.read("w")
    assert torch.equal(*read)


def test_a_soup_of_another_form_of_a_file_is_rebuilt(folder: Path) -> None:
    save(folder / "plain.ckpt", 7)
    sweep = Sweep.from_folder(folder, snapshot={"plain": "plain.ckpt"})
    assert values(sweep)["plain"] == 7
    soup = uniform(sweep)
    assert soupcore.rebuild(soup.to_json(), folder).digests == soup.digests


def test_names_of_files_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for file in (b"caf\xe9.pt", b"caf\xe9.fp16.pt", b"state-\xff.ckpt"):
        save(run / os.fsdecode(file), len(file))
    sweep = Sweep.from_folder(tmp_path, snapshot="every")
    assert [*sweep.ingredients] == ["run/caf\\udce9", "run/state-\\udcff"]
    for finding in sweep.fit.findings:
        assert f"{finding.ingredient}{finding.problem}".isprintable()
    one = Sweep.from_folder(tmp_path, snapshot={"run": "caf\\udce9"})
    assert one["run"].checkpoint.path.name == os.fsdecode(b"caf\xe9.pt")


def test_runs_below_other_folders_are_found_where_there_are_none_above(tmp_path: Path) -> None:
    for name in ("detect/train", "detect/train-2", "segment/train"):
        save(tmp_path / name / "weights" / "best.pt", float(len(name)))
    (tmp_path / "detect" / "notes.txt").touch()
    before = folder_signature(tmp_path)
    sweep = Sweep.from_folder(tmp_path)
    assert [*sweep.ingredients] == ["detect/train", "detect/train-2", "segment/train"]
    assert sweep.fit.others == ("detect/notes.txt",)
    soup = uniform(sweep)
    assert soupcore.rebuild(soup.to_json(), tmp_path).digests == soup.digests
    save(tmp_path / "segment" / "train" / "weights" / "best.pt", 1)
    assert folder_signature(tmp_path) != before


@given(st.text(max_size=20) | st.dictionaries(st.text(), st.text()))
def test_a_choice_of_snapshots_goes_through_text(wanted: str | dict[str, str]) -> None:
    if not isinstance(wanted, str) or not wanted.startswith("{"):
        assert snapshots_from_text(snapshots_to_text(wanted)) == wanted


@pytest.mark.parametrize("text", ["{", "{" * 100_000, '{"a": 1}', "{}"])
def test_texts_that_are_no_choice_of_snapshots_choose_none(text: str) -> None:
    assert not snapshots_from_text(text)


def state(value: int) -> State:
    return {"w": torch.full((2,), float(value))}


@pytest.fixture
def with_sets(tmp_path: Path) -> Path:
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
    with_sets: Path, weights: Weights, values: dict[str, float]
) -> None:
    assert not is_scanned(with_sets, weights)
    sweep = Sweep.from_folder(with_sets, weights=weights)
    assert opened(sweep) == values
    assert sweep.weights == weights
    assert not [finding for finding in sweep.fit.findings if finding.severity != "note"]
    assert [found.title for found in sweep.weight_sets] == ["EMA weights", "raw weights"]
    assert is_scanned(with_sets, weights)


def test_a_checkpoint_without_the_weights_requested_is_reported(with_sets: Path) -> None:
    sweep = Sweep.from_folder(with_sets, weights="model")
    assert opened(sweep) == {"plain": 3, "timm": 20, "yolo": 1}
    (finding,) = [f for f in sweep.fit.findings if f.severity == "warning"]
    assert finding.ingredient == "timm"
    assert (
        "has no weight set 'model'; the default is used: EMA weights (state_dict_ema)"
        in finding.problem
    )


def test_an_ingredient_without_its_weight_set_is_left_out(with_sets: Path) -> None:
    sweep = Sweep.from_folder(with_sets, weights={"yolo": "teacher"})
    (finding,) = [f for f in sweep.fit.findings if f.severity == "misfit"]
    assert finding.ingredient == "yolo"
    assert "the file has no weights 'teacher'; it has 'ema', 'model'" in finding.problem


def test_weights_of_a_checkpoint_that_is_not_there_are_refused(with_sets: Path) -> None:
    with pytest.raises(SweepError, match="has no checkpoint 'nobody', which `weights` names"):
        Sweep.from_folder(with_sets, weights={"nobody": "ema"})


def test_the_choice_of_a_weight_set_is_noted(with_sets: Path) -> None:
    notes = [f for f in Sweep.from_folder(with_sets).fit.findings if f.severity == "note"]
    assert [note.ingredient for note in notes] == ["timm", "yolo"]
    assert "it was opened and not 'model'" in notes[1].problem


def test_raw_and_averaged_weights_are_different_points(with_sets: Path) -> None:
    digests = {Sweep.from_folder(with_sets, weights=w)["yolo"].digest for w in ("ema", "model")}
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
