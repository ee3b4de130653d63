from pathlib import Path

import pytest

from pages.components import settings


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "task.py"
    path.write_text("task = None\n")
    return path


def test_roots_and_tasks_named_at_the_start_come_before_the_sample(
    tmp_path: Path, task_file: Path
) -> None:
    known = settings.configure([f"--root={tmp_path}", f"--task={task_file}:task"])
    assert known.roots[0] == tmp_path.resolve()
    assert known.tasks == (f"{task_file.resolve()}:task", settings.SAMPLE_TASK)
    assert Path(settings.SAMPLE_SWEEP).is_relative_to(known.roots[1])


def test_a_link_inside_a_root_does_not_lead_out_of_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "inside").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    known = settings.configure([f"--root={root}"])
    assert known.allows(root / "inside")
    assert not known.allows(root / "link")
    assert not known.allows(root / ".." / "outside")


@pytest.mark.parametrize(
    "argument", ["--root=/nowhere", "--task=/nowhere.py:task", "--task={file}", "--task={file}:a b"]
)
def test_a_start_that_makes_no_sense_is_refused_in_words(
    task_file: Path, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings.configure([argument.format(file=task_file)])
    assert argument.format(file=task_file).partition("=")[2] in capsys.readouterr().err


def test_a_teams_database_is_named_by_an_argument_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.configure([]).database is None
    monkeypatch.setenv("STOCKPOT_DATABASE", "postgresql://team")
    assert settings.configure([]).database == "postgresql://team"
    assert settings.configure(["--database=postgresql://other"]).database == "postgresql://other"


def test_each_device_named_gets_a_worker() -> None:
    assert settings.configure([]).devices == ("auto",)
    twice = ["--device=cuda:0", "--device=cuda:1", "--device=cuda:0"]
    assert settings.configure(twice).devices == ("cuda:0", "cuda:1")
