"""The queue of jobs, stored in the database so that it survives servers and workers."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, select, update
from sqlalchemy.exc import IntegrityError

from soupcore.jobs.job import (
    CLAIMED,
    CLICKED,
    DERIVED,
    INTERACTIVE,
    UNFINISHED,
    Job,
    Standing,
    State,
    fingerprint,
    storable,
    task_of,
)
from soupcore.processes import Process
from soupcore.store import Store
from soupcore.store.leases import DatabaseTime, HolderRow, remove, remove_dead

#: The end of messages about jobs that ended early.
ADVICE = "Finished evaluations are stored; resume the job to compute the rest."
_STOPPED = "The worker process of this job ended."


@dataclass(frozen=True)
class Counts:
    """Numbers of jobs: running (or being cancelled), queued, and failed but not dismissed."""

    running: int
    queued: int
    failed: int

    @property
    def active(self) -> int:
        """Number of unfinished jobs."""
        return self.running + self.queued


class LostJobError(Exception):
    """A worker has lost its job, because its lease expired."""


class Queue:
    """The jobs of a store. Any number of processes may submit, watch, cancel and run them.

    A worker holds its jobs by a lease (see `soupcore.store.leases`). Each of its updates of a job
    names the worker and the attempt, and has no effect once the worker has lost the job.
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
        """Add a job and return its id, or return the id of an equal unfinished job.

        Args:
            kind: Name of the function that runs it.
            title: Display name.
            request: Arguments of the function.
            deadline_s: Maximum duration in seconds, after which it is stopped.
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
            # Fails if another process has just submitted an equal job.
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
        """Return all unfinished jobs and some finished ones, newest first.

        Finished jobs that pages submit automatically are included only if they failed. Up to half
        of the finished jobs are long ones that can be resumed: otherwise interactive jobs, one for
        each move of a slider, would displace them.

        Args:
            limit: Maximum number of finished jobs.
        """
        is_shown = Job.kind.not_in(DERIVED) | (Job.state == State.FAILED)
        is_listed = is_shown & Job.dismissed.is_(None)
        ended = select(Job).where(Job.state.not_in(UNFINISHED), is_listed).order_by(Job.id.desc())
        stopped = Job.state.in_((State.FAILED, State.CANCELLED))
        resumable = ended.where(stopped, Job.kind.not_in(INTERACTIVE)).limit(limit // 2)
        with self.store.session() as session:
            jobs = {job.id: job for job in session.scalars(resumable)}
            for job in session.scalars(ended.limit(limit)):
                if len(jobs) < limit:
                    jobs[job.id] = job
        jobs |= {job.id: job for job in self.unfinished()}
        return [jobs[job_id] for job_id in sorted(jobs, reverse=True)]

    def unfinished(self, kind: str | None = None) -> list[Job]:
        """Return the unfinished jobs, oldest first."""
        query = select(Job).where(Job.state.in_(UNFINISHED)).order_by(Job.id)
        if kind is not None:
            query = query.where(Job.kind == kind)
        with self.store.session() as session:
            return list(session.scalars(query))

    def latest(self, kind: str, request: Mapping[str, Any]) -> Job | None:
        """Return the newest job of a kind and a request, whatever its state, or None."""
        query = select(Job).where(Job.fingerprint == fingerprint(kind, request))
        with self.store.session() as session:
            return session.scalars(query.order_by(Job.id.desc()).limit(1)).first()

    def counts(self) -> Counts:
        """Return the numbers of unfinished jobs, and of failed ones that were not dismissed."""
        query = (
            select(Job.state, func.count())
            .where(Job.state.in_((*UNFINISHED, State.FAILED)), Job.dismissed.is_(None))
            .group_by(Job.state)
        )
        with self.store.session() as session:
            found = {row[0]: row[1] for row in session.execute(query)}
        running = found.get(State.RUNNING, 0) + found.get(State.CANCELLING, 0)
        return Counts(running, found.get(State.QUEUED, 0), found.get(State.FAILED, 0))

    def dismiss(self, job_id: int) -> None:
        """Hide a failed or cancelled job from the list. It can still be found by its id."""
        hide = (
            update(Job)
            .where(Job.id == job_id, Job.state.in_((State.FAILED, State.CANCELLED)))
            .values(dismissed=DatabaseTime())
            .execution_options(synchronize_session=False)
        )
        with self.store.session() as session, session.begin():
            session.execute(hide)

    def done(self, kind: str) -> list[Job]:
        """Return the successful jobs of a kind, newest first."""
        query = select(Job).where(Job.kind == kind, Job.state == State.DONE)
        with self.store.session() as session:
            return list(session.scalars(query.order_by(Job.id.desc())))

    def standing(self) -> list[Standing]:
        """Return the status of the unfinished jobs, oldest first."""
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
        """Take a queued job for a worker. No two workers get the same job.

        Args:
            worker: Name of the worker, which must hold a lease.
            kinds: Kinds of jobs to take; by default, all.
            task: The task of the worker, whose jobs it takes. None for jobs that need no task.
            accepts: Returns whether the worker can run a request. Other jobs stay queued.

        Returns:
            The oldest job of the highest priority: interactive and derived jobs, then clicked ones,
            then all others. None if there is no such job.
        """
        waiting = select(Job.id, Job.request).where(Job.state == State.QUEUED)
        waiting = waiting.where(Job.task.is_(None) if task is None else Job.task == storable(task))
        if kinds is not None:
            waiting = waiting.where(Job.kind.in_(kinds))
        is_interactive = Job.kind.in_(INTERACTIVE + DERIVED)
        urgent_first = case((is_interactive, 0), (Job.kind.in_(CLICKED), 1), else_=2)
        with self.store.session() as session:
            candidates = session.execute(waiting.order_by(urgent_first, Job.id)).all()
        for job_id, request in candidates:
            if accepts(request) and (job := self._take(job_id, worker)) is not None:
                return job
        return None

    def running(self, kinds: Collection[str], task: str | None, besides: str) -> list[Job]:
        """Return the running jobs of some kinds and a task, oldest first.

        Args:
            kinds: The kinds.
            task: The task.
            besides: Name of a worker whose own jobs are left out.
        """
        query = select(Job).where(
            Job.state == State.RUNNING, Job.kind.in_(kinds), Job.worker != besides
        )
        query = query.where(Job.task.is_(None) if task is None else Job.task == storable(task))
        with self.store.session() as session:
            return list(session.scalars(query.order_by(Job.id)))

    def runs(self, job: Job) -> bool:
        """Return whether a job still runs on the same worker, and no job of its task waits."""
        same = (Job.id == job.id) & (Job.attempt == job.attempt) & (Job.state == State.RUNNING)
        waits = (Job.task == job.task) & (Job.state == State.QUEUED)
        query = select(exists().where(same), exists().where(waits))
        with self.store.session() as session:
            is_running, is_waited_for = session.execute(query).one()
        return is_running and not is_waited_for

    def _take(self, job_id: int, worker: str) -> Job | None:
        """Take a job for a worker, unless another worker has it or this one has no lease."""
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
        """Write the progress of a job and return its state: the worker stops unless it is running.

        Raises:
            LostJobError: The worker has lost the job.
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
        """Write the outcome of a job. Returns False if the worker has lost the job."""
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
        """Requeue a job that its worker cannot run, for reasons unrelated to the job."""
        cancelled = job.state == State.CANCELLING
        state = State.CANCELLED if cancelled else State.QUEUED
        self._write(job, state=state, started=None, done=0)

    def _write(self, job: Job | Standing, **values: Any) -> str | None:
        """Update a job and return its state, or None if its worker has lost it."""
        mine = (
            update(Job)
            .where(
                Job.id == job.id,
                Job.worker == job.worker,
                Job.attempt == job.attempt,
                Job.state.in_(CLAIMED),
            )
            .values(values)
            .returning(Job.state)
            .execution_options(synchronize_session=False)
        )
        with self.store.session() as session, session.begin():
            return session.scalars(mine).first()

    def cancel(self, job_id: int) -> None:
        """Cancel a job: immediately if it is queued, after the current batch if it is running.

        If it does not stop, a `Supervisor` kills its worker.
        """
        self._stop(Job.id == job_id)

    def stop_overdue(self, job: Standing) -> None:
        """Stop a job that has exceeded its deadline."""
        error = f"It was stopped at its deadline, after {job.deadline:g} seconds. {ADVICE}"
        self._stop(Job.id == job.id, Job.attempt == job.attempt, error=error)

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
        """Queue a failed or cancelled job again. Finished evaluations are not computed again.

        Returns:
            The id of the job, or of an equal unfinished job.
        """
        again = (
            update(Job)
            .where(Job.id == job_id, Job.state.in_((State.FAILED, State.CANCELLED)))
            .values(
                state=State.QUEUED,
                error=None,
                done=0,
                started=None,
                finished=None,
                stopping=None,
                dismissed=None,
            )
            .execution_options(synchronize_session=False)
        )
        try:
            with self.store.session() as session, session.begin():
                session.execute(again)
        except IntegrityError:  # an equal job was submitted in the meantime
            job = self.get(job_id)
            known = self._unfinished_like(job.fingerprint) if job else None
            return job_id if known is None else known
        return job_id

    def abandon(self, worker: str, why: str = _STOPPED) -> bool:
        """End the jobs of a worker that has ended.

        The job that it took last was running when it ended, and fails. Jobs that this one
        interrupted are queued again. Jobs that were being cancelled are cancelled.

        Args:
            worker: Name of the worker.
            why: Reason for its end, as sentences.

        Returns:
            Whether it held a lease until now.
        """
        held = remove(self.store.engine, worker)
        jobs = [job for job in self.standing() if job.worker == worker and job.state in CLAIMED]
        jobs.sort(key=lambda job: (job.started or 0.0, job.id))
        for job in jobs:
            if job.state == State.CANCELLING:
                self.finish(job, State.CANCELLED)
            elif job is jobs[-1]:
                self.finish(job, State.FAILED, error=f"{why} {ADVICE}")
            else:
                self.give_back(job)
        return held

    def fail_waiting(self, task: str | None, why: str) -> None:
        """Fail the queued jobs of a task whose workers cannot be started."""
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
        """End the jobs of all workers that have ended, of any server; see `abandon`.

        Args:
            by_lease: As for `soupcore.store.leases.remove_dead`.
            own: As for `soupcore.store.leases.remove_dead`. The caller ends the jobs of these
                workers.
        """
        remove_dead(self.store.engine, by_lease=by_lease, own=own)
        here = select(HolderRow.name)
        gone = select(Job.worker).where(Job.state.in_(CLAIMED), Job.worker.not_in(here)).distinct()
        with self.store.session() as session:
            workers = list(session.scalars(gone))
        for worker in workers:
            if worker is not None and worker not in own:
                self.abandon(worker)
