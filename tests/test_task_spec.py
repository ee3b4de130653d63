from pathlib import Path

import pytest

from soupcore.errors import TaskError
from soupcore.task_spec import TaskSpec


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    for name in ("task.py", "sms.toml", "a:b.py"):
        (tmp_path / "digits" / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "attribute", "kind", "label"),
    [
        ("digits/task.py:task", "task", "", "digits/task.py: task"),
        ("digits/a:b.py:other", "other", "", "digits/a:b.py: other"),
        ("hf:digits/sms.toml", "", "hf", "digits/sms.toml (Hugging Face)"),
    ],
)
def test_a_task_is_a_file_and_a_name_or_a_kind(
    text: str, attribute: str, kind: str, label: str
) -> None:
    found = TaskSpec.parse(text)
    assert (found.attribute, found.kind, found.label) == (attribute, kind, label)
    assert str(found) == text
    assert str(found.resolved) == text.replace("digits", f"{Path.cwd()}/digits")
    assert TaskSpec.parse(str(found.resolved)) == found.resolved


@pytest.mark.parametrize(
    "text",
    ["", "task", "digits/task.py", "digits/task.py:", "digits/task.py:a b", "digits/no.py:task",
     "hf:", "hf:digits", "hf:digits/no.toml", "digits:task"],
)  # fmt: skip
def test_another_text_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(TaskError, match=r"names no task.*file\.py:attribute or as hf:"):
        TaskSpec.parse(text)
