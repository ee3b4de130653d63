"""The description of a hostile file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostileFile:
    """A file that must be refused.

    Attributes:
        name: Its name, with its folder if it needs other files.
        tries: A description of the attack, as a predicate.
        reason: A regular expression that the refusal has to match.
        write: Writes the file at a path, and other files that it needs.
        executes: Whether `torch.load(weights_only=False)` runs its code, which creates the canary
            (`assembler.canary_of`).
        opens: Whether the bytes of the weights are wrong, which is only detected when they are
            read.
    """

    name: str
    tries: str
    reason: str
    write: Callable[[Path], None]
    executes: bool = False
    opens: bool = False
