import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupcore import (
    Cancelled,
    CheckpointError,
    Evaluator,
    RecipeError,
    Store,
    Sweep,
    TaskError,
    barriers,
    curve,
    greedy,
    learned,
    load_task,
    ties,
    uniform,
)
from soupcore.evaluation import compare
from soupcore.tasks import TaskDescription
from soupcore.tasks.loading import task_signature
from tests.helpers import State
from tests.toy import moved

# Scores weights by their distance from a target. It reads safetensors without torch, because
# importing torch takes seconds for each evaluation.
SCRIPT = """
import json, struct, sys
from pathlib import Path

def read(path):
    if path.suffix != ".safetensors":
        import torch
        state = torch.load(path)["model"]
        return {name: tensor.flatten().tolist() for name, tensor in state.items()}
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    found = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            form = {"F32": "f", "I64": "q"}[entry["dtype"]]
            first, end = entry["data_offsets"]
            values = struct.iter_unpack(f"<{form}", content[start + first : start + end])
            found[name] = [value for (value,) in values]
    return found

path, split = sys.argv[1:3]
beside = Path(__file__).with_name
beside("calls").open("a").write(f"{path} {split}\\n")
weights, target = read(Path(path)), read(beside(f"{split}.safetensors"))
error = sum((a - b) ** 2 for n in target for a, b in zip(weights[n], target[n], strict=True))
print("evaluating", path)
print(json.dumps({"error": error, "loss": error / 2, "accuracy": 1 / (1 + error), "note": "x"}))
"""

TOML = """
run = "{python} eval.py {checkpoint} {split}"
{more}
[splits]
val = "select"
test = "report"
[metrics.error]
higher_is_better = false
unit = "u"
[metrics.accuracy]
range = [0, 1]
[metrics.loss]
higher_is_better = false
"""
NAMES = ["run1", "run2", "run10"]


def write(folder: Path, text: str = TOML, more: str = "", script: str = SCRIPT) -> str:
    (folder / "eval.py").write_text(script)
    text = text.replace("{python}", sys.executable).replace("{more}", more)
    (folder / "task.toml").write_text(text)
    return f"command:{folder / 'task.toml'}"


@pytest.fixture
def folder(tmp_path: Path, base_state: State) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    for seed, split in enumerate(("val", "test"), start=7):
        save_file(moved(base_state, 0.1, seed=seed), folder / f"{split}.safetensors")
    return folder


@pytest.fixture
def evaluator(folder: Path, store: Store) -> Evaluator:
    return Evaluator(load_task(write(folder)), store, device="cpu")


def error_of(folder: Path, state: dict[str, Tensor], split: str = "val") -> float:
    target = load_file(folder / f"{split}.safetensors")
    return sum(float((state[n].double() - target[n].double()).square().sum()) for n in target)


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_points_are_scored_by_what_the_command_reports_once_each(
    folder: Path, evaluator: Evaluator, sweep: Sweep, states: dict[str, State]
) -> None:
    for name in NAMES:
        found = evaluator.evaluate(sweep[name].mixture, "val")
        error = error_of(folder, states[name])
        assert -found.score == pytest.approx(error, rel=1e-6)
        assert found.loss == pytest.approx(error / 2, rel=1e-6)
        assert found.all_scores["accuracy"] == pytest.approx(1 / (1 + error), rel=1e-6)
        assert evaluator.task.score_unit.text(found.score) == f"{error:#.4g} u"
    assert calls(folder) == [f"{sweep[name].checkpoint.path} val" for name in NAMES]
    evaluator.evaluate_all([sweep[name].mixture for name in NAMES], "val")
    assert len(calls(folder)) == 3


def test_a_multiple_of_an_ingredient_is_not_evaluated_as_its_file(
    folder: Path, evaluator: Evaluator, sweep: Sweep
) -> None:
    point = sweep["run1"].mixture * 2
    found = evaluator.evaluate(point, "val")
    assert -found.score == pytest.approx(error_of(folder, point.state_dict()))


def test_recipes_lines_and_curves_need_only_metrics(
    folder: Path, evaluator: Evaluator, sweep: Sweep, states: dict[str, State]
) -> None:
    errors = {name: error_of(folder, states[name]) for name in NAMES}
    soup = greedy(sweep, evaluator)
    assert -soup.evaluations["val"].score <= min(errors.values()) * (1 + 1e-6)
    mixed = uniform(sweep, NAMES).evaluate(evaluator)
    mean = {n: torch.stack([states[r][n] for r in NAMES]).double().mean(0) for n in states["run1"]}
    assert -mixed.evaluations["test"].score == pytest.approx(
        error_of(folder, mean, "test"), rel=1e-5
    )
    found = barriers(sweep, evaluator, NAMES, 3, split="val")
    assert found.paths["run1", "run2"].scores[0] == pytest.approx(-errors["run1"], rel=1e-6)
    drawn = curve("wise_ft", "alpha", sweep, evaluator, NAMES, values=[0.0, 1.0])
    assert drawn.best.evaluations["val"].score == max(drawn.scores("val"))
    assert ties(sweep, NAMES).evaluate(evaluator).evaluations["val"].score < 0
    assert not [*(folder.parent / "commands").glob("weights-*")]


