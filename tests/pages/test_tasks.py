"""The form for the task of a Hugging Face network; its way to a soup is a test in the browser."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.components import settings, state, tasks
from soupcore import TaskError
from soupcore.tasks.hugging_face_file import columns_of, write


def draw() -> None:
    import streamlit as st

    from pages.components import tasks

    st.session_state["created"] = tasks._describe()


@pytest.fixture
def root(tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of runs with data beside them, and a server that may open it."""
    root = tmp_path / "root"
    for name in ("base", "run-1"):
        (root / "runs" / name).mkdir(parents=True)
        for file in ("config.json", "tokenizer_config.json"):
            (root / "runs" / name / file).write_text("{}")
    for name in ("val", "test", "noise"):
        (root / f"{name}.csv").write_text("label,message\nspam,free\n")
    (tmp_path / "outside.csv").write_text("label,message\nspam,free\n")
    (root / "link.csv").symlink_to(tmp_path / "outside.csv")
    monkeypatch.setattr(tasks, "find_spec", lambda name: name)
    monkeypatch.setattr(state, "descriptions", lambda: Described())
    state.store.cache_clear()
    settings.configure([f"--root={root}"])
    yield root
    state.store.cache_clear()
    settings.configure([])


class Described:
    def get(self, spec: str, wait_s: float) -> None:
        """Find nothing wrong: that takes transformers."""


def session_of(root: Path) -> AppTest:
    session = AppTest.from_function(draw, default_timeout=60)
    session.session_state["sweep"] = str(root / "runs")
    return session.run()


def described(root: Path) -> dict[str, Any]:
    return {
        "task": "text-classification",
        "model": str(root / "runs" / "base"),
        "text": "message",
        "label": "label",
        "metrics": ["accuracy"],
        "name": "Text classification",
        "splits": {
            "select": {"file": str(root / "val.csv"), "role": "select"},
            "report": {"file": str(root / "test.csv"), "role": "report"},
            "shift/noise": {"file": str(root / "noise.csv"), "role": "shift"},
        },
    }


def test_files_beside_the_runs_are_proposed_and_written(root: Path) -> None:
    session = session_of(root)
    session.text_area[0].set_value(str(root / "noise.csv")).run()
    next(button for button in session.button if button.label == "Create the task").click().run()
    assert not session.exception
    assert not session.error
    spec = session.session_state["created"]
    assert tomllib.loads(Path(spec.removeprefix("hf:")).read_text()) == described(root)
    assert spec in settings.current().tasks_for(str(root / "runs"))
    settings.configure([])  # a server that may not open these files does not offer them
    assert spec not in settings.current().tasks


def test_an_error_stays_on_the_form(root: Path) -> None:
    session = session_of(root)
    session.text_input(key="hf-model").set_value("/etc").run()
    next(button for button in session.button if button.label == "Create the task").click().run()
    (error,) = session.error
    assert "is not an absolute path below a folder" in error.value
    assert session.text_input(key="hf-model").value == "/etc"
    assert session.session_state["created"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"splits": {"select": {"file": "{root}/../outside.csv"}}}, "not an absolute path below"),
        ({"splits": {"select": {"file": "{root}/link.csv"}}}, "not an absolute path below"),
        ({"splits": {"select": {"file": "val.csv"}}}, "not an absolute path below a folder"),
        ({"splits": {"shift/a": {"file": "{root}/val.csv"}}}, "Name the file of the validation"),
        ({"task": "image-classification"}, "in a file, for --task"),
        ({"model": "/etc"}, "/etc is not an absolute path below a folder"),
        ({"model": ""}, "The model folder is not an absolute path"),
        ({"tokenizer": "/etc"}, "/etc is not an absolute path below a folder"),
        ({"model": "{root}/runs"}, "config.json does not exist"),
        ({"model": "{root}/links"}, "tokenizer.json is a link that leads out of the folders"),
    ],
)
def test_paths_outside_the_roots_are_refused(
    root: Path, change: dict[str, Any], words: str
) -> None:
    (root / "links").mkdir()
    (root / "links" / "config.json").write_text("{}")
    (root / "links" / "tokenizer.json").symlink_to(root.parent / "outside.csv")
    description = json.loads(json.dumps(described(root) | change).replace("{root}", str(root)))
    with pytest.raises(TaskError, match=words):
        tasks.create(description)
    assert not [*settings.current().described_in.glob("*.toml")]


def test_without_transformers_the_form_names_the_package(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "find_spec", lambda name: None)
    session = session_of(root)
    assert "pip install transformers" in session.info[0].value
    assert not session.button


def test_every_kind_of_the_library_is_on_the_form(root: Path) -> None:
    session = session_of(root)
    for name, kind in tasks.OFFERED.items():
        session.selectbox(key="hf-kind").select(name).run()
        assert not session.exception
        (metrics,) = session.multiselect
        assert metrics.options == [*kind.metrics]
        fields = [*session.text_input, *session.number_input]
        keys = {str(field.key).removeprefix("hf-").partition("-")[0] for field in fields}
        assert keys >= kind.settings.keys()


@pytest.mark.parametrize("text", ['quo"te', "back\\slash", "ümlaut", "tab\t", "line\nbreak", "🍲"])
def test_a_description_holds_any_text(tmp_path: Path, text: str) -> None:
    description: dict[str, Any] = {
        "task": "causal-lm",
        "name": text,
        "metrics": [text, "b"],
        "block": 8,
        "splits": {text: {"file": text, "role": "select"}},
    }
    write(tmp_path / "task.toml", description)
    assert tomllib.loads((tmp_path / "task.toml").read_text()) == description


def test_columns_are_those_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,text\n1,x\n2,y\n")
    (tmp_path / "a.tsv").write_text("1\tx\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"label": 1, "text": "x"}) + "\n")
    assert columns_of(tmp_path / "a.csv") == ["label", "text"]
    assert columns_of(tmp_path / "a.tsv", ["label", "text"]) == ["label", "text"]
    assert columns_of(tmp_path / "a.jsonl") == ["label", "text"]
