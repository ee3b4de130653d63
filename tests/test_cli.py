"""The command `stockpot`."""

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import fsspec
import pytest
import torch
from safetensors.torch import load_file

import soupcore
from soupcore import cli
from soupcore.tasks import Role
from soupcore.version import VERSION
from tests import adapters
from tests.helpers import average, same_weights, save_sweep
from tests.toy import logits, random_state, toy_split, write_task

PROJECT = Path(__file__).parents[1]
RUNS = ("a", "b")

# A second task in the same file, which has other metrics.
METRICS = """
from soupcore import Metric

def error(predictions, targets):
    return float((predictions != targets).double().mean())

metrics = [Metric("error", False, (0, 1), compute=error), "macro F1"]
with_metrics = ClassificationTask(build_model, splits, name="toy", metrics=metrics)
"""


@pytest.fixture
def runs(tmp_path: Path) -> str:
    states = {name: random_state(seed) for seed, name in enumerate(("base", *RUNS))}
    return str(save_sweep(tmp_path / "runs", states))


@pytest.fixture
def spec(tmp_path: Path) -> str:
    def split(role: Role, seed: int) -> soupcore.Split:
        inputs = toy_split(role, 60, seed).inputs
        return soupcore.Split(role, inputs, logits(random_state(0), inputs).argmax(1))

    splits = {"val": split("select", 1), "test": split("report", 2)}
    return f"{write_task(tmp_path, splits, METRICS)}:task"


