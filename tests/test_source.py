"""Rules that hold for every line of the program."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
SOURCES = [
    *(PROJECT / "soupcore").rglob("*.py"),
    *(PROJECT / "pages").rglob("*.py"),
    PROJECT / "app.py",
]


@pytest.mark.parametrize(
    "pattern",
    [
        r"weights_only\s*=\s*False",
        r"\bpickle\.loads?\(",
        r"\bUnpickler\(",
        r"\btorch\.load\(",
        r"\b(joblib|numpy|np)\.load\(",
        r"^\s*(import|from) (pickle|_pickle|dill|cloudpickle|marshal|shelve)\b",
    ],
)
def test_no_source_file_can_execute_a_checkpoint(pattern: str) -> None:
    lines = [
        f"{path.relative_to(PROJECT)}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text().splitlines()
        if re.search(pattern, line)
    ]
    assert len(SOURCES) > 50
    assert lines == []