def test_functions_that_need_a_network_or_examples_give_the_reason(
    evaluator: Evaluator, sweep: Sweep
) -> None:
    with pytest.raises(RecipeError, match="Choose the optimiser `cma`"):
        learned(sweep, evaluator, NAMES)
    one, other = (evaluator.evaluate(sweep[name].mixture, "val") for name in NAMES[:2])
    found = compare(evaluator.task, one, other)
    assert (found.interval, found.difference) == (None, one.score - other.score)
    assert "for the whole split" in found.why_no_interval
    assert evaluator.task.why_no_ensemble is not None
    assert not evaluator.task.can_re_estimate


@pytest.mark.integration
def test_a_soup_is_learned_by_evaluations(folder: Path, sweep: Sweep, store: Store) -> None:
    pytest.importorskip("cma")
    evaluator = Evaluator(load_task(write(folder)), store)
    soup = learned(sweep, evaluator, NAMES, optimizer="cma", evaluations=8)
    uniform_ = evaluator.evaluate(uniform(sweep, NAMES).mixture, "val")
    assert soup.evaluations["val"].score >= uniform_.score
    calls = (folder / "calls").read_text().count("\n")
    learned(sweep, evaluator, NAMES, optimizer="cma", evaluations=8)
    assert (folder / "calls").read_text().count("\n") == calls


def test_command_tasks_have_a_description(folder: Path) -> None:
    task = load_task(write(folder))
    described = TaskDescription.from_json(task.describe().to_json())
    assert described.key == task.key
    assert [metric.name for metric in described.metrics] == ["error", "accuracy", "loss"]
    assert {n: s.role for n, s in described.splits.items()} == {"val": "select", "test": "report"}