Ran = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command in this process; return its exit code, standard output and error."""

    def run(*arguments: str) -> Ran:
        try:
            code = cli.main(arguments)
        except SystemExit as end:  # by argparse
            code = end.code if isinstance(end.code, int) else 1
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_evaluate_prints_the_scores_of_the_library(
    run: Callable[..., Ran], runs: str, spec: str
) -> None:
    code, out, err = run("evaluate", runs, "--task", spec, "--json", "--device=cpu")
    assert (code, err) == (0, "")
    sweep = soupcore.Sweep.from_folder(runs)
    evaluator = soupcore.Evaluator(soupcore.load_task(spec))
    rows = json.loads(out)
    assert [(r["split"], r["name"]) for r in rows] == [
        (split, name) for split in ("val", "test") for name in ("base", *RUNS)
    ]
    for row in rows:
        found = evaluator.evaluate(sweep[row["name"]].mixture, row["split"])
        assert (row["loss"], row["n"]) == (found.loss, found.n)
        assert row["metrics"] == {"accuracy": found.score}
        assert row["interval"] == [*found.score_interval]


def test_evaluate_prints_a_table(run: Callable[..., Ran], runs: str, spec: str) -> None:
    code, out, _ = run("evaluate", runs, f"--task={spec}", "--split=test", "--ingredients= b,")
    assert code == 0
    head, row = out.splitlines()
    assert head.split() == ["accuracy,", "%", "test"]
    assert row.split()[0] == "b"


def test_soup_writes_the_weights(
    run: Callable[..., Ran], runs: str, spec: str, tmp_path: Path
) -> None:
    file = tmp_path / "soup.safetensors"
    code, out, err = run("soup", runs, f"--task={spec}", "--recipe=uniform", "-o", str(file))
    assert (code, err) == (0, "")
    expected = average([random_state(1), random_state(2)])
    assert same_weights(load_file(file), expected)
    assert out.startswith("Uniform soup of a, b\n  a: 1/2\n  b: 1/2\nval: accuracy ")
    assert out.endswith(f"n = 60\nwrote {file}\n")


def test_a_recipe_that_needs_no_evaluation_needs_no_task(
    run: Callable[..., Ran], runs: str, tmp_path: Path
) -> None:
    file = tmp_path / "soup.safetensors"
    options = ("--recipe=wise_ft", "--parameter=α=0.25", "--ingredients=b", "--dtype=float16")
    code, out, _ = run("soup", runs, *options, f"--output={file}", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["files"] == [str(file)]
    assert found["soup"]["coefficients"] == {"base": "3/4", "b": "1/4"}
    assert load_file(file)["0.weight"].dtype.itemsize == 2


@pytest.mark.parametrize(
    ("recipe", "given", "parameters"),
    [
        ("greedy", ["backward=true", "accept=>"], {"backward": True, "accept": ">"}),
        ("greedy", ["backward=False", "seed=3"], {"backward": False, "seed": 3}),
        ("task_arithmetic", ["λ=1"], {"scale": 1.0}),
        ("ties", ["density=0.5", "scale=2"], {"density": 0.5, "scale": 2.0}),
        ("wise_ft", ["keep=3."], {"keep": "3."}),
    ],
)
def test_parameters_are_those_of_the_recipe(
    run: Callable[..., Ran], runs: str, spec: str, recipe: str, given: list[str], parameters: Any
) -> None:
    options = [f"--parameter={text}" for text in given]
    code, out, _ = run("soup", runs, f"--task={spec}", f"--recipe={recipe}", *options, "--json")
    assert code == 0
    assert json.loads(out)["soup"]["parameters"].items() >= parameters.items()


def test_barriers_prints_the_pairs(run: Callable[..., Ran], runs: str, spec: str) -> None:
    code, out, _ = run("barriers", runs, f"--task={spec}", "--alphas=3", "--json")
    assert code == 0
    (row,) = json.loads(out)
    sweep = soupcore.Sweep.from_folder(runs)
    evaluator = soupcore.Evaluator(soupcore.load_task(spec))
    path = soupcore.linear_path(sweep["a"], sweep["b"], evaluator, 3)
    assert (row["first"], row["second"], row["points"]) == ("a", "b", 3)
    assert row["loss barrier"] == path.barrier
    code, out, _ = run("barriers", runs, f"--task={spec}", "--alphas=2")
    assert (code, len(out.splitlines())) == (0, 2)  # an upper bound of ∞ is null in JSON
    assert "Infinity" not in run("barriers", runs, f"--task={spec}", "--alphas=2", "--json")[1]


def test_excluded_checkpoints_are_named(run: Callable[..., Ran], runs: str, spec: str) -> None:
    (Path(runs) / "c.safetensors").write_bytes(b"")
    code, out, err = run("evaluate", runs, f"--task={spec}", "--json")
    assert code == 0
    assert err.startswith("stockpot: excluded c: ")
    assert err.count("\n") == 1
    assert "c" not in {row["name"] for row in json.loads(out)}


FAULTS = {
    "no folder": (["evaluate", "/nowhere", "--task={spec}"], 2, "/nowhere is not a folder"),
    "no dashboard there": (["/nowhere"], 2, "/nowhere is not a folder"),
    "no task": (["evaluate", "{runs}"], 2, "required: --task"),
    "no such task": (["evaluate", "{runs}", "--task=x.py"], 2, "'x.py' names no task. Write it as"),
    "no choice without": (["soup", "{runs}", "--recipe=greedy"], 2, "name a --task"),
    "no result": (["soup", "{runs}", "--recipe=uniform"], 2, "name an --output"),
    "recipe": (["soup", "{runs}", "--recipe=nope"], 2, "'nope' (choose from greedy, uniform"),
    "suffix": (["soup", "{runs}", "--recipe=uniform", "-o=a.txt"], 2, "a.txt ends in none of"),
    "dtype": (["soup", "{runs}", "--recipe=uniform", "-o=a.pt", "--dtype=float16"], 2, "--dtype"),
    "rank": (
        ["soup", "{runs}", "--recipe=uniform", "-o=a.pt", "--rank=1"],
        2,
        "--rank: requires --adapter",
    ),
    "adapter": (
        ["soup", "{runs}", "--recipe=uniform", "-o=/no/a", "--adapter"],
        2,
        "--adapter: requires --output FOLDER",
    ),
    "no adapters": (
        ["soup", "{runs}", "--recipe=uniform", "-o={empty}/a", "--adapter"],
        1,
        "a is not a LoRA adapter",
    ),
    "no parent": (["soup", "{runs}", "--recipe=uniform", "-o=/no/a.pt"], 2, "/no is not a folder"),
    "parameter": (
        ["soup", "{runs}", "--task={spec}", "--recipe=greedy", "--parameter=x=1"],
        2,
        "'x=1' is not NAME=VALUE with one of accept",
    ),
    "value": (
        ["soup", "{runs}", "--task={spec}", "--recipe=greedy", "--parameter=seed=a"],
        2,
        "'seed=a' needs a value of the type int",
    ),
    "switch": (
        ["soup", "{runs}", "--task={spec}", "--recipe=greedy", "--parameter=backward=1"],
        2,
        "'backward=1' needs a value of the type bool",
    ),
    "range": (
        ["soup", "{runs}", "--task={spec}", "--recipe=wise_ft", "--parameter=alpha=9"],
        1,
        "must be between -1 and 2",
    ),
    "alphas": (["barriers", "{runs}", "--task={spec}", "--alphas=1"], 2, "must be an integer >= 2"),
    "split": (["evaluate", "{runs}", "--task={spec}", "--split=x"], 1, "has no split 'x'"),
    "ingredient": (
        ["evaluate", "{runs}", "--task={spec}", "--ingredients=z"],
        1,
        "has no usable ingredient 'z'",
    ),
    "no ingredients": (
        ["evaluate", "{runs}", "--task={spec}", "--ingredients= ,"],
        2,
        "name at least one ingredient",
    ),
    "device": (["evaluate", "{runs}", "--task={spec}", "--device=x"], 1, "'x' is not a device"),
    "cuda": (
        ["evaluate", "{runs}", "--task={spec}", "--device=cuda:99"],
        1,
        "There is no device 'cuda:99'",
    ),
    "report without a task": (
        ["report", "{runs}", "--analyze", "-o", "x.html"],
        2,
        "name a --task",
    ),
    "credentials": (["evaluate", "s3://key:word@b/a", "--task={spec}"], 2, "contains credentials"),
    "two folders": (["evaluate", "{runs}", "{runs}", "--task={spec}"], 2, "name one folder, or"),
    "folder and URL": (["{runs}", "hf://a/b"], 2, "name one folder, or URLs"),
    "missing": (["evaluate", "memory://no/where", "--task={spec}"], 1, "no/where does not exist"),
    "push nowhere": (["soup", "{runs}", "--recipe=uniform", "--push=a"], 2, "Name it as org/name"),
    "public": (["soup", "{runs}", "--recipe=uniform", "-o=a.pt", "--public"], 2, "requires --push"),
    "report to a folder": (["report", "{runs}", "-o", "{empty}"], 2, "is no file in an existing"),
    "report of no soup": (
        ["report", "{runs}", "--task={spec}", "--soup=x", "-o", "{empty}/x.html"],
        1,
        "no stored soup 'x'",
    ),
    "empty": (["evaluate", "{empty}", "--task={spec}"], 1, "has no usable checkpoint"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_are_printed_as_a_sentence(
    run: Callable[..., Ran], runs: str, spec: str, fault: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    arguments, expected, sentence = FAULTS[fault]
    filled = [a.format(runs=runs, spec=spec, empty=tmp_path / "empty") for a in arguments]
    code, out, err = run(*filled)
    assert (code, out) == (expected, "")
    assert sentence in err
    if code == 1:
        assert err.startswith("stockpot: ")
        assert "Traceback" not in err


def test_urls_stand_for_a_folder(run: Callable[..., Ran], runs: str, spec: str) -> None:
    fs = fsspec.filesystem("memory")
    for path in Path(runs).glob("*"):
        fs.pipe(f"/cli/{path.name}", path.read_bytes())
    options = (f"--task={spec}", "--device=cpu", "--json")
    code, local, _ = run("evaluate", runs, *options)
    assert code == 0
    assert run("evaluate", "memory://cli", *options)[:2] == (0, local)
    for path in fs.ls("/cli", detail=False):
        fs.rm(path)
    assert run("evaluate", "memory://cli", *options)[:2] == (0, local)
    assert "does not exist" in run("evaluate", "memory://cli", "--refresh", *options)[2]


def test_a_folder_that_cannot_be_used_says_why_of_each_file(
    run: Callable[..., Ran], spec: str, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "runs" / f"{name}.safetensors").write_bytes(b"")
    code, _, err = run("evaluate", str(tmp_path / "runs"), f"--task={spec}")
    assert code == 1
    first, second, last = err.splitlines()
    assert first.startswith("stockpot: excluded a: ")
    assert second.startswith("stockpot: excluded b: ")
    assert "has no usable checkpoint" in last


def test_a_report_of_the_stored_results_is_written(
    run: Callable[..., Ran], runs: str, spec: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    options = ("report", runs, f"--task={spec}", f"--output={file}")
    assert run(*options) == (0, f"wrote {file}\n", "")
    assert "Nothing has been evaluated yet." in file.read_text()
    code, out, err = run(*options, "--analyze", "--device=cpu")
    assert (code, out) == (0, f"wrote {file}\n")
    assert "stockpot: Evaluate 3 checkpoints on 2 splits\n" in err
    assert "stockpot: Build the greedy soup of all ingredients\n" in err
    analyzed = file.read_text()
    assert "Evidence" in analyzed
    assert run(*options) == (0, f"wrote {file}\n", "")  # as stored for the dashboard
    assert file.read_text() == analyzed
    folder = tmp_path / "report.zip"
    assert run(*options[:-1], f"--output={folder}") == (0, f"wrote {folder}\n", "")
    with zipfile.ZipFile(folder) as opened:
        assert opened.read("stockpot-report/report.html").decode() == analyzed


def test_a_report_needs_no_task(run: Callable[..., Ran], runs: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert run("report", runs, "-o", str(file)) == (0, f"wrote {file}\n", "")
    text = file.read_text()
    assert "All checkpoints are compatible." in text
    assert "Verdict" not in text


def test_the_version_is_printed(run: Callable[..., Ran]) -> None:
    assert run("--version") == (0, f"stockpot {VERSION}\n", "")


def test_help_names_all_commands(run: Callable[..., Ran]) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(
        f"stockpot {name} FOLDER" in out for name in ("soup", "evaluate", "barriers", "report")
    )


def test_the_dashboard_gets_all_arguments(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Ran], runs: str
) -> None:
    class Replaced(Exception):  # noqa: N818 - not an error
        """Raised in place of the server."""

    def execv(program: str, command: list[str]) -> None:
        raise Replaced(program, command)

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "")  # so that it is restored
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    arguments = [runs, "--port=8765", "--address=127.0.0.2", "--token"]
    with pytest.raises(Replaced) as replaced:
        run(*arguments)
    program, command = replaced.value.args
    assert program == command[0] == sys.executable
    app = str(PROJECT / "app.py")
    assert command[4:] == ["run", app, "--server.port=8765", "--", *arguments]
    assert os.environ["STREAMLIT_SERVER_ADDRESS"] == "127.0.0.2"


# Runs the command in forks of a process that has imported torch, which takes most of the time of
# a process. A message has the arguments, the workspace, and standard output and error; it is
# answered by the id of the process, and by its exit code when it has ended.
FORKS = """
import json, os, signal, socket, sys
from soupcore import cli, evaluation, tasks

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
asking = socket.socket(fileno=int(sys.argv[1]))
while (message := socket.recv_fds(asking, 1 << 16, 2))[0]:
    (arguments, workspace), descriptors = json.loads(message[0]), message[1]
    pid = os.fork()
    if not pid:
        asking.close()
        for number, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ["STOCKPOT_WORKSPACE"] = workspace
        sys.exit(cli.main(arguments))
    for descriptor in descriptors:
        os.close(descriptor)
    asking.send(str(pid).encode())
    asking.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[socket.socket]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        here,
        subprocess.Popen(
            [sys.executable, "-c", FORKS, str(there.fileno())],
            cwd=PROJECT,
            pass_fds=[there.fileno()],
        ),
    ):
        there.close()
        here.settimeout(300)
        yield here
        here.close()  # it ends


