"""A command task with a script in the manner of timm's validate.py, by timm's own functions."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from soupcore import Evaluator, Store, Sweep, load_task, open_checkpoint, uniform

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration

# As validate.py: arguments of the same names, timm's network, checkpoint, data set and meters, and
# its form of the result. Images are made tensors here, as timm's transforms are torchvision's.
VALIDATE = """
import argparse, json, sys
sys.path.insert(0, {root!r})
try:
    import torchvision
except (ImportError, RuntimeError):
    from tests.oracles import without_vision
    without_vision.pretend()
import numpy as np
import torch
from timm.data import create_dataset, resolve_data_config
from timm.models import create_model, load_checkpoint
from timm.utils import AverageMeter, accuracy

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--model", default="test_resnet")
parser.add_argument("--num-classes", type=int, default=3)
parser.add_argument("--checkpoint", default="")
parser.add_argument("--make", default="")
args = parser.parse_args()
torch.manual_seed(0)
model = create_model(args.model, num_classes=args.num_classes)
if args.make:
    base = model.state_dict()
    for run in range(3):
        torch.manual_seed(run)
        moved = {{
            name: tensor + 0.02 * torch.randn_like(tensor) if tensor.is_floating_point() else tensor
            for name, tensor in base.items()
        }}
        saved = {{"epoch": 1, "arch": args.model, "state_dict": moved}}
        torch.save(saved, f"{{args.make}}/run-{{run}}.pth.tar")
    sys.exit()
load_checkpoint(model, args.checkpoint)
config = resolve_data_config(vars(args), model=model)
dataset = create_dataset("", root=args.data)
mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))

def transform(image):
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std

dataset.transform = transform
top1, top5, losses = AverageMeter(), AverageMeter(), AverageMeter()
model.eval()
with torch.inference_mode():
    for images, classes in torch.utils.data.DataLoader(dataset, batch_size=16):
        output = model(images)
        acc1, acc2 = accuracy(output, classes, topk=(1, 2))
        losses.update(torch.nn.functional.cross_entropy(output, classes).item(), len(classes))
        top1.update(acc1.item(), len(classes))
print("Test: done", file=sys.stderr)
results = {{
    "model": args.model, "top1": round(top1.avg, 4), "top1_err": round(100 - top1.avg, 4),
    "loss": losses.avg,
}}
print(f"--result\\n{{json.dumps(results, indent=4)}}")
"""

TOML = """
run = "{python} validate.py data/{{split}} --model test_resnet --checkpoint {{checkpoint}}"
[splits]
val = "select"
test = "report"
[metrics.top1]
percent = true
[metrics.loss]
higher_is_better = false
"""


def test_a_script_like_validate_py_of_timm_scores_its_checkpoints(
    tmp_path: Path, store: Store
) -> None:
    generator = np.random.default_rng(0)
    for split in ("val", "test"):
        for kind in ("cat", "dog", "emu"):
            folder = tmp_path / "data" / split / kind
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "validate.py").write_text(VALIDATE.format(root=str(ROOT)))
    (tmp_path / "eval.toml").write_text(TOML.format(python=sys.executable))
    (tmp_path / "runs").mkdir()

    def by_hand(*arguments: str) -> str:
        command = [sys.executable, "validate.py", "data/val", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    by_hand("--make", "runs")
    sweep = Sweep.from_folder(tmp_path / "runs")
    task = load_task(f"command:{tmp_path / 'eval.toml'}")
    soup = uniform(sweep)
    found = Evaluator(task, store, device="cpu").evaluate(soup.mixture, "val")

    states = [
        torch.load(path, weights_only=True)["state_dict"]
        for path in sorted((tmp_path / "runs").iterdir())
    ]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }
    torch.save({"state_dict": mean}, tmp_path / "mean.pth.tar")
    expected = json.loads(by_hand("--checkpoint", "mean.pth.tar").partition("--result")[2])
    assert found.score == pytest.approx(expected["top1"] / 100)
    assert found.loss == pytest.approx(expected["loss"], rel=1e-5)
    assert task.score_unit.text(found.score) == f"{expected['top1']:.2f} %"
    assert not list(tmp_path.glob("runs/*soup*"))
    soup.save(tmp_path / "soup.pth.tar")  # in the form that the script takes
    assert open_checkpoint(tmp_path / "soup.pth.tar").tensors.keys() == mean.keys()
