"""Exceptions. Their messages state the problem, its place, and the solution."""

from pathlib import Path


class StockpotError(Exception):
    """Base class of the errors that users can fix."""


class CheckpointError(StockpotError):
    """A checkpoint cannot be read, or does not fit the network or the other checkpoints.

    Attributes:
        problem: The problem, as a sentence.
        way_out: The solution, as a sentence; empty where `problem` includes it.
    """

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem} {way_out}".rstrip())
        self.problem = problem
        self.way_out = way_out


class StoreError(StockpotError):
    """A workspace, or its database, cannot be used."""


class ReadOnlyError(StoreError):
    """A read-only workspace cannot be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is read-only: stored results can be viewed, but nothing new can be computed. "
            "Make it writable, or set STOCKPOT_WORKSPACE to another folder."
        )


class FullDiskError(StoreError):
    """A disk is full."""


class SweepError(StockpotError):
    """A folder holds no usable sweep, or the sweep has no ingredient of a given name."""


class TaskError(StockpotError):
    """A task cannot be loaded, or lacks a required split, metric or function."""


class RecipeError(StockpotError):
    """A recipe cannot run with the given ingredients or parameters."""


class ConnectivityError(StockpotError):
    """The given points do not span a line or plane."""


class RemoteError(StockpotError):
    """A remote checkpoint cannot be found, read or verified. Messages contain no credentials."""


class Cancelled(Exception):  # noqa: N818 - not an error, but an outcome
    """Raised by a progress callback to stop the work that calls it."""
