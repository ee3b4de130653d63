import os
import sys
from pathlib import Path

import pytest
import torch

from soupcore import ClassificationTask, TaskError, load_task
from soupcore.tasks.loading import task_signature

SOURCE = """
import torch
from soupcore import ClassificationTask, Split

LABELS = [0, 1]

def build_model():
    return torch.nn.Linear(2, 2)

splits = {"val": Split("select", torch.eye(2), torch.tensor(LABELS))}
task = ClassificationTask(build_model, splits, name="toy")
other = ClassificationTask(build_model, splits, version="2", name="other")
not_a_task = 3
"""


def write(folder: Path, source: str = SOURCE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "task.py").write_text(source)
    return folder / "task.py"


def test_a_task_is_loaded_by_file_and_attribute(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert (load_task(f"{path}:task").name, load_task(f"{path}:other").name) == ("toy", "other")
    assert isinstance(load_task(f"{path}:task"), ClassificationTask)


def test_a_file_knows_its_own_path(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE.replace('"toy"', "__file__"))
    assert load_task(f"{path}:task").name == str(path)


def test_classes_of_the_file_can_be_pickled(tmp_path: Path) -> None:
    net = "class Net(torch.nn.Linear): pass\ndef build_model(): return Net(2, 2)\n"
    task = load_task(f"{write(tmp_path, SOURCE.replace('splits =', net + 'splits =', 1))}:task")
    torch.save(task.build_model(), tmp_path / "net.pt")
    assert torch.load(tmp_path / "net.pt", weights_only=False).in_features == 2


@pytest.mark.parametrize(
    ("source", "attribute", "problem"),
    [
        pytest.param(None, "task", r"names no task\. Write it as", id="no file"),
        pytest.param(
            "def", "task", r"could not be run: SyntaxError.* at .*task\.py:1: def$", id="syntax"
        ),
        pytest.param(
            "n = 0\n1 / n\n",
            "task",
            r"run: ZeroDivisionError: .*\. It failed at .*task\.py:2: 1 / n$",
            id="failing",
        ),
        pytest.param(
            "import json\njson.loads('x')\n",
            "task",
            r"task\.py:2: json\.loads\('x'\)$",
            id="failing in a library",
        ),
        pytest.param("import nowhere_to_be_found", "task", "ModuleNotFoundError", id="import"),
        pytest.param("raise SystemExit(2)", "task", "could not be run: SystemExit", id="exit"),
        pytest.param(SOURCE, "tusk", "no Task called 'tusk' .*missing", id="no attribute"),
        pytest.param(SOURCE, "", "names no task", id="empty attribute"),
        pytest.param(SOURCE, "not_a_task", r"called 'not_a_task' \(it is a int", id="wrong kind"),
        pytest.param(SOURCE, "build_model", "it is a function", id="function"),
    ],
)
def test_a_file_without_a_task_is_refused_with_the_reason(
    tmp_path: Path, source: str | None, attribute: str, problem: str
) -> None:
    if source is not None:
        write(tmp_path, source)
    with pytest.raises(TaskError, match=problem) as caught:
        load_task(f"{tmp_path / 'task.py'}:{attribute}")
    assert "task.py" in str(caught.value)


@pytest.mark.parametrize("spec", ["", ":", "task", ":task", "task.py"])
def test_a_spec_without_a_file_is_refused(spec: str) -> None:
    with pytest.raises(TaskError, match=r"names no task\. Write it as path/to/file\.py:attr"):
        load_task(spec)


def test_the_key_is_that_of_the_text_wherever_the_file_lies(tmp_path: Path) -> None:
    one, two = (load_task(f"{write(tmp_path / name)}:task") for name in ("1", "2"))
    assert one.key == two.key
    assert one.split("val").digest == two.split("val").digest


@pytest.mark.parametrize(
    ("source", "attribute"),
    [
        pytest.param(SOURCE, "other", id="attribute"),
        pytest.param(SOURCE + "# a remark\n", "task", id="text"),
        pytest.param(SOURCE.replace("Linear(2, 2)", "Linear(2, 3)"), "task", id="network"),
    ],
)
def test_the_key_changes_with_the_text_and_the_attribute(
    tmp_path: Path, source: str, attribute: str
) -> None:
    before = load_task(f"{write(tmp_path / '1')}:task").key
    assert load_task(f"{write(tmp_path / '2', source)}:{attribute}").key != before


@pytest.fixture
def bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


@pytest.mark.usefixtures("bytecode")
def test_a_file_changed_within_its_time_stamp_is_run_as_it_is_now(tmp_path: Path) -> None:
    path = write(tmp_path)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert load_task(f"{path}:task").split("val").targets.tolist() == [0, 1]
    write(tmp_path, SOURCE.replace("[0, 1]", "[1, 0]"))  # as long as before
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert load_task(f"{path}:task").split("val").targets.tolist() == [1, 0]


@pytest.mark.usefixtures("bytecode")
def test_nothing_is_written_beside_the_file(tmp_path: Path) -> None:
    load_task(f"{write(tmp_path)}:task")
    assert [path.name for path in tmp_path.iterdir()] == ["task.py"]


def test_the_signature_is_known_without_running_the_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = task_signature(f"{path}:task")
    assert load_task(f"{path}:task").source_digest == before
    write(tmp_path, "raise SystemExit")
    assert task_signature(f"{path}:task") != before
    path.unlink()
    with pytest.raises(TaskError, match="names no task"):
        task_signature(f"{path}:task")


BESIDE = SOURCE.replace("LABELS = [0, 1]", "from labels import LABELS")


@pytest.mark.usefixtures("bytecode")
def test_a_module_beside_the_file_is_imported_as_it_is_now(tmp_path: Path) -> None:
    path = write(tmp_path, BESIDE)
    keys = set()
    for labels in ([0, 1], [1, 0], [0, 1]):
        (tmp_path / "labels.py").write_text(f"LABELS = {labels}")
        os.utime(tmp_path / "labels.py", (1_700_000_000, 1_700_000_000))
        task = load_task(f"{path}:task")
        assert task.split("val").targets.tolist() == labels
        keys.add(task.key)
    assert len(keys) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.py", "task.py"]


def test_modules_of_two_folders_do_not_mix(tmp_path: Path) -> None:
    for name, labels in (("a", [0, 1]), ("b", [1, 0])):
        write(tmp_path / name, BESIDE)
        (tmp_path / name / "labels.py").write_text(f"LABELS = {labels}")
    for name, labels in (("a", [0, 1]), ("b", [1, 0]), ("a", [0, 1])):
        task = load_task(f"{tmp_path / name / 'task.py'}:task")
        assert task.split("val").targets.tolist() == labels


def test_a_module_that_fails_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, BESIDE)
    (tmp_path / "labels.py").write_text("LABELS = []\nLABELS[3]\n")
    with pytest.raises(TaskError, match=r"IndexError: .* It failed at .*labels\.py:2: LABELS\[3\]"):
        load_task(f"{path}:task")


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("helper.py", "import helper"),
        ("helper.py", "import os, helper as other"),
        ("helper.py", "from helper import thing"),
        ("helper.py", "def late():\n    import helper"),
        ("package/__init__.py", "import package.inner"),
        ("package/inner.py", "from package import inner"),
        ("package/inner.py", "from package.inner import thing"),
        ("package/deep.py", "from package import inner"),
    ],
)
def test_the_signature_covers_the_modules_that_are_imported(
    tmp_path: Path, module: str, statement: str
) -> None:
    path = write(tmp_path, f"{statement}\n{SOURCE}")
    (tmp_path / "package").mkdir()
    for name in ("helper.py", "unused.py", "package/__init__.py", "package/deep.py"):
        (tmp_path / name).write_text("thing = 1\n")
    (tmp_path / "package/inner.py").write_text("from .deep import thing\nfrom . import missing\n")
    before = task_signature(f"{path}:task")
    (tmp_path / "unused.py").write_text("thing = 2\n")
    assert task_signature(f"{path}:task") == before
    (tmp_path / module).write_text("from .deep import thing\nthing = 2\n")
    assert task_signature(f"{path}:task") != before
