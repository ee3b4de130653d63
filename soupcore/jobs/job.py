"""A job: its row in the database, its states, and the priority of its kind."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from soupcore.store.tables import Base

_LONGEST = 10_000  # characters of a text, which may come from a task


class State(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DONE = "done"


UNFINISHED = (State.QUEUED, State.RUNNING, State.CANCELLING)
CLAIMED = (State.RUNNING, State.CANCELLING)

# Kinds with a user waiting for the result. They have the highest priority, and a worker interrupts
# jobs of other kinds between two batches to run them.
INTERACTIVE = ("open", "mixture", "preview")

# Kinds that pages submit automatically, because they only need stored evaluations.
DERIVED = (
    "timed passes",
    "ensemble",
    "greedy ensemble",
    "two-model ensembles",
    "calibration",
    "best ingredient bias",
    "breakdown",
    "intervals",
    "shown examples",
)

# Kinds that a user submits by a click on a figure. They take longer, and have the next priority.
CLICKED = ("line",)


def overtaking(kind: str) -> tuple[str, ...]:
    """Return the kinds with a higher priority, which interrupt jobs of this kind."""
    if kind in INTERACTIVE + DERIVED:
        return ()
    return INTERACTIVE if kind in CLICKED else INTERACTIVE + DERIVED + CLICKED


class Job(Base):
    """A job.

    Attributes:
        id: Number of the job.
        kind: Name of the function that runs it (see `soupcore.jobs.kinds`).
        title: Display name.
        request: Arguments of the function.
        task: The task that it needs, whose workers run it; None if it needs none.
        fingerprint: Digest of kind and request. Only one of equal jobs is unfinished at a time.
        state: A `State`.
        done: Units of work done, of `total`.
        partial: Intermediate result.
        result: Final result.
        error: Reason for the failure, as sentences for the user.
        worker: Name of the worker that runs or ran it.
        attempt: Number of times a worker took it. Distinguishes the current worker from one that
            has lost the job.
        created, started, finished: Times in seconds since 1970.
        reported: Time of the worker's last report.
        stopping: Time of the request to stop.
        deadline: Maximum duration in seconds; None for no limit.
        dismissed: Time at which a user hid the failed job from the list.
    """

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    task: Mapped[str | None]
    fingerprint: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    done: Mapped[int] = mapped_column(BigInteger, default=0)
    total: Mapped[int] = mapped_column(BigInteger, default=0)
    partial: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error: Mapped[str | None]
    worker: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0)
    created: Mapped[float]
    started: Mapped[float | None]
    finished: Mapped[float | None]
    reported: Mapped[float | None]
    stopping: Mapped[float | None]
    deadline: Mapped[float | None]
    dismissed: Mapped[float | None]

    # Only one of equal jobs waits or runs, but a job that is being cancelled may have a successor.
    __table_args__ = (
        Index(
            "jobs_once",
            "fingerprint",
            unique=True,
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
    )

    @property
    def is_unfinished(self) -> bool:
        """Whether it is queued, running or being cancelled."""
        return self.state in UNFINISHED

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Estimate the remaining seconds at the average speed so far; None before any progress."""
        if self.started is None or not 0 < self.done < self.total:
            return None
        elapsed = now - self.started
        return elapsed * (self.total - self.done) / self.done


@dataclass(frozen=True)
class Standing:
    """The status of an unfinished job, for supervisors.

    Attributes:
        id, task, state, worker, attempt, started, stopping, reported, deadline: As for `Job`.
        now: Time of the query, by the clock of the database.
    """

    id: int
    task: str | None
    state: str
    worker: str | None
    attempt: int
    started: float | None
    stopping: float | None
    reported: float | None
    deadline: float | None
    now: float

    @property
    def is_overdue(self) -> bool:
        """Whether it has run longer than its deadline allows."""
        return (
            self.state == State.RUNNING
            and self.deadline is not None
            and self.started is not None
            and self.now > self.started + self.deadline
        )

    @property
    def seconds_silent(self) -> float:
        """Seconds since the request to stop, or since a later report."""
        return self.now - max(self.stopping or self.now, self.reported or 0.0)


def task_of(request: Mapping[str, Any]) -> str | None:
    """Return the task that a request needs, in the form in the database."""
    task = request.get("task")
    return None if task is None else storable(str(task))


def fingerprint(kind: str, request: Mapping[str, Any]) -> str:
    """Return a digest that is equal for equal jobs."""
    return hashlib.sha256(json.dumps([kind, request], sort_keys=True).encode()).hexdigest()


def storable(words: str) -> str:
    """Return a text for the database: shortened, with NUL and lone surrogates escaped."""
    escaped = words.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return escaped if len(escaped) <= _LONGEST else f"{escaped[:_LONGEST]} …"
