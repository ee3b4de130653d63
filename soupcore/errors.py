"""What can go wrong, in words a user can act on."""

from pathlib import Path


class StockpotError(Exception):
    """A problem with what was given. The message names it and the way out."""


class CheckpointError(StockpotError):
    """A checkpoint cannot be read, or does not fit where it is used.

    Attributes:
        problem: What is the matter, as a sentence.
        way_out: What to do about it, as a sentence; empty where `problem` says it too.
    """

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem} {way_out}".rstrip())
        self.problem = problem
        self.way_out = way_out


class StoreError(StockpotError):
    """A workspace, or its database, cannot be used."""


class ReadOnlyError(StoreError):
    """Something was to be written to a workspace that can only be read."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} cannot be written, so what is stored can be looked at, but nothing new can be "
            "computed. Make it writable, or set STOCKPOT_WORKSPACE to another folder."
        )


class FullDiskError(StoreError):
    """A disk is full."""


class SweepError(StockpotError):
    """A folder holds no usable sweep, or a name is not in it."""


class TaskError(StockpotError):
    """A task cannot be loaded, or does not have what is asked of it."""


class RecipeError(StockpotError):
    """A recipe cannot be followed with what it was given."""


class ConnectivityError(StockpotError):
    """The points given span no line or plane."""


class Cancelled(Exception):  # noqa: N818 - an outcome, as asyncio's CancelledError is, no fault
    """Raised by a progress callback to stop the work that calls it."""
