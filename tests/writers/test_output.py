from pathlib import Path

import pytest
import torch

from soupcore import Checkpoint, CheckpointError, Mixture, open_checkpoint
from soupcore.writers.output import Output
from tests.helpers import same_weights, save_checked


class Renamed(Checkpoint):
    """A checkpoint under names without their prefix, and without its counter."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        self._original = checkpoint
        self._prefix = prefix
        tensors = {
            name.removeprefix(prefix): info
            for name, info in reversed(checkpoint.tensors.items())
            if name != "n_averaged"
        }
        super().__init__(checkpoint.path, tensors, checkpoint.metadata, checkpoint.files)

    @property
    def original(self) -> Checkpoint:
        return self._original

    @property
    def original_names(self) -> dict[str, str]:
        return {name: self._prefix + name for name in self.tensors}

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        return self._original.read_elements(self._prefix + name, start, stop)


def weights(prefix: str, value: float) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": torch.full((3,), float(value)) for name in ("z", "a", "m")}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    torch.save({"n_averaged": torch.tensor(5), **weights("module.", 1)}, tmp_path / "one.pt")
    torch.save(weights("", 3), tmp_path / "two.pt")
    one = Renamed(open_checkpoint(tmp_path / "one.pt"), "module.")
    return Output(Mixture([(one, 1), (open_checkpoint(tmp_path / "two.pt"), 1)]) * 0.5, one)


def test_files_have_the_names_that_the_first_ingredient_has_in_its_file(
    tmp_path: Path, output: Output
) -> None:
    save_checked(output, tmp_path / "soup.safetensors", {})
    written = open_checkpoint(tmp_path / "soup.safetensors")
    assert list(written.tensors) == ["module.z", "module.a", "module.m"]
    assert same_weights(written.state_dict(), weights("module.", 2))


def test_a_copy_keeps_tensors_that_a_view_leaves_out(tmp_path: Path, output: Output) -> None:
    save_checked(output, tmp_path / "soup.pt", {})
    loaded = torch.load(tmp_path / "soup.pt", weights_only=True)
    assert loaded.pop("n_averaged") == 5
    assert same_weights(loaded, weights("module.", 2))


def test_a_copy_of_several_files_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name in ("a", "b"):
        torch.save({name: torch.ones(2)}, tmp_path / "shards" / f"{name}.bin")
    index = '{"weight_map": {"a": "a.bin", "b": "b.bin"}}'
    (tmp_path / "shards" / "pytorch_model.bin.index.json").write_text(index)
    checkpoint = open_checkpoint(tmp_path / "shards")
    assert "several files" in str(Output(Mixture([(checkpoint, 1)]), checkpoint).why_no_pt)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.ckpt", ".ckpt"),
        ("a.pth", ".pth"),
        ("checkpoint-3.pth.tar", ".pth.tar"),
        ("A.PTH", ".pth"),
        ("a.safetensors", ".pt"),
    ],
)
def test_a_copy_has_the_suffix_of_the_file_if_it_fits(
    tmp_path: Path, name: str, suffix: str
) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / name)
    checkpoint = open_checkpoint(tmp_path / name)
    output = Output(Mixture([(checkpoint, 1)]), checkpoint)
    assert (output.why_no_pt, output.pt_suffix) == (None, suffix)
    soup = tmp_path / f"soup{suffix}"
    assert save_checked(output, soup, {}) == [soup, tmp_path / "soup.recipe.json"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    output = Output(Mixture([(checkpoint, 1)]), checkpoint)
    with pytest.raises(CheckpointError, match=r"Folder .*gone does not exist\. Create it"):
        save_checked(output, tmp_path / "gone" / "soup.pt", {})
    assert not (tmp_path / "gone").exists()
