import json
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import pytest
from safetensors.torch import save_file

from pages.components.state import View
from soupcore import Evaluator, Split, Store, Sweep, load_task

TASK = """
from pathlib import Path
from safetensors.torch import load_file
from soupcore import ClassificationTask, Split
from tests.helpers import build_model

data = load_file(Path(__file__).parent / "data.safetensors")

def split(role, start):
    part = slice(start, start + 30)
    return Split(role, data["inputs"][part], data["targets"][part])

splits = {"train": split("train", 70), "val": split("select", 0), "test": split("report", 30),
          "shift/a": split("shift", 60), "shift/b": split("shift", 65)}
task = ClassificationTask(build_model, splits)
task.score_name = "share of them right"
"""
NAMES = ["run1", "run2", "run10"]

Run = Callable[[str], go.Figure]


@pytest.fixture
def view(tmp_path: Path, sweep: Sweep, splits: dict[str, Split], store: Store) -> View:
    data = splits["val"]
    save_file({"inputs": data.inputs, "targets": data.targets}, tmp_path / "data.safetensors")
    (tmp_path / "task.py").write_text(TASK)
    rows = [{"checkpoint": name, "lr": 10.0**-i, "seed": i} for i, name in enumerate(NAMES)]
    (sweep.folder / "sweep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = f"{tmp_path / 'task.py'}:task"
    opened = Sweep.from_folder(sweep.folder)
    evaluator = Evaluator(load_task(spec), store, device="cpu")
    return View(str(sweep.folder), spec, "", opened, evaluator)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))

    def run(code: str) -> go.Figure:
        exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - it is what is tested
        return shown[-1]

    return run
