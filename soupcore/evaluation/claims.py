"""Claims, so that several processes never compute the same point at the same time.

Before points are computed, they are claimed in the database, a few at a time, under the lease of
this process (see `soupcore.store.leases`). Points that another process has claimed come last: this
process waits for them, and computes them itself if the other one has stopped or ended.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BindParameter, bindparam, delete, or_, select

from soupcore.store import Store
from soupcore.store.leases import ClaimRow, alive, remove_dead
from soupcore.store.rows import INSERTS
from soupcore.store.tables import EvaluationRow

_AT_ONCE = 0.2  # seconds of work that are claimed together
_MOST = 256  # maximum number of points that are claimed together
_GROWTH = 2  # maximum ratio of this number to the previous one

_LOOK_EVERY = 0.2  # seconds
_LOOK_FOR_DEAD_EVERY = 2.0  # seconds

# Seconds. An evaluation nested in another one, for an interactive user, waits at most this long:
# two processes that both pause a point that the other one needs would deadlock.
_NESTED_TIMEOUT = 5.0


class Claims:
    """Claims points before they are computed.

    Args:
        store: Store of claims and evaluations.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        insert = None if store.is_read_only else INSERTS.get(store.engine.dialect.name)
        self._statements = _Statements(insert) if insert else None
        self._depth = 0  # of nested evaluations

    def batches(
        self,
        keys: Sequence[str],
        place: tuple[str, str],
        needs_outputs: set[str],
        on_wait: Callable[[], None],
        *,
        least: int = 1,
    ) -> Generator[tuple[list[str], list[str]]]:
        """Claim points in batches, whose size depends on the time for the previous batch.

        Close the generator (`contextlib.closing`) to release points that were claimed but not
        evaluated.

        Args:
            keys: Keys of the points to compute.
            place: The task's key and the split's digest.
            needs_outputs: Keys of points whose evaluation counts only if it has outputs.
            on_wait: Called repeatedly while other processes compute the remaining points. Raise in
                it to cancel.
            least: Number of points in a batch, at least, where so many are left.

        Yields:
            Keys of the points to compute and write now, and of points that another process has
            evaluated in the meantime.
        """
        if not keys or self._statements is None:
            yield list(keys), []
            return
        waiting, elsewhere, size = list(keys), list[str](), least
        with self._store.holder.held(), self._nested() as is_nested:
            looked_for_dead = waits_since = time.monotonic()
            while waiting or elsewhere:
                if waiting:
                    tried, waiting = waiting[:size], waiting[size:]
                else:
                    tried, elsewhere = elsewhere, []
                ours, known = self._take(tried, place, needs_outputs)
                elsewhere += [key for key in tried if key not in ours and key not in known]
                if ours or known:
                    started = time.monotonic()
                    try:
                        yield ours, known
                    except GeneratorExit:
                        self._release(ours, place)
                        raise
                    waits_since = time.monotonic()
                    if ours:
                        fits = _AT_ONCE * len(ours) / max(waits_since - started, 1e-6)
                        size = max(least, int(min(fits, _GROWTH * size, _MOST)))
                elif not waiting:
                    now = time.monotonic()
                    if is_nested and now - waits_since > _NESTED_TIMEOUT:
                        yield elsewhere, []
                        return
                    on_wait()
                    time.sleep(_LOOK_EVERY)
                    if now - looked_for_dead > _LOOK_FOR_DEAD_EVERY:
                        looked_for_dead = now
                        remove_dead(self._store.engine)

    @contextmanager
    def _nested(self) -> Iterator[bool]:
        self._depth += 1
        try:
            yield self._depth > 1
        finally:
            self._depth -= 1

    def _take(
        self, keys: Sequence[str], place: tuple[str, str], needs_outputs: set[str]
    ) -> tuple[list[str], list[str]]:
        """Claim points.

        Returns:
            Keys of the claimed points, and of points that are evaluated already.
        """
        assert self._statements is not None  # noqa: S101 - checked by `batches`
        shared = self._shared(place)
        # All processes use the same order, since different ones could deadlock.
        rows = [{"mixture_key": key} | shared for key in sorted(keys)]
        with self._store.engine.begin() as connection:
            claimed = set(connection.scalars(self._statements.claim, rows))
            # Evaluations that another process stored after the caller had read the store.
            stored = connection.execute(self._statements.evaluated, {"keys": list(keys)} | shared)
            known = {key for key, has_outputs in stored if has_outputs or key not in needs_outputs}
            if claimed & known:
                ended = {"keys": list(claimed & known)} | shared
                connection.execute(self._statements.release, ended)
        return [k for k in keys if k in claimed - known], [k for k in keys if k in known]

    def _release(self, keys: Sequence[str], place: tuple[str, str]) -> None:
        """Release points that were not computed. Writing an evaluation releases its point."""
        assert self._statements is not None  # noqa: S101 - checked by `batches`
        with self._store.engine.begin() as connection:
            released = {"keys": list(keys)} | self._shared(place)
            connection.execute(self._statements.release, released)

    def _shared(self, place: tuple[str, str]) -> dict[str, str]:
        return {
            "task_key": place[0],
            "split_digest": place[1],
            "holder": self._store.holder.name,
        }


class _Statements:
    """The SQL statements. Building one takes longer than executing it."""

    def __init__(self, insert: Callable[..., Any]) -> None:
        task_key: BindParameter[str] = bindparam("task_key")
        split_digest: BindParameter[str] = bindparam("split_digest")
        keys: BindParameter[str] = bindparam("keys", expanding=True)
        claim = insert(ClaimRow)
        self.claim = claim.on_conflict_do_update(
            index_elements=["mixture_key", "task_key", "split_digest"],
            set_={"holder": claim.excluded.holder},
            where=or_(ClaimRow.holder == claim.excluded.holder, ClaimRow.holder.not_in(alive())),
        ).returning(ClaimRow.mixture_key)
        self.evaluated = select(EvaluationRow.mixture_key, EvaluationRow.has_outputs).where(
            EvaluationRow.mixture_key.in_(keys),
            EvaluationRow.task_key == task_key,
            EvaluationRow.split_digest == split_digest,
        )
        self.release = delete(ClaimRow).where(
            ClaimRow.mixture_key.in_(keys),
            ClaimRow.task_key == task_key,
            ClaimRow.split_digest == split_digest,
            ClaimRow.holder == bindparam("holder"),
        )
