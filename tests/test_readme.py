"""The Python code in the README runs."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from soupcore import cli
from tests.helpers import same_weights

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.S | re.M)
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", README, re.S | re.M)


def test_every_python_block_runs(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(BLOCKS) >= 4
    (tmp_path / "sample_data").symlink_to(PROJECT / "sample_data")
    monkeypatch.chdir(tmp_path)  # the blocks write files
    namespace: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, namespace)  # noqa: S102 - our own README
    for name in ("soup.safetensors", "path.html", "barriers.html"):
        assert (tmp_path / name).stat().st_size > 0
    printed = repr(namespace["soup"].evaluations["select"])
    assert f"  # {printed}\n" in "".join(BLOCKS)
    weights = namespace["model"].state_dict()
    assert same_weights(weights, namespace["soup"].state_dict())


def test_every_command_runs(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sample_data").symlink_to(PROJECT / "sample_data")
    monkeypatch.chdir(tmp_path)
    lines = "".join(COMMANDS).replace("\\\n", "").splitlines()
    assert len(lines) >= 3
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "stockpot"
        assert cli.main(arguments) == 0
    assert (tmp_path / "wise_ft.safetensors").stat().st_size > 0
