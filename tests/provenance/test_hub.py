"""Folders for `from_pretrained`, by their files; with transformers, see tests/oracles."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import soupcore
from soupcore import CheckpointError, Soup, Sweep, model_card, rebuild
from soupcore.escaping import markdown
from soupcore.provenance import files_for_hub
from tests.helpers import average

CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "dtype": "float32",
    "_name_or_path": "/home/anna/runs",
}
CARD = "---\nlicense: apache-2.0\ndatasets:\n- sms_spam\nbase_model: org/tiny\n---\n# Run\n"
NAMES = ("run-1", "run-2")


def state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "bert.layer.weight": torch.randn(4, 3, generator=generator),
        "classifier.weight": torch.randn(2, 4, generator=generator),
    }


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        save_file(state(seed), folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "tokenizer.json").write_text('{"version": "1.0"}')
        (folder / "vocab.txt").write_text(f"ham\nspam\n{seed}\n")
        (folder / "README.md").write_text(CARD)
        (folder / "training_args.bin").write_bytes(b"PK\3\4")
    (tmp_path / "runs/run-2/vocab.json").write_text("{}")
    return tmp_path / "runs"


def soup_of(runs: Path) -> Soup:
    return soupcore.uniform(Sweep.from_folder(runs))


def front_matter(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


@pytest.mark.parametrize("shard_size", [None, 50])
def test_a_folder_has_the_files_of_from_pretrained_and_the_hub(
    runs: Path, tmp_path: Path, shard_size: int | None
) -> None:
    soup = soup_of(runs)
    files = soup.save(tmp_path / "soup", shard_size=shard_size)
    weights = (
        {"model.safetensors"}
        if shard_size is None
        else {
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        }
    )
    recipe = f"uniform-{soup.id}.json"
    others = {"config.json", "tokenizer.json", "vocab.txt", "README.md", recipe}
    assert {file.name for file in files} == {path.name for path in (tmp_path / "soup").iterdir()}
    assert {file.name for file in files} == others | weights
    found: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "soup").glob("*.safetensors"):
        found |= load_file(path)
    expected = average([state(0), state(1)])
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    config = json.loads((tmp_path / "soup/config.json").read_text())
    assert config == {name: v for name, v in CONFIG.items() if name != "_name_or_path"}
    assert (tmp_path / "soup/vocab.txt").read_text() == "ham\nspam\n0\n"
    card = (tmp_path / "soup/README.md").read_text()
    beside = files_for_hub(soup)
    assert beside is not None
    assert beside.notes == (
        "vocab.txt of run-2 differs; that of run-1 is used.",
        "vocab.json of run-2 is omitted, since run-1 has none.",
    )
    assert all(markdown(note) in card for note in beside.notes)
    told = front_matter(card)
    assert told["library_name"] == "transformers"
    assert told["pipeline_tag"] == "text-classification"
    assert (told["license"], told["datasets"]) == ("apache-2.0", ["sms_spam"])
    assert told["base_model"] == ["org/tiny"]
    manifest = json.loads((tmp_path / "soup" / recipe).read_text())
    assert rebuild(manifest, runs).id == soup.id


def test_scores_are_in_the_index_of_the_card(runs: Path) -> None:
    soup = soup_of(runs)
    score = {"score": -0.25, "loss": None, "n": 40, "split_digest": ""}
    soup.recorded = {"scores": {"test": score, "undefined": score | {"score": None}}}
    card = model_card(soup, score_name="Brier", higher_is_better=False)
    (model,) = front_matter(card)["model-index"]
    (result,) = model["results"]
    assert result["task"] == {"type": "text-classification"}
    assert result["dataset"]["split"] == "test"
    assert result["metrics"] == [{"type": "brier", "name": "Brier", "value": 0.25}]


def test_another_dtype_is_in_the_configuration(runs: Path, tmp_path: Path) -> None:
    soup_of(runs).save(tmp_path / "half", "float16")
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "float16"
    written = load_file(tmp_path / "half/model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}


def test_the_tokenizer_of_a_run_belongs_to_its_checkpoints(runs: Path) -> None:
    inside = runs / "run-1/checkpoint-5"
    inside.mkdir()
    for name in ("model.safetensors", "config.json"):
        (runs / "run-1" / name).rename(inside / name)
    beside = files_for_hub(soup_of(runs))
    assert beside is not None
    assert sorted(beside.copied) == ["tokenizer.json", "vocab.txt"]


def test_without_a_configuration_no_folder_is_written(runs: Path, tmp_path: Path) -> None:
    for name in NAMES:
        (runs / name / "config.json").unlink()
    soup = soup_of(runs)
    with pytest.raises(CheckpointError, match=r"no config\.json .* of run-1, .* Save it as a file"):
        soup.save(tmp_path / "soup")
    assert "library_name" not in model_card(soup)
    (runs / "run-1/config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json is not a JSON object"):
        soup.save(tmp_path / "soup")