@dataclass
class Command:
    """The command in a process of its own."""

    pid: int
    output: TextIO
    errors: TextIO


@pytest.fixture
def start(forks: socket.socket, workspace: Path) -> Iterator[Callable[..., Command]]:
    with ExitStack() as stack:

        def start(*arguments: str) -> Command:
            pipes = [os.pipe(), os.pipe()]
            ends = [written for _, written in pipes]
            socket.send_fds(forks, [json.dumps([arguments, str(workspace)]).encode()], ends)
            for end in ends:
                os.close(end)
            output, errors = (stack.enter_context(os.fdopen(end)) for end, _ in pipes)
            return Command(int(forks.recv(100)), output, errors)

        yield start


SLOW = """
import time
print("began", flush=True)
time.sleep(60)
"""


def test_ctrl_c_ends_the_command(
    start: Callable[..., Command], forks: socket.socket, tmp_path: Path, runs: str
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    command = start("evaluate", runs, "--task", f"{tmp_path / 'slow.py'}:task")
    assert command.output.readline() == "began\n"
    os.kill(command.pid, signal.SIGINT)
    assert command.errors.read() == "stockpot: interrupted; finished evaluations are stored\n"
    assert int(forks.recv(100)) == 130


def test_a_closed_pipe_is_not_an_error(
    start: Callable[..., Command], forks: socket.socket, runs: str, spec: str
) -> None:
    command = start("evaluate", runs, "--json", "--task", spec)
    command.output.close()
    assert command.errors.read() == ""
    assert int(forks.recv(100)) == 1


def test_metrics_have_their_values_where_lower_is_better(
    run: Callable[..., Ran], runs: str, spec: str
) -> None:
    spec = spec.replace(":task", ":with_metrics")
    options = ("evaluate", runs, f"--task={spec}", "--split=val", "--ingredients=a")
    (row,) = json.loads(run(*options, "--json")[1])
    assert row["metrics"].keys() == {"error", "macro F1"}
    error, (low, high) = row["metrics"]["error"], row["interval"]
    assert 0 < low < error < high < 1
    head, shown = run(*options)[1].splitlines()
    assert head.split() == ["error,", "%", "val"]
    assert shown.split() == ["a", f"{100 * error:.2f}"]


def test_a_metric_of_the_task_is_chosen_by(
    run: Callable[..., Ran], runs: str, spec: str, tmp_path: Path
) -> None:
    spec = spec.replace(":task", ":with_metrics")
    given = (runs, f"--task={spec}", "--metric=macro F1")
    (row,) = json.loads(run("evaluate", *given, "--split=val", "--ingredients=a", "--json")[1])
    low, high = row["interval"]
    assert row["primary"] == "macro F1"
    assert 0 < low < row["metrics"]["macro F1"] < high < 1
    soup = json.loads(run("soup", *given, "--recipe=greedy", "--json")[1])["soup"]
    assert soup["parameters"]["primary"] == soup["scores"]["val"]["metric"] == "macro F1"
    code, _, _ = run("report", *given, "-o", str(tmp_path / "report.html"))
    assert code == 0
    assert (
        "macro F1 (higher is better); also measured: error"
        in (tmp_path / "report.html").read_text()
    )
    code, _, err = run("evaluate", runs, f"--task={spec}", "--metric=AUC")
    assert (code, "has no metric 'AUC'; it has error, macro F1" in err) == (1, True)
    code, _, err = run("soup", runs, "--recipe=uniform", "--metric=AUC", "-o", "a.safetensors")
    assert (code, "argument --metric: requires --task" in err) == (2, True)


def test_a_rule_on_tensors_is_kept(run: Callable[..., Ran], runs: str, tmp_path: Path) -> None:
    file = tmp_path / "soup.safetensors"
    options = ("--recipe=uniform", "--tensors=all but the head", "--rest=b", f"--output={file}")
    code, out, _ = run("soup", runs, *options)
    assert code == 0
    assert "taking no part: 2 tensors (3.bias, 3.weight) from b\n" in out
    found, mean = load_file(file), average([random_state(1), random_state(2)])
    assert same_weights(
        found, {n: random_state(2)[n] if n.startswith("3.") else t for n, t in mean.items()}
    )
    code, _, err = run("soup", runs, "--recipe=uniform", "--tensors=bone.", f"--output={file}")
    assert code == 1
    assert "No tensor matches 'bone.'" in err


def test_snapshots_are_chosen_for_all_runs_and_for_one(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    for seed, name in enumerate(RUNS):
        folder = tmp_path / "detect" / name / "weights"
        folder.mkdir(parents=True)
        torch.save(random_state(10 + seed), folder / "best.pt")
        torch.save(random_state(20 + seed), folder / "last.pt")
    chosen = {(): (10, 11), ("last",): (20, 21), ("last", "b=best"): (20, 11)}
    file = tmp_path / "soup.safetensors"
    for snapshots, seeds in chosen.items():
        options = [f"--snapshot={snapshot}" for snapshot in snapshots]
        code, _, err = run(
            "soup", str(tmp_path / "detect"), "--recipe=uniform", f"--output={file}", *options
        )
        assert (code, err) == (0, "")
        assert same_weights(load_file(file), average([random_state(seed) for seed in seeds]))


def test_an_output_without_a_suffix_is_a_folder_for_from_pretrained(
    run: Callable[..., Ran], runs: str, tmp_path: Path
) -> None:
    code, _, err = run("soup", runs, "--recipe=uniform", f"--output={tmp_path / 'soup'}")
    assert code == 1
    assert "no config.json of a Hugging Face model beside the weights of a," in err
    for name in RUNS:
        folder = tmp_path / "hub" / name
        save_sweep(folder, {"model": random_state(ord(name))})
        (folder / "config.json").write_text('{"model_type": "toy"}')
    options = ("--recipe=uniform", f"--output={tmp_path / 'soup'}", "--dtype=bfloat16")
    code, out, _ = run("soup", str(tmp_path / "hub"), *options)
    assert code == 0
    assert f"wrote {tmp_path / 'soup' / 'model.safetensors'}\n" in out
    assert (tmp_path / "soup/README.md").is_file()


def test_a_soup_of_adapters_is_written_as_one(run: Callable[..., Ran], tmp_path: Path) -> None:
    adapters.save_sweep(tmp_path / "sweep")
    folder = str(tmp_path / "sweep")
    soup = soupcore.uniform(soupcore.Sweep.from_folder(folder))
    options = ("soup", folder, "--recipe=uniform", "--adapter", f"--output={tmp_path / 'soup'}")
    code, out, _ = run(*options)
    assert (code, out.count("relative error of the adapter's change: 0\n")) == (0, 1)
    assert f"wrote {tmp_path / 'soup' / 'adapter_model.safetensors'}\n" in out
    code, out, _ = run(*options, "--rank=2", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["relative_error"] == soupcore.save_adapter(soup, tmp_path / "again", rank=2) > 0
    for file in told["files"]:
        assert Path(file).read_bytes() == (tmp_path / "again" / Path(file).name).read_bytes()
    assert len(told["files"]) == 2


def test_a_folder_is_no_address_of_a_cluster(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", "--task", __file__ + ":x", "--ray", runs])
    assert "is a folder; write it before --ray" in capsys.readouterr().err
