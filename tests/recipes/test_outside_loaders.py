"""The tools that users load a soup with: transformers the shards, Ultralytics the `.pt`.

Each runs in a process of its own, because importing them takes seconds and changes settings of
torch. Where a tool cannot be imported, its test is skipped and says why.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
SKIPPED = 77

TRANSFORMERS = """
from transformers import BertConfig, BertModel

config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=32, max_position_embeddings=16)
for seed in range(3):
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder / "sweep" / f"run-{seed}")
soup = soupcore.uniform(soupcore.Sweep.from_folder(folder / "sweep"))
for name, shard_size in (("shards", 10_000), ("one", None)):
    (folder / name).mkdir()
    written = soup.save(folder / name / "model.safetensors", shard_size=shard_size)
    assert len(written) == (4 if shard_size else 1)
    config.save_pretrained(folder / name)
    model, info = BertModel.from_pretrained(folder / name, output_loading_info=True)
    assert not any(info.values()), info
    same(model.state_dict(), soup.state_dict())
"""

ULTRALYTICS = """
from ultralytics import YOLO

model = YOLO("yolov8n.yaml").model
arguments = {"data": "/home/anna/coco.yaml", "task": "detect"}
(folder / "sweep").mkdir()
for seed in range(2):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    run = {"epoch": seed, "model": None, "ema": copy.deepcopy(model).half(), "updates": 5,
           "optimizer": None, "train_args": arguments, "version": "8.4"}
    torch.save(run, folder / "sweep" / f"run-{seed}.pt")
soup = soupcore.uniform(soupcore.Sweep.from_folder(folder / "sweep"))
assert soup.output.why_no_pt is None, soup.output.why_no_pt
assert ("train_args.data", "/home/anna/coco.yaml") in soup.output.file.contents.local_paths
soup.save(folder / "soup.pt")
opened = YOLO(folder / "soup.pt")
assert opened.ckpt["train_args"]["data"] == arguments["data"] and opened.task == "detect"
same({n: t.half() if t.is_floating_point() else t for n, t in opened.model.state_dict().items()},
     soup.state_dict())
"""

PROGRAM = """
import copy, sys
from pathlib import Path
import torch
import soupcore

def same(one, other):
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)

folder = Path(sys.argv[1])
try:
    import {module}
    exec({program!r})
except ImportError as error:
    print(error)
    sys.exit({skipped})
"""


@pytest.mark.parametrize(
    ("module", "program"), [("transformers", TRANSFORMERS), ("ultralytics", ULTRALYTICS)]
)
def test_tools_open_soups_of_their_checkpoints(tmp_path: Path, module: str, program: str) -> None:
    code = PROGRAM.format(module=module, program=program, skipped=SKIPPED)
    settings = {"YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    path = filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env=os.environ | settings | {"PYTHONPATH": os.pathsep.join(path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    if result.returncode == SKIPPED:
        pytest.skip(f"{module} cannot be imported: {result.stdout.splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
