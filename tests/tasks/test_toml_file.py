from pathlib import Path

import pytest
import torch

from soupcore import Split, TaskError
from soupcore.tasks.toml_file import COMMON_KEYS, TomlFile


def file(folder: Path, text: str) -> TomlFile:
    (folder / "task.toml").write_text(text)
    return TomlFile(folder / "task.toml", COMMON_KEYS)


def splits() -> dict[str, Split]:
    return {"val": Split("select", torch.zeros(10, 1), torch.arange(10) % 2)}


def test_a_task_file_holds_out_examples(tmp_path: Path) -> None:
    given = splits()
    assert file(tmp_path, "").held_out(given) is given
    sizes = {}
    for seed in (0, 1):
        found = file(tmp_path, f"hold_out = 0.4\nhold_out_seed = {seed}").held_out(splits())
        assert [split.targets.bincount().tolist() for split in found.values()] == [[3, 3], [2, 2]]
        sizes[found["report"].digest] = {name: len(split) for name, split in found.items()}
    assert list(sizes.values()) == [{"val": 6, "report": 4}] * 2


@pytest.mark.parametrize("text", ['hold_out = "0.3"', "hold_out = 0.3\nhold_out_seed = 0.5"])
def test_a_share_and_a_seed_are_numbers(tmp_path: Path, text: str) -> None:
    with pytest.raises(TaskError, match=r"task\.toml: `hold_out` must be a number"):
        file(tmp_path, text).held_out(splits())


def test_a_hold_out_that_leaves_no_examples_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task\.toml: `hold_out`: The share to hold out"):
        file(tmp_path, "hold_out = 1.5").held_out(splits())


def test_a_task_file_sets_the_precision(tmp_path: Path) -> None:
    assert file(tmp_path, "").precision == "float32"
    assert file(tmp_path, 'precision = "float16 autocast"').precision == "float16 autocast"
    with pytest.raises(TaskError, match=r"`precision` of .*task\.toml must be one of float32"):
        _ = file(tmp_path, "precision = 16").precision
