"""The corpus of hostile files: code execution, bombs, invalid structures and placeholders.

python -m tests.hostile.corpus FOLDER   write all files (careful: loading them executes code)
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.hostile import (
    archives,
    bombs,
    execution,
    placeholders,
    places,
    safetensors_lies,
    tensors,
)
from tests.hostile.hostile_file import HostileFile

CORPUS: list[HostileFile] = [
    *execution.FILES,
    *places.FILES,
    *bombs.FILES,
    *archives.FILES,
    *tensors.FILES,
    *safetensors_lies.FILES,
    *placeholders.FILES,
]

HARMLESS: list[HostileFile] = [*bombs.HARMLESS, *execution.HARMLESS]


def write_corpus(folder: Path, files: Sequence[HostileFile] = (*CORPUS, *HARMLESS)) -> None:
    """Write all or some of the files, and a valid file `honest.pt`."""
    for file in files:
        file.write(folder / file.name)
    (folder / "honest.pt").write_bytes(archives.honest())


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(folder)
    print(f"{len(CORPUS)} hostile files in {folder}")


if __name__ == "__main__":
    main()
