"""Fuzzes both readers for a bounded time; what breaks them is kept in .fuzz.

python -m tests.fuzz [--seconds 60] [TARGET …]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.hostile.corpus import write_corpus
from tests.toy import build_model

PROJECT = Path(__file__).parents[2]
FOUND = PROJECT / ".fuzz"
TARGETS = ("safetensors", "torch", "pickle", "programs")
LONGEST = 1 << 14  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("targets", nargs="*", default=TARGETS, help=", ".join(TARGETS))
    arguments = parser.parse_args()
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        corpus = Path(temporary) / "corpus"
        corpus.mkdir()
        write_corpus(corpus)
        save_real_files(corpus)
        broken = [
            target
            for target in arguments.targets
            if not fuzz(target, arguments.seconds, Path(temporary), corpus)
        ]
    if broken:
        sys.exit(f"Something is wrong with {', '.join(broken)}; what shows it is in {FOUND}.")


def fuzz(target: str, seconds: int, temporary: Path, corpus: Path) -> bool:
    """Run one target; whether nothing was found."""
    print(f"\n{target}, {seconds} s", flush=True)
    folder = temporary / target
    folder.mkdir()
    for number, seed in enumerate(seeds(target, corpus)):
        if len(seed) <= LONGEST:
            (folder / str(number)).write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": 10,
        "artifact_prefix": f"{FOUND}/{target}-",
    }
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.run", target, str(folder)),
            *(f"-{name}={value}" for name, value in options.items()),
        ],
        cwd=PROJECT,
        env=os.environ | {"STOCKPOT_WORKSPACE": str(temporary / "workspace")},
        check=False,
    )
    return finished.returncode == 0


def save_real_files(folder: Path) -> None:
    model = build_model()
    torch.save(model, folder / "real-module.pt")
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, folder / "real-container.pt")
    torch.save(model, folder / "real-legacy.pth", _use_new_zipfile_serialization=False)


def seeds(target: str, corpus: Path) -> Iterator[bytes]:
    """The files of the corpus that a target could begin with."""
    for path in sorted(corpus.iterdir()):
        if not path.is_file() or path.stat().st_size > 4 * LONGEST:
            continue
        is_torch = path.suffix in (".pt", ".pth")
        if target == "pickle" and is_torch:
            yield from pickles(path)
        if (target == "torch" and is_torch) or path.suffix == f".{target}":
            yield path.read_bytes()
    yield bytes(LONGEST // 8)


def pickles(path: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist() if "data.pkl" in name)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError):
        return  # one of those that lie about being a zip


if __name__ == "__main__":
    main()
