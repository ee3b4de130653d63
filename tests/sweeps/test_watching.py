import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from soupcore import NothingFitsError, Sweep
from soupcore.checkpoints import contents
from soupcore.sweeps.sweep import is_scanned
from soupcore.sweeps.watching import Status, changes, list_checkpoints

A, B, C = Status(1, 1), Status(2, 1), Status(2, 2)


@pytest.mark.parametrize(
    ("before", "last", "now", "settled", "unsettled"),
    [
        pytest.param({"a": A}, {"a": A}, {"a": A}, (), {}, id="nothing"),
        pytest.param({}, {}, {"a": B}, (), {"a": 2}, id="new"),
        pytest.param({}, {"a": A}, {"a": B}, (), {"a": 2}, id="grows"),
        pytest.param({}, {"a": B}, {"a": C}, (), {"a": 2}, id="the same size, written again"),
        pytest.param({}, {"a": B}, {"a": B}, ("a",), {}, id="new and settled"),
        pytest.param({"a": A}, {"a": B}, {"a": B}, ("a",), {}, id="changed and settled"),
        pytest.param({"a": A}, {"a": B}, {"a": A}, (), {}, id="as before"),
        pytest.param({"a": A}, {"a": A}, {}, (), {}, id="just removed"),
        pytest.param({"a": A}, {}, {}, ("a",), {}, id="removed"),
        pytest.param({}, {"a2": A, "a10": A}, {"a10": B, "a2": A}, ("a2",), {"a10": 2}, id="both"),
    ],
)
def test_changes_settle_when_two_listings_agree(
    before: dict[str, Status],
    last: dict[str, Status],
    now: dict[str, Status],
    settled: tuple[str, ...],
    unsettled: dict[str, int],
) -> None:
    found = changes(before, last, now)
    assert (found.settled, dict(found.unsettled)) == (settled, unsettled)


def test_a_listing_has_the_checkpoints_of_all_levels_by_name_alone(tmp_path: Path) -> None:
    run = tmp_path / "detect" / "run-1" / "weights"
    run.mkdir(parents=True)
    for name in ("best.pt", ".hidden.pt", "results.csv", "optimizer.pt", "model.safetensors"):
        (run / name).write_bytes(b"12345")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret.pt").write_bytes(b"1")
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "gone.pt").symlink_to(outside / "gone")
    os.mkfifo(tmp_path / "pipe.pt")
    sizes = {name: status.size for name, status in list_checkpoints(tmp_path).items()}
    inside = "detect/run-1/weights"
    assert sizes == {f"{inside}/best.pt": 5, f"{inside}/model.safetensors": 5}
    assert list_checkpoints(tmp_path / "nowhere") == {}


def written(number: float, suffix: str, folder: Path) -> bytes:
    state = {"w": torch.full((300,), number), "b": torch.arange(4.0)}
    if suffix == ".safetensors":
        return save(state)
    torch.save(state, folder / "whole")
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_unfinished_file_waits_and_is_taken_once_it_is_complete(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"run-{number}.safetensors").write_bytes(
            written(number, ".safetensors", tmp_path)
        )
    digests = {name: each.digest for name, each in Sweep.from_folder(folder).ingredients.items()}
    monkeypatch.setattr(contents, "read_contents", None)  # no process reads what is not complete
    content, growing = written(3, suffix, tmp_path), folder / f"run-3{suffix}"
    last = list_checkpoints(folder)
    for stop in (0, 4, 200, len(content) // 2, len(content) - 1):
        growing.write_bytes(content[:stop])
        now = list_checkpoints(folder)
        assert changes(last, last, now).unsettled == {growing.name: stop}
        sweep = Sweep.from_folder(folder)
        assert {name: each.digest for name, each in sweep.ingredients.items()} == digests
        (finding,) = (each for each in sweep.fit.findings if each.severity == "misfit")
        assert finding.ingredient == "run-3"
        assert "If it is still being written, wait until it is complete." in finding.way_out
        assert is_scanned(folder)  # a page that is drawn meanwhile asks for no work
        last = now
    monkeypatch.undo()
    growing.write_bytes(content)
    sweep = Sweep.from_folder(folder)
    assert not sweep.fit.misfits
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / growing.name).write_bytes(content)
    assert sweep["run-3"].digest == Sweep.from_folder(alone)["run-3"].digest


def test_shards_wait_for_each_other(tmp_path: Path, workspace: Path) -> None:
    shards = {n: save({f"w{n}": torch.full((20,), float(n))}) for n in (1, 2)}
    run = tmp_path / "run-1"
    run.mkdir()
    (run / "model-00001-of-00002.safetensors").write_bytes(shards[1])
    with pytest.raises(NothingFitsError) as caught:
        Sweep.from_folder(tmp_path)
    (finding,) = caught.value.fit.findings
    assert "If it is still being written, wait until it is complete." in finding.way_out
    (run / "model-00002-of-00002.safetensors").write_bytes(shards[2])
    assert [*Sweep.from_folder(tmp_path)["run-1"].checkpoint.tensors] == ["w1", "w2"]
