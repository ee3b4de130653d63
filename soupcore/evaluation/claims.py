"""Points of several processes, each computed by one of them.

Before points are computed they are claimed in the database, a few at a time, by the lease of this
process (see `soupcore.leases`). Those that another process has claimed are left for later: when
nothing else is left to compute, this one waits for them, and computes them itself where the other
has given up or ended.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BindParameter, bindparam, delete, or_, select

from soupcore.database import EvaluationRow
from soupcore.leases import ClaimRow, alive, remove_dead
from soupcore.store import INSERTS, Store

_AT_ONCE = 0.2  # seconds of work that are claimed together
_MOST = 256  # points
_GROWTH = 2  # times as many points as before, at most

_LOOK_EVERY = 0.2  # seconds
_LOOK_FOR_DEAD_EVERY = 2.0

# An evaluation inside of another one, for someone at the screen, does not wait longer than this:
# two processes that each pause a point that the other one wants would wait for ever.
_NESTED_PATIENCE = 5.0


class Claims:
    """Claims points before they are computed.

    Args:
        store: Where claims and evaluations are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        insert = None if store.is_read_only else INSERTS.get(store.engine.dialect.name)
        self._statements = _Statements(insert) if insert else None
        self._depth = 0  # of evaluations inside of each other

    def batches(
        self,
        keys: Sequence[str],
        place: tuple[str, str],
        needs_outputs: set[str],
        on_wait: Callable[[], None],
    ) -> Generator[tuple[list[str], list[str]]]:
        """Claim points, a few at a time; how many follows from how long the last ones took.

        Close the generator (`contextlib.closing`) to free what was claimed and not evaluated.

        Args:
            keys: The points to compute.
            place: The task's key and the split's digest.
            needs_outputs: Those for which an evaluation counts only if it has outputs.
            on_wait: Called again and again while other processes compute what is left; raise in it
                to stop.

        Yields:
            The points to compute and write now, and those that another process has evaluated
            meanwhile.
        """
        if not keys or self._statements is None:
            yield list(keys), []
            return
        waiting, elsewhere, size = list(keys), list[str](), 1
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
                        size = max(1, int(min(fits, _GROWTH * size, _MOST)))
                elif not waiting:
                    now = time.monotonic()
                    if is_nested and now - waits_since > _NESTED_PATIENCE:
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
            Those that are ours to compute, and those that are evaluated already.
        """
        assert self._statements is not None  # noqa: S101 - checked by `batches`
        shared = self._shared(place)
        # In one order in all processes, or two of them might wait for each other.
        rows = [{"mixture_key": key} | shared for key in sorted(keys)]
        with self._store.engine.begin() as connection:
            claimed = set(connection.scalars(self._statements.claim, rows))
            # What was evaluated after the look at the store and before our claim.
            found = connection.execute(self._statements.evaluated, {"keys": list(keys)} | shared)
            known = {key for key, has_outputs in found if has_outputs or key not in needs_outputs}
            if claimed & known:
                ended = {"keys": list(claimed & known)} | shared
                connection.execute(self._statements.release, ended)
        return [k for k in keys if k in claimed - known], [k for k in keys if k in known]

    def _release(self, keys: Sequence[str], place: tuple[str, str]) -> None:
        """Free points that were given up; of the others, writing the evaluation frees them."""
        assert self._statements is not None  # noqa: S101 - checked by `batches`
        with self._store.engine.begin() as connection:
            given_up = {"keys": list(keys)} | self._shared(place)
            connection.execute(self._statements.release, given_up)

    def _shared(self, place: tuple[str, str]) -> dict[str, str]:
        return {
            "task_key": place[0],
            "split_digest": place[1],
            "holder": self._store.holder.name,
        }


class _Statements:
    """What is asked of the database; building a statement takes longer than executing it."""

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
