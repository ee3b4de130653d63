"""Long work, as rows that outlive the processes that ask for it and do it."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Index,
    case,
    exists,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from soupcore.database import Base
from soupcore.leases import DatabaseTime, HolderRow, remove, remove_dead
from soupcore.processes import Process
from soupcore.store import Store

_ADVICE = "What was finished is kept; resume it to do only the rest."
_STOPPED = "The process that did it stopped."
_LONGEST = 10_000  # characters of a text that a task may have written


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DONE = "done"


UNFINISHED = (State.QUEUED, State.RUNNING, State.CANCELLING)
_CLAIMED = (State.RUNNING, State.CANCELLING)

# Kinds that someone waits for at the screen: they go before the others, and a worker that is at
# another one stops between two batches to do them.
INTERACTIVE = ("open", "mixture", "preview")

# Kinds that pages ask for by themselves, as they follow from evaluations that are known.
DERIVED = (
    "timed passes",
    "ensemble",
    "greedy ensemble",
    "two-model ensembles",
    "calibration",
    "best ingredient bias",
)

# And those that someone asked for by a click on what is drawn: they take longer than that, and go
# before all but these.
_CLICKED = ("line",)


def overtaking(kind: str) -> tuple[str, ...]:
    """Return the kinds that go before a kind, and between two batches of it."""
    if kind in INTERACTIVE + DERIVED:
        return ()
    return INTERACTIVE if kind in _CLICKED else INTERACTIVE + DERIVED + _CLICKED


class Job(Base):
    """One piece of long work.

    Attributes:
        id: Its number.
        kind: Which function does it (see `soupcore.jobs.kinds`).
        title: What people are told it is.
        request: The function's arguments.
        task: The task that it needs; only a worker of that task does it. None where it needs none.
        fingerprint: Equal jobs have the same one; only one of them is unfinished at a time.
        state: A `State`.
        done: Units of work finished, of `total`.
        partial: What is known before it ends.
        result: What it came to.
        error: Why it failed, in words to a user.
        worker: Which worker has or had it.
        attempt: How many times a worker took it. A worker that lost it and another that has it now
            are told apart by that.
        created, started, finished: When, in seconds since 1970.
        reported: When its worker last reported.
        stopping: When it was asked to stop.
        deadline: How many seconds it may take; None for as long as it takes.
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

    # Of equal jobs only one waits or runs; one that is being stopped may have a successor.
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
        """Whether it is queued or under way."""
        return self.state in UNFINISHED

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Estimate the time to the end at the pace so far; None before there is a pace."""
        if self.started is None or not 0 < self.done < self.total:
            return None
        elapsed = now - self.started
        return elapsed * (self.total - self.done) / self.done


class LostJobError(Exception):
    """A worker lost its job: its lease ran out, and the job was taken from it."""


@dataclass(frozen=True)
class Standing:
    """How an unfinished job stands, for those who look after the workers.

    Attributes:
        id, task, state, worker, attempt, started, stopping, reported, deadline: As of `Job`.
        now: The time of the look, by the clock of the database.
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
        """Whether it runs longer than it may."""
        return (
            self.state == State.RUNNING
            and self.deadline is not None
            and self.started is not None
            and self.now > self.started + self.deadline
        )

    @property
    def seconds_silent(self) -> float:
        """Seconds since it was asked to stop, or since it last reported after that."""
        return self.now - max(self.stopping or self.now, self.reported or 0.0)


