"""Loads files the way that executes what is in them: to prove that the corpus is alive.

python -m tests.hostile.detonator FILE…   in a throw-away process only

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
        with suppress(Exception, SystemExit):  # most stop with an error once their code has run
            torch.load(path, weights_only=False)
    with suppress(ChildProcessError):
        while True:  # some of them started processes that are not waited for
            os.wait()


if __name__ == "__main__":
    main()
