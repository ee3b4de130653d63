"""What every table of the corpus is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostileFile:
    """A file that must be refused.

    Attributes:
        name: Its name, with its folder where it comes with other files.
        tries: What it attempts, in words.
        reason: A regular expression that the refusal matches.
        write: Writes it, and what it needs beside it, given its path.
        executes: Whether `torch.load(weights_only=False)` runs code of it, which then makes the
            canary (`assembler.canary_of`).
        opens: Whether the lie is in the bytes of the weights, so that it shows only when they are
            read.
    """

    name: str
    tries: str
    reason: str
    write: Callable[[Path], None]
    executes: bool = False
    opens: bool = False
