import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from safetensors.torch import save_file
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.testing.v1 import app_test, local_script_runner

from pages.components import display, jobs, settings, state
from pages.components.state import View
from soupcore import Evaluator, Split, Store, Sweep, load_task
from soupcore.calls import Call
from soupcore.evaluation import Evaluations
from soupcore.jobs.kinds import WarmState

TASK = """
from pathlib import Path
from safetensors.torch import load_file
from soupcore import ClassificationTask, Split
from tests.toy import build_model

data = load_file(Path(__file__).parent / "data.safetensors")

def split(role, start):
    part = slice(start, start + 30)
    return Split(role, data["inputs"][part], data["targets"][part])

splits = {"train": split("train", 70), "val": split("select", 0), "test": split("report", 30),
          "shift/a": split("shift", 60), "shift/b": split("shift", 65)}
task = ClassificationTask(build_model, splits)
task.score_name = "share of them right"
task.loss_name = "surprise"
"""
NAMES = ["run1", "run2", "run10"]

Run = Callable[[str], go.Figure]


_MAIN = sys.modules["__main__"]


@pytest.fixture(autouse=True)
def main_module_stays() -> Iterator[None]:
    """Undo what `AppTest` does: a process that is spawned later would run the page as its main."""
    yield
    sys.modules["__main__"] = _MAIN


@pytest.fixture(scope="session", autouse=True)
def sessions_share_what_they_prepare() -> Iterator[None]:
    """Have `AppTest` compile each page once, and look for components of Streamlit once.

    It would compile the pages for each run, and read the metadata of all installed packages for
    each session: a fifth of the CPU time of these tests.
    """
    compiled = ScriptCache()
    with pytest.MonkeyPatch.context() as patch:
        for module in (app_test, local_script_runner):
            patch.setattr(module, "ScriptCache", lambda: compiled)
        scan = manifest_scanner.scan_component_manifests
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(scan))
        yield


@pytest.fixture
def view(tmp_path: Path, sweep: Sweep, splits: dict[str, Split], store: Store) -> View:
    data = splits["val"]
    save_file({"inputs": data.inputs, "targets": data.targets}, tmp_path / "data.safetensors")
    (tmp_path / "task.py").write_text(TASK)
    rows = [{"checkpoint": name, "lr": 10.0**-i, "seed": i} for i, name in enumerate(NAMES)]
    (sweep.folder / "sweep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = f"{tmp_path / 'task.py'}:task"
    opened = Sweep.from_folder(sweep.folder)
    evaluations = Evaluations(load_task(spec).describe(), store)
    return View(opened, evaluations, str(sweep.folder), spec)


def evaluator_of(view: View) -> Evaluator:
    """Return an evaluator of what a page reads, as a worker has it."""
    evaluator = Evaluator(load_task(view.task_spec), view.evaluations.store, device="cpu")
    return evaluator.with_estimate(view.evaluations.estimate)


def do_jobs_at_once(monkeypatch: pytest.MonkeyPatch, warm: WarmState) -> None:
    """Have jobs that pages ask for by themselves done before they go on."""

    def derive(view: View, call: Call, title: str) -> None:
        context = warm.context(jobs.request_of(view, call))
        call.work(context, lambda done, total, partial=None: None)

    monkeypatch.setattr(jobs, "derive", derive)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))

    def run(code: str) -> go.Figure:
        exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - it is what is tested
        return shown[-1]

    return run


def forget_server() -> None:
    """Stop the app's workers, and forget its store and settings, which the next test makes anew."""
    if state.supervisor.cache_info().currsize:
        state.supervisor().stop()
    for each in (state.store, state.supervisor, state.opened):
        each.cache_clear()
    settings.configure([])


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """The store of a server that may open folders in `sweeps`, and whose pages start no job."""
    (tmp_path / "sweeps").mkdir()
    forget_server()
    settings.configure(["--root", str(tmp_path / "sweeps")])
    monkeypatch.setattr(jobs, "submit", None)
    store = state.store()
    yield store
    forget_server()
    store.close()


@dataclass
class Shown:
    figure: go.Figure
    table: pd.DataFrame
    code: str


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, view: View, store: Store) -> dict[str, Shown]:
    """What the pages show with its exports, by key."""
    found: dict[str, Shown] = {}

    def show(
        figure: go.Figure, key: str, table: pd.DataFrame, code: str, **options: object
    ) -> None:
        found[key] = Shown(figure, table, code)

    monkeypatch.setattr(display, "show_figure", show)
    monkeypatch.setattr(state, "store", lambda: store)
    monkeypatch.setattr(state, "opened", lambda: {view.folder})
    do_jobs_at_once(monkeypatch, WarmState(store, [view.task_spec], "cpu"))
    return found


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and texts of a figure, each with its place."""
    node = node.tolist() if hasattr(node, "tolist") else node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from leaves(value, f"{path}.{index}")
    else:
        yield path, node


def assert_makes(run: Run, shown: Shown) -> None:
    made = dict(leaves(run(shown.code).to_plotly_json()))
    expected = dict(leaves(shown.figure.to_plotly_json()))
    numbers = {path: value for path, value in expected.items() if isinstance(value, float)}
    assert made == expected | {path: pytest.approx(n, nan_ok=True) for path, n in numbers.items()}
