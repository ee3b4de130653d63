"""Loads files with `torch.load`, which executes their code, to prove that the corpus is effective.

python -m tests.hostile.detonator FILE…   only in a disposable process
"""

import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import torch


def main() -> None:
    warnings.simplefilter("ignore")
    for path in map(Path, sys.argv[1:]):
        with suppress(Exception, SystemExit):  # most raise an error after their code has run
            torch.load(path, weights_only=False)
    with suppress(ChildProcessError):
        while True:  # some files start processes and do not wait for them
            os.wait()


if __name__ == "__main__":
    main()