def test_the_identity_covers_the_script_and_the_version(folder: Path) -> None:
    keys = [
        load_task(write(folder, **told)).key
        for told in ({}, {}, {"more": 'version = "2"'}, {"script": SCRIPT + "# changed"})
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_the_command_gets_the_file_that_training_saved(
    folder: Path, store: Store, tmp_path: Path, states: dict[str, State]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name, state in states.items():
        torch.save({"model": state, "epoch": 3}, runs / f"{name}.pt")
    sweep = Sweep.from_folder(runs)
    evaluator = Evaluator(load_task(write(folder)), store, device="cpu")
    found = evaluator.evaluate(uniform(sweep).mixture, "val")
    (first,) = calls(folder)
    assert first.split()[0].endswith("model.pt")
    mean = {n: torch.stack([states[r][n] for r in NAMES]).double().mean(0) for n in states["run1"]}
    assert -found.score == pytest.approx(error_of(folder, mean), rel=1e-5)
    other = Evaluator(load_task(write(folder, more='form = "safetensors"')), store, device="cpu")
    other.evaluate(sweep["run1"].mixture, "val")
    assert calls(folder)[-1].split()[0].endswith("model.safetensors")


@pytest.mark.parametrize(
    ("more", "script", "metric"),
    [
        pytest.param(
            'result = "out.json"',
            'open("out.json", "w").write(\'{"top1": 0.25}\')\nprint("done")',
            'key = "top1"',
            id="a file beside",
        ),
        pytest.param(
            'result = "{folder}/out.json"',
            'import os\nopen(sys.argv[3] + "/out.json", "w").write(\'{"top1": 0.25}\')',
            'key = "top1"',
            id="a file in a folder of its own",
        ),
        pytest.param(
            "", 'print("top-1: 0.9\\ntop-1: 0.25\\nbye")', "pattern = 'top-1: ([0-9.]+)'", id="text"
        ),
        pytest.param("", "print('x')\nprint('{\"a\": 0.25}\\n')", 'key = "a"', id="last line"),
        pytest.param(
            "",
            "import json\nprint('{}\\n{')\n"
            "print(json.dumps({'of': {'a': 1}, 'list': [{'a': 2}], 'a': 0.25}, indent=4))",
            'key = "a"',
            id="last lines",
        ),
        pytest.param("", "print('{\"a\": 25}')", 'key = "a"\npercent = true', id="percentage"),
    ],
)
def test_metrics_are_found_where_the_command_leaves_them(
    folder: Path, store: Store, sweep: Sweep, more: str, script: str, metric: str
) -> None:
    text = f"""
run = "{{python}} eval.py {{checkpoint}} {{split}} {{folder}}"
{more}
[splits]
val = "select"
[metrics.accuracy]
{metric}
"""
    spec = write(folder, text.replace("{more}", ""), script="import sys\n" + script)
    found = Evaluator(load_task(spec), store, device="cpu").evaluate(sweep["run1"].mixture, "val")
    assert found.score == 0.25


@pytest.mark.parametrize(
    ("script", "more", "words"),
    [
        ("1 / 0", "", r"exit code 1. Its output is in (?s:.)*ZeroDivisionError"),
        ("print('hi')", "", r'with JSON such as {"error": 0.9}'),
        ("print('{\"error\": 1}\\nbye')", "", r'with JSON such as {"error": 0.9}'),
        ("print('{\"mse\": 1}')", "", "reports no number 'error'; it reports mse"),
        ("print('{\"error\": null}')", "", "reports no number 'error'"),
        ("import os; os.kill(os.getpid(), 9)", "", "was killed by SIGKILL"),
        ("import time; time.sleep(60)", "time_limit = 0.3", "took longer than 0.3 s"),
        ("print('{}')", 'result = "nothing.json"', r"did not write nothing\.json"),
    ],
)
def test_a_command_that_fails_shows_the_end_of_its_output(
    folder: Path, store: Store, sweep: Sweep, script: str, more: str, words: str
) -> None:
    evaluator = Evaluator(load_task(write(folder, more=more, script=script)), store, device="cpu")
    with pytest.raises(TaskError, match=words) as caught:
        evaluator.evaluate(sweep["run1"].mixture, "val")
    log = str(caught.value).partition("Its output is in ")[2].partition(".log")[0]
    assert Path(f"{log}.log").is_file()


def test_cancelling_kills_the_command_and_its_children(
    folder: Path, store: Store, sweep: Sweep
) -> None:
    script = """
import os, time
from pathlib import Path
child = os.fork()
if child:
    Path(__file__).with_name("child").write_text(str(child))
time.sleep(60)
"""
    evaluator = Evaluator(load_task(write(folder, script=script)), store, device="cpu")

    def stop(done: int, total: int) -> None:
        if (folder / "child").exists() and (folder / "child").read_text():
            raise Cancelled

    with pytest.raises(Cancelled):
        evaluator.evaluate(sweep["run1"].mixture, "val", on_progress=stop)
    child = int((folder / "child").read_text())
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and is_running(child):
        time.sleep(0.02)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("{checkpoint} ", ""), r"`run` needs {checkpoint}"),
        (
            lambda text: text.replace("run =", "command ="),
            "unknown setting command; known settings: ",
        ),
        (lambda text: re.sub("val.*\ntest.*", "", text), r"needs a table \[splits\]"),
        (lambda text: text.partition("[metrics")[0], "needs a table for each metric"),
        (lambda text: text.replace('"report"', '"held out"'), "the role of the split 'test'"),
        (lambda text: text.replace("unit", "units"), "unknown setting units; "),
        (lambda text: 'form = "zip"\n' + text, "`form` is one of ingredient, safetensors"),
        (lambda text: text + "=", "is not valid TOML"),
        (lambda text: text.replace('run = "', 'run = "\\"'), "`run` is not a valid command"),
        (lambda text: 'time_limit = "1 h"\n' + text, "`time_limit` must be a number > 0"),
        (lambda text: "result = 1\n" + text, "needs `result`, a text"),
        (
            lambda text: text.partition("[metrics")[0] + "[metrics]\nspeed = 1",
            r"`speed` in \[metrics\] must be a table \[metrics.speed\]",
        ),
        (
            lambda text: text.partition("[metrics")[0] + "[metrics.speed]\nrange = [0]",
            "`range` of the metric 'speed' must be a list of two numbers",
        ),
        (
            lambda text: text.partition("[metrics")[0] + "[metrics.speed]\npattern = '('",
            "`pattern` of the metric 'speed' must be a regular expression: ",
        ),
    ],
)
def test_a_description_of_another_form_is_refused(
    folder: Path, change: Callable[[str], str], words: str
) -> None:
    spec = write(folder, change(TOML.replace("{more}\n", "")))
    with pytest.raises(TaskError, match=words):
        load_task(spec)


def test_a_program_that_does_not_exist_is_named(folder: Path, store: Store, sweep: Sweep) -> None:
    text: Any = TOML.replace("{python}", "no-such-program")
    evaluator = Evaluator(load_task(write(folder, text)), store, device="cpu")
    with pytest.raises(TaskError, match=r"no-such-program .* cannot be started: No such file"):
        evaluator.evaluate(sweep["run1"].mixture, "val")


def test_a_changed_script_is_noticed_without_loading_the_task(folder: Path) -> None:
    signatures = [
        task_signature(write(folder, script=script)) for script in (SCRIPT, SCRIPT, SCRIPT + "#")
    ]
    assert signatures[0] == signatures[1] != signatures[2]
    assert signatures[2] == load_task(f"command:{folder / 'task.toml'}").source_digest


