import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import pytest

import soupcore
from tests.helpers import raw_safetensors
from tests.hostile import archives, safetensors_lies
from tests.hostile import assembler as asm
from tests.hostile.corpus import CORPUS, HARMLESS, write_corpus
from tests.hostile.hostile_file import HostileFile
from tests.hostile.opener import After, Before, Outcome

pytestmark = pytest.mark.integration  # it takes long

PROJECT = Path(__file__).parents[2]
MOST_SECONDS = 10
MOST_MEMORY = 1 << 30


@dataclass(frozen=True)
class Watched:
    """The output of `tests.hostile.opener`."""

    before: Before
    outcomes: dict[str, Outcome]
    after: After


def run(module: str, *arguments: str | Path, workspace: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", f"tests.hostile.{module}", *map(str, arguments)],
        cwd=PROJECT,
        env=os.environ | {"STOCKPOT_WORKSPACE": str(workspace)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the whole corpus of hostile files and one honest file."""
    folder = tmp_path_factory.mktemp("hostile")
    write_corpus(folder)
    yield folder
    rmtree(folder)  # 330 MB


@pytest.fixture(scope="module")
def watched(hostile_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    output = run("opener", hostile_folder, workspace=tmp_path_factory.mktemp("workspace"))
    before, *outcomes, after = map(json.loads, output.splitlines())
    return Watched(
        Before(**before), {line["name"]: Outcome(**line) for line in outcomes}, After(**after)
    )


def write_honest_shards(path: Path) -> None:
    raw_safetensors(path.with_name("a.safetensors"), {"w": safetensors_lies.entry()}, asm.NUMBERS)
    path.write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("zip.pt", lambda path: asm.write_zip(path, asm.state())),
        ("forged.pt", lambda path: path.write_bytes(archives.honest())),
        ("large.pt", lambda path: path.write_bytes(archives.large())),
        ("streamed.pt", lambda path: path.write_bytes(archives.streamed())),
        ("module.pt", lambda path: asm.write_zip(path, asm.module({"w": asm.tensor()}))),
        ("legacy.pth", asm.write_legacy),
        (
            "a.safetensors",
            lambda path: raw_safetensors(path, safetensors_lies.text(), asm.NUMBERS),
        ),
        ("model.safetensors.index.json", write_honest_shards),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_honest_versions_of_hostile_files_can_be_read(
    tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    write(tmp_path / name)
    checkpoint = soupcore.open_checkpoint(tmp_path / name)
    checkpoint.scan()
    assert checkpoint.read("w").flatten().tolist() == list(range(16))


def test_corpus_is_large_and_names_are_unique() -> None:
    names = [Path(file.name).parts[0] for file in [*CORPUS, *HARMLESS]]
    assert len(CORPUS) >= 250
    assert len({Path(name).stem for name in names}) == len(names)


def test_armed_files_execute_code_when_they_are_unpickled(tmp_path: Path) -> None:
    armed = [file for file in CORPUS if file.executes]
    paths = [tmp_path / file.name for file in armed]
    for file, path in zip(armed, paths, strict=True):
        file.write(path)
    run("detonator", *paths, workspace=tmp_path)
    silent = [path.name for path in paths if not asm.canary_of(path).exists()]
    assert len(paths) >= 60
    assert silent == []


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_hostile_file_is_refused_quickly_with_its_name_and_the_reason(
    watched: Watched, hostile_folder: Path, file: HostileFile
) -> None:
    outcome = watched.outcomes[file.name]
    assert outcome.error == "CheckpointError"
    assert outcome.refusal is not None
    where = hostile_folder / file.name
    # The error names the shard and not its index.
    named = str(where if where.parent == hostile_folder else where.parent)
    assert outcome.refusal.startswith(named)
    sentence = outcome.refusal.removeprefix(named)
    assert re.search(file.reason, sentence)
    assert sentence.isprintable()
    assert len(sentence) < 500
    assert outcome.opened is file.opens
    assert outcome.seconds < MOST_SECONDS
    # The checks of the reader should refuse the file before its resource limits do.
    assert not re.search("it tried|unknown way|crashed|takes more than", outcome.refusal)


@pytest.mark.parametrize("file", HARMLESS, ids=lambda file: file.name)
def test_harmless_values_beside_honest_weights_are_ignored(
    watched: Watched, file: HostileFile
) -> None:
    outcome = watched.outcomes[file.name]
    assert (outcome.refusal, outcome.error) == (None, None)
    assert outcome.seconds < MOST_SECONDS


def test_hostile_files_execute_nothing(watched: Watched, hostile_folder: Path) -> None:
    canaries = [file.name for file in CORPUS if asm.canary_of(hostile_folder / file.name).exists()]
    assert canaries == []
    assert watched.after.seen == []


def test_memory_stays_within_bounds(watched: Watched) -> None:
    peak = max(outcome.peak for outcome in watched.outcomes.values())
    first = next(name for name, outcome in watched.outcomes.items() if outcome.peak == peak)
    assert peak - watched.before.peak < MOST_MEMORY, first


def test_sweep_of_hostile_files_reports_each_and_keeps_the_honest_one(
    watched: Watched, hostile_folder: Path
) -> None:
    problems = watched.after.problems
    silent = [
        file.name
        for file in CORPUS
        # A sweep ignores pipes, empty folders and dangling links.
        if (hostile_folder / file.name).is_file()
        and not re.search(file.reason, problems.get(Path(Path(file.name).parts[0]).stem, ""))
    ]
    assert silent == []