class Queue:
    """The jobs of a store. Any number of processes may submit, watch, cancel and do them.

    A worker holds its jobs by a lease (see `soupcore.leases`). Whatever it writes of a job names
    the worker and the attempt, and is refused once the job was taken from it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        store.prepare()

    def submit(
        self,
        kind: str,
        title: str,
        request: Mapping[str, Any],
        *,
        deadline_s: float | None = None,
    ) -> int:
        """Add a job and return its id; the id of an equal one that is not finished, if any.

        Args:
            kind: Which function does it.
            title: What people are told it is.
            request: The function's arguments.
            deadline_s: How many seconds it may run before it is stopped.
        """
        job = Job(
            kind=kind,
            title=storable(title),
            request=dict(request),
            task=task_of(request),
            fingerprint=fingerprint(kind, request),
            state=State.QUEUED,
            created=time.time(),
            deadline=deadline_s,
        )
        while (known := self._unfinished_like(job.fingerprint)) is None:
            # Refused where another process has submitted the same just now.
            with suppress(IntegrityError), self.store.session() as session, session.begin():
                session.add(job)
                session.flush()
                return job.id
        return known

    def _unfinished_like(self, fingerprint: str) -> int | None:
        same = select(Job.id).where(
            Job.fingerprint == fingerprint, Job.state.in_((State.QUEUED, State.RUNNING))
        )
        with self.store.session() as session:
            return session.scalars(same).first()

    def get(self, job_id: int) -> Job | None:
        """Return a job by its id."""
        with self.store.session() as session:
            return session.get(Job, job_id)

    def recent(self, limit: int = 20) -> list[Job]:
        """Return the newest jobs, newest first."""
        with self.store.session() as session:
            return list(session.scalars(select(Job).order_by(Job.id.desc()).limit(limit)))

    def overview(self, limit: int = 6) -> list[Job]:
        """Return the jobs that matter, newest first: all that are under way, and some that ended.

        Those that pages ask for by themselves matter when they fail.

        Of the ended, half of the places are for long ones that can be resumed: what is looked at
        meanwhile, a job for each move of a slider, would drive them out of sight.

        Args:
            limit: How many ended ones at most.
        """
        matters = Job.kind.not_in(DERIVED) | (Job.state == State.FAILED)
        ended = select(Job).where(Job.state.not_in(UNFINISHED), matters).order_by(Job.id.desc())
        stopped = Job.state.in_((State.FAILED, State.CANCELLED))
        resumable = ended.where(stopped, Job.kind.not_in(INTERACTIVE)).limit(limit // 2)
        with self.store.session() as session:
            found = {job.id: job for job in session.scalars(resumable)}
            for job in session.scalars(ended.limit(limit)):
                if len(found) < limit:
                    found[job.id] = job
        found |= {job.id: job for job in self.unfinished()}
        return [found[job_id] for job_id in sorted(found, reverse=True)]

    def unfinished(self, kind: str | None = None) -> list[Job]:
        """Return the jobs that are queued or under way, oldest first."""
        query = select(Job).where(Job.state.in_(UNFINISHED)).order_by(Job.id)
        if kind is not None:
            query = query.where(Job.kind == kind)
        with self.store.session() as session:
            return list(session.scalars(query))

    def done(self, kind: str) -> list[Job]:
        """Return the jobs of a kind that came to a result, newest first."""
        query = select(Job).where(Job.kind == kind, Job.state == State.DONE)
        with self.store.session() as session:
            return list(session.scalars(query.order_by(Job.id.desc())))

    def standing(self) -> list[Standing]:
        """Return how the unfinished jobs stand, oldest first."""
        columns = [getattr(Job, field.name) for field in fields(Standing) if field.name != "now"]
        query = select(*columns, DatabaseTime()).where(Job.state.in_(UNFINISHED)).order_by(Job.id)
        with self.store.session() as session:
            return [Standing(*list[Any](row)) for row in session.execute(query)]

    def claim(
        self,
        worker: str,
        kinds: Collection[str] | None = None,
        *,
        task: str | None = None,
        accepts: Callable[[Mapping[str, Any]], bool] = lambda request: True,
    ) -> Job | None:
        """Take a queued job for a worker; no two workers get the same one.

        Args:
            worker: Its name, which has to hold a lease.
            kinds: Only jobs of these kinds; any unless given.
            task: The task of the worker; it takes the jobs of this task only. Without one it takes
                those that need none.
            accepts: Whether the worker can do a request. Other jobs are left to other workers.

        Returns:
            The oldest of those that someone waits for at the screen, else the oldest that was
            clicked for, else the oldest of all.
        """
        waiting = select(Job.id, Job.request).where(Job.state == State.QUEUED)
        waiting = waiting.where(Job.task.is_(None) if task is None else Job.task == storable(task))
        if kinds is not None:
            waiting = waiting.where(Job.kind.in_(kinds))
        at_the_screen = Job.kind.in_(INTERACTIVE + DERIVED)
        urgent_first = case((at_the_screen, 0), (Job.kind.in_(_CLICKED), 1), else_=2)
        with self.store.session() as session:
            candidates = session.execute(waiting.order_by(urgent_first, Job.id)).all()
        for job_id, request in candidates:
            if accepts(request) and (job := self._take(job_id, worker)) is not None:
                return job
        return None

    def _take(self, job_id: int, worker: str) -> Job | None:
        """Take a job for a worker, unless another one was quicker or the worker has no lease."""
        take = (
            update(Job)
            .where(
                Job.id == job_id,
                Job.state == State.QUEUED,
                exists().where(HolderRow.name == worker),
            )
            .values(
                state=State.RUNNING,
                worker=worker,
                attempt=Job.attempt + 1,
                started=DatabaseTime(),
                reported=None,
            )
            .returning(Job)
            .execution_options(synchronize_session=False)
        )
        with self.store.session() as session, session.begin():
            return session.scalars(take).first()

    def report(self, job: Job, done: int, total: int, partial: Mapping[str, Any] | None) -> State:
        """Write how far a job is and return its state, which says whether to stop.

        Raises:
            LostJobError: It is not this worker's any more.
        """
        known = dict(partial) if partial is not None else None
        state = self._write(job, done=done, total=total, partial=known, reported=DatabaseTime())
        if state is None:
            raise LostJobError
        return State(state)

    def finish(
        self,
        job: Job | Standing,
        state: State,
        *,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> bool:
        """Write how a job ended; False where it is not this worker's any more."""
        written: dict[str, Any] = {"state": state, "finished": DatabaseTime()}
        if result is not None:
            written["result"] = dict(result)
        if error is not None:
            written["error"] = storable(error)
        if state is State.DONE:
            whole = case((Job.total > 1, Job.total), else_=1)
            written |= {"done": whole, "total": whole, "error": None}
        return self._write(job, **written) is not None

    def give_back(self, job: Job | Standing) -> None:
        """Queue a job again that its worker cannot do, through no fault of the job."""
        cancelled = job.state == State.CANCELLING
        state = State.CANCELLED if cancelled else State.QUEUED
        self._write(job, state=state, started=None, done=0)

    def _write(self, job: Job | Standing, **values: Any) -> str | None:
        """Write to a job and return its state, None if it was taken from its worker."""
        mine = (
            update(Job)
            .where(
                Job.id == job.id,
                Job.worker == job.worker,
                Job.attempt == job.attempt,
                Job.state.in_(_CLAIMED),
            )
            .values(values)
            .returning(Job.state)
            .execution_options(synchronize_session=False)
        )
        with self.store.session() as session, session.begin():
            return session.scalars(mine).first()

    def cancel(self, job_id: int) -> None:
        """Ask for a job to stop: at once where it waits, within a batch where it runs.

        One that does not stop when asked to is ended by a `Supervisor`.
        """
        self._stop(Job.id == job_id)

    def stop_overdue(self, job: Standing) -> None:
        """Ask a job to stop that runs longer than it may."""
        words = f"It was stopped at its deadline, after {job.deadline:g} seconds. {_ADVICE}"
        self._stop(Job.id == job.id, Job.attempt == job.attempt, error=words)

    def _stop(self, *which: ColumnElement[bool], **values: Any) -> None:
        stopping = {"state": State.CANCELLING, "stopping": DatabaseTime()}
        with self.store.session() as session, session.begin():
            for before, after in (
                (State.QUEUED, {"state": State.CANCELLED}),
                (State.RUNNING, stopping),
            ):
                session.execute(
                    update(Job)
                    .where(*which, Job.state == before)
                    .values(after | values)
                    .execution_options(synchronize_session=False)
                )

    def resume(self, job_id: int) -> int:
        """Queue a failed or cancelled job again; what it finished before is not done twice.

        Returns:
            Its id; that of an equal one that is not finished, if any.
        """
        again = (
            update(Job)
            .where(Job.id == job_id, Job.state.in_((State.FAILED, State.CANCELLED)))
            .values(
                state=State.QUEUED, error=None, done=0, started=None, finished=None, stopping=None
            )
            .execution_options(synchronize_session=False)
        )
        try:
            with self.store.session() as session, session.begin():
                session.execute(again)
        except IntegrityError:  # someone asked for an equal one meanwhile
            job = self.get(job_id)
            known = self._unfinished_like(job.fingerprint) if job else None
            return job_id if known is None else known
        return job_id

    def abandon(self, worker: str, why: str = _STOPPED) -> bool:
        """End the jobs of a worker that has ended.

        The last that it took is the one that ended it, and fails; those that it had put aside for
        that one are queued again. Jobs that were asked to stop are cancelled.

        Args:
            worker: Its name.
            why: Why it ended, as sentences.

        Returns:
            Whether it held a lease until now.
        """
        held = remove(self.store.engine, worker)
        jobs = [job for job in self.standing() if job.worker == worker and job.state in _CLAIMED]
        jobs.sort(key=lambda job: (job.started or 0.0, job.id))
        for job in jobs:
            if job.state == State.CANCELLING:
                self.finish(job, State.CANCELLED)
            elif job is jobs[-1]:
                self.finish(job, State.FAILED, error=f"{why} {_ADVICE}")
            else:
                self.give_back(job)
        return held

    def fail_waiting(self, task: str | None, why: str) -> None:
        """Fail the jobs that wait for a worker of a task, which cannot be started."""
        these = Job.task.is_(None) if task is None else Job.task == storable(task)
        with self.store.session() as session, session.begin():
            session.execute(
                update(Job)
                .where(Job.state == State.QUEUED, these)
                .values(state=State.FAILED, error=storable(why), finished=DatabaseTime())
                .execution_options(synchronize_session=False)
            )

    def process_of(self, worker: str) -> Process | None:
        """Return the process of a worker that holds a lease."""
        with self.store.session() as session:
            row = session.get(HolderRow, worker)
        return row.process if row else None

    def fail_abandoned(self, *, by_lease: bool = True, own: Collection[str] = frozenset()) -> None:
        """Look for workers of any server that have ended, and end their jobs; see `abandon`.

        Args:
            by_lease: As for `soupcore.leases.remove_dead`.
            own: The same; their jobs are left to the caller.
        """
        remove_dead(self.store.engine, by_lease=by_lease, own=own)
        here = select(HolderRow.name)
        gone = select(Job.worker).where(Job.state.in_(_CLAIMED), Job.worker.not_in(here)).distinct()
        with self.store.session() as session:
            workers = list(session.scalars(gone))
        for worker in workers:
            if worker is not None and worker not in own:
                self.abandon(worker)


def task_of(request: Mapping[str, Any]) -> str | None:
    """Return the task that a request needs, as it is written in the database."""
    task = request.get("task")
    return None if task is None else storable(str(task))


def fingerprint(kind: str, request: Mapping[str, Any]) -> str:
    """Return what equal jobs have in common."""
    return hashlib.sha256(json.dumps([kind, request], sort_keys=True).encode()).hexdigest()


def storable(words: str) -> str:
    """Return a text as a database takes it, which may hold anything, such as half a character."""
    whole = words.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]} …"
