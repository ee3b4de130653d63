"""Long work, as rows that outlive the processes that ask for it and do it."""

import fcntl
import json
import os
import time
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, case, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from soupcore.store import Store

_ADVICE = "What was finished is kept; resume it to do only the rest."


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

# And those that someone asked for by a click on what is drawn: they take longer than that, and go
# before all but these.
_CLICKED = ("line",)


def overtaking(kind: str) -> tuple[str, ...]:
    """Return the kinds that go before a kind, and between two batches of it."""
    if kind in INTERACTIVE:
        return ()
    return INTERACTIVE if kind in _CLICKED else INTERACTIVE + _CLICKED


class _Base(DeclarativeBase):
    pass


class Job(_Base):
    """One piece of long work.

    Attributes:
        id: Its number.
        kind: Which function does it (see `soupcore.jobs.kinds`).
        title: What people are told it is.
        request: The function's arguments.
        state: A `State`.
        done: Units of work finished, of `total`.
        partial: What is known before it ends.
        result: What it came to.
        error: Why it failed, in words to a user.
        worker: Which worker has or had it.
        created, started, finished: When, in seconds since 1970.
    """

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    fingerprint: Mapped[str] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(index=True)
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    partial: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error: Mapped[str | None]
    worker: Mapped[str | None]
    created: Mapped[float]
    started: Mapped[float | None]
    finished: Mapped[float | None]

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


class Queue:
    """The jobs of a store. Any number of processes may submit, watch, cancel and do them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        (store.folder / "workers").mkdir(exist_ok=True)
        store.create_tables(_Base.metadata)

    def submit(self, kind: str, title: str, request: Mapping[str, Any]) -> int:
        """Add a job and return its id; the id of an equal one that is not finished, if any."""
        fingerprint = json.dumps([kind, request], sort_keys=True)
        with self.store.session() as session, session.begin():
            same = select(Job.id).where(
                Job.fingerprint == fingerprint, Job.state.in_((State.QUEUED, State.RUNNING))
            )
            if (known := session.scalars(same).first()) is not None:
                return known
            job = Job(
                kind=kind,
                title=title,
                request=dict(request),
                fingerprint=fingerprint,
                state=State.QUEUED,
                created=time.time(),
            )
            session.add(job)
            session.flush()
            return job.id

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

        Of the ended, half of the places are for long ones that can be resumed: what is looked at
        meanwhile, a job for each move of a slider, would drive them out of sight.

        Args:
            limit: How many ended ones at most.
        """
        ended = select(Job).where(Job.state.not_in(UNFINISHED)).order_by(Job.id.desc())
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

    def claim(self, worker: str, kinds: Collection[str] | None = None) -> Job | None:
        """Take a queued job for a worker; no two workers get the same one.

        Args:
            worker: Its name.
            kinds: Only jobs of these kinds; any unless given.

        Returns:
            The oldest of those that someone waits for at the screen, else the oldest that was
            clicked for, else the oldest of all.
        """
        waiting = select(Job.id).where(Job.state == State.QUEUED)
        if kinds is not None:
            waiting = waiting.where(Job.kind.in_(kinds))
        urgent_first = case((Job.kind.in_(INTERACTIVE), 0), (Job.kind.in_(_CLICKED), 1), else_=2)
        next_one = waiting.order_by(urgent_first, Job.id).limit(1).scalar_subquery()
        take = (
            update(Job)
            .where(Job.id == next_one, Job.state == State.QUEUED)
            .values(state=State.RUNNING, worker=worker, started=time.time())
            .returning(Job)
            .execution_options(synchronize_session=False)
        )
        with self.store.session() as session, session.begin():
            return session.scalars(take).first()

    def report(
        self, job_id: int, done: int, total: int, partial: Mapping[str, Any] | None
    ) -> State:
        """Write how far a job is and return its state, which says whether to stop."""
        with self.store.session() as session, session.begin():
            job = session.get_one(Job, job_id)
            job.done, job.total = done, total
            job.partial = dict(partial) if partial is not None else None
            return State(job.state)

    def finish(
        self,
        job_id: int,
        state: State,
        *,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Write how a job ended."""
        with self.store.session() as session, session.begin():
            job = session.get_one(Job, job_id)
            job.state = state
            job.result = dict(result) if result is not None else None
            job.error = error
            job.finished = time.time()
            if state is State.DONE:
                job.done = job.total = max(job.total, 1)

    def cancel(self, job_id: int) -> None:
        """Ask for a job to stop: at once where it waits, within a batch where it runs."""
        with self.store.session() as session, session.begin():
            for before, after in (
                (State.QUEUED, State.CANCELLED),
                (State.RUNNING, State.CANCELLING),
            ):
                session.execute(
                    update(Job).where(Job.id == job_id, Job.state == before).values(state=after)
                )

    def resume(self, job_id: int) -> None:
        """Queue a failed or cancelled job again; what it finished before is not done twice."""
        with self.store.session() as session, session.begin():
            session.execute(
                update(Job)
                .where(Job.id == job_id, Job.state.in_((State.FAILED, State.CANCELLED)))
                .values(state=State.QUEUED, error=None, done=0, started=None, finished=None)
            )

    def fail_abandoned(self) -> None:
        """Mark the jobs whose worker is gone as failed, or as cancelled where that was asked."""
        with self.store.session() as session, session.begin():
            claimed = select(Job).where(Job.state.in_(_CLAIMED))
            for job in session.scalars(claimed):
                if job.worker is not None and self._is_alive(job.worker):
                    continue
                cancelled = job.state == State.CANCELLING
                job.state = State.CANCELLED if cancelled else State.FAILED
                job.error = None if cancelled else f"The process that did it stopped. {_ADVICE}"
                job.finished = time.time()

    def worker_lock(self, worker: str) -> int:
        """Take the lock that says a worker is alive; it goes with the process, however it ends."""
        descriptor = os.open(self._lock_path(worker), os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def _is_alive(self, worker: str) -> bool:
        try:
            descriptor = os.open(self._lock_path(worker), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _lock_path(self, worker: str) -> Path:
        return self.store.folder / "workers" / f"{worker}.lock"