# Runs until another one has been seen, so that it can end only if several run at the same time.
TOGETHER = """
import json, os, sys, time
from pathlib import Path

here = Path(__file__).parent / "running"
here.mkdir(exist_ok=True)
own = here / str(os.getpid())
own.write_text(sys.argv[1])
most, seen_others = 1, Path(__file__).with_name("others")
while not seen_others.exists() or most == 1:
    most = max(most, len(list(here.iterdir())))
    if most > 1:
        seen_others.touch()
    if seen_others.exists():
        break
    time.sleep(0.01)
own.unlink()
print(json.dumps({"error": most, "loss": 1.0, "accuracy": 1 / most}))
"""


def test_as_many_commands_run_at_once_as_the_task_allows(
    folder: Path, sweep: Sweep, store: Store
) -> None:
    task = load_task(write(folder, more="at_once = 2", script=TOGETHER))
    evaluator = Evaluator(task, store, device="cpu")
    points = [sweep[name].mixture for name in ("base", *NAMES)]
    done: list[tuple[int, int]] = []
    found = evaluator.evaluate_all(points, "val", on_progress=lambda *each: done.append(each))
    most = [-each.score for each in found]
    assert max(most) == 2
    assert done == sorted(done)
    assert done[-1] == (4, 4)
    assert evaluator.missing(points, "val") == []
    assert [each.mixture_key for each in found] == [evaluator.key(point) for point in points]


def test_commands_that_run_at_once_are_all_ended_by_a_cancel(
    folder: Path, sweep: Sweep, store: Store
) -> None:
    script = "import os, sys, time\nopen(sys.argv[1] + '.pid', 'w')\ntime.sleep(600)\n"
    script = script.replace("sys.argv[1] + '.pid'", f"{str(folder)!r} + f'/{{os.getpid()}}.pid'")
    task = load_task(write(folder, more="at_once = 3", script=script))
    evaluator = Evaluator(task, store, device="cpu")

    def started() -> list[int]:
        return [int(each.stem) for each in folder.glob("*.pid")]

    def on_progress(done: int, total: int) -> None:
        if len(started()) == 3:
            raise Cancelled

    points = [sweep[name].mixture for name in ("base", *NAMES)]
    with pytest.raises(Cancelled):
        evaluator.evaluate_all(points, "val", on_progress=on_progress)
    for process in started():
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert len(evaluator.missing(points, "val")) == 4


def test_one_result_file_is_for_one_run_at_a_time(folder: Path) -> None:
    with pytest.raises(TaskError, match="would overwrite the same `result`"):
        load_task(write(folder, more='at_once = 2\nresult = "metrics.json"'))


IN_FOLDER = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file

folder = Path(sys.argv[1])
config = json.loads((folder / "config.json").read_text())
weights = load_file(folder / "model.safetensors")
names = sorted(path.name for path in folder.iterdir())
assert names == ["config.json", "model.safetensors", "tokenizer.json"], names
error = sum(float(t.double().sum()) for n, t in sorted(weights.items()) if "weight" in n)
print(json.dumps({"error": error, "loss": config["hidden_size"], "accuracy": 0.5}))
"""


def test_a_command_may_take_a_folder_for_from_pretrained(
    folder: Path, states: dict[str, State], store: Store, tmp_path: Path
) -> None:
    for name in ("run1", "run2"):
        place = tmp_path / "hub" / name / "checkpoint-10"
        place.mkdir(parents=True)
        save_file(states[name], place / "model.safetensors")
        (place / "config.json").write_text('{"hidden_size": 4, "_name_or_path": "there"}')
        (place.parent / "tokenizer.json").write_text("{}")
    sweep = Sweep.from_folder(tmp_path / "hub")
    task = load_task(write(folder, more='form = "folder"', script=IN_FOLDER))
    evaluator = Evaluator(task, store, device="cpu")
    names = sweep.names()
    found = evaluator.evaluate(uniform(sweep).mixture, "val")
    whole = [states[name] for name in ("run1", "run2")]
    expected = sum(float(s[n].double().sum()) / 2 for s in whole for n in s if "weight" in n)
    assert -found.score == pytest.approx(expected, rel=1e-4)
    assert found.loss == 4
    assert evaluator.evaluate(sweep[names[0]].mixture, "val").n == 1


def test_a_folder_needs_a_configuration(folder: Path, sweep: Sweep, store: Store) -> None:
    task = load_task(write(folder, more='form = "folder"'))
    with pytest.raises(CheckpointError, match="is not in a Hugging Face folder"):
        Evaluator(task, store, device="cpu").evaluate(sweep["run1"].mixture, "val")
