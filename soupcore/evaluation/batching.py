"""How many examples at a time, with how many threads, in which memory layout.

The best answer depends on the network and the machine: larger batches share more overhead and
miss more caches, and a network of tiny layers takes longer on two threads than on one as soon as
anything else wants a core. So it is found by measuring, in the course of the work: each trial is
a batch that had to be computed anyway.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

FIRST, SMALLEST, LARGEST = 128, 32, 4096  # examples

_TRIES = 3  # batches a trial; the quickest counts, where what disturbs the others is chance
_PATIENCE = 2.0  # seconds of trials in all
_QUICK = 1e-3  # seconds: where a batch takes less, there is nothing to gain
_CLEAR = 0.95  # of the time before: anything above is taken for chance
_WORTH_THREADS = 2 / 3  # of the time of one thread: above, the other cores are left to others

# Threads that torch had outside all sessions; None there. A session may be inside another: whoever
# is told of a pass's progress may have another point computed meanwhile.
_told: ContextVar[int | None] = ContextVar("told", default=None)


@dataclass(frozen=True)
class Settings:
    """How to take a split through the network.

    Attributes:
        batch: Examples a forward pass.
        channels_last: Whether images lie in memory with the channels of a pixel side by side.
        threads: Threads of the CPU; None for as many as torch has been told.
    """

    batch: int
    channels_last: bool = False
    threads: int | None = None


class _Trial(NamedTuple):
    settings: Settings
    by_clock: bool  # else by the time of the CPU, which other programs do not disturb


_Search = Generator[_Trial, float, Settings]


class Pace:
    """The settings with which an example takes the least time, found while working.

    Args:
        batch: Examples a forward pass. With None it is measured, and threads and layout with it;
            a number leaves these two as they are, so that results repeat to the bit.
        examples: How many there are; a batch has no more.
        images: Whether the layout of images is to be measured.
        on_cpu: Whether the CPU computes.
    """

    def __init__(
        self, batch: int | None, examples: int, *, images: bool = False, on_cpu: bool = True
    ) -> None:
        self._on_cpu = on_cpu
        self._spent = 0.0
        self._search: _Search | None = None
        self._trial = _Trial(Settings(batch or min(FIRST, examples)), not on_cpu)
        if batch is None:
            self._search = self._trials(examples, images)
            self._trial = next(self._search)

    @property
    def settings(self) -> Settings:
        """What to use for the next batch."""
        return self._trial.settings

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing more to be measured."""
        return self._search is None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Give torch the threads of the settings, and leave it with those that it had before.

        All that a pass takes besides its batches has them too: where one thread is enough for the
        network, waking the others for its weights and losses takes longer than these do.
        """
        before = torch.get_num_threads()
        outer = _told.set(_threads_told())
        try:
            self._take_threads()
            yield
        finally:
            _told.reset(outer)
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)

    def compute(self, examples: int, work: Callable[[], None]) -> None:
        """Do the work of a batch of so many examples inside a session, and learn from it."""
        self._take_threads()
        if self._search is None or examples != self.settings.batch:
            work()
            return
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if not self._on_cpu:
            torch.accelerator.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self._spent += wall
        try:
            self._trial = self._search.send((wall if self._trial.by_clock else cpu) / examples)
        except StopIteration as end:
            self._settle(end.value)

    def halve(self) -> bool:
        """Take half as many examples from now on; False where it is one already."""
        half = self.settings.batch // 2
        if half:
            self._settle(replace(self.settings, batch=half))
        return half > 0

    def _take_threads(self) -> None:
        threads = self.settings.threads or _threads_told()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    def _settle(self, settings: Settings) -> None:
        self._search, self._trial = None, _Trial(settings, by_clock=True)

    def _trials(self, examples: int, images: bool) -> _Search:
        best = Settings(min(FIRST, examples))
        if self._on_cpu and _threads_told() > 1:
            # First of all: under load, threads that wait for each other cost more than any other
            # choice. That shows in the clock, and on the whole, not in the quickest try. Of all
            # batches the first takes longest, and with other threads the first does again.
            one, several = replace(best, threads=1), best
            with_one = yield from self._try(one, by_clock=True)
            with_several = yield from self._try(several, by_clock=True)
            best = several if sum(with_several) < _WORTH_THREADS * sum(with_one) else one
        least = min((yield from self._try(best)))
        if least * best.batch < _QUICK:
            return best
        if images:
            trial = replace(best, channels_last=True)
            cost = min((yield from self._try(trial)))
            if cost < _CLEAR * least:
                best, least = trial, cost
        for factor in (2, 0.5):
            before = best
            while SMALLEST <= (batch := int(best.batch * factor)) <= min(LARGEST, examples):
                trial = replace(best, batch=batch)
                cost = min((yield from self._try(trial)))
                if cost >= _CLEAR * least:
                    break
                best, least = trial, cost
            if best is not before:  # larger is better, so smaller is not
                break
        return best

    def _try(
        self, settings: Settings, *, by_clock: bool = False
    ) -> Generator[_Trial, float, list[float]]:
        """Return the seconds an example of each try, infinite once patience is at an end.

        By the clock a try that is not counted comes before them.
        """
        costs = []
        for _ in range(_TRIES + by_clock):
            patient = self._spent < _PATIENCE
            trial = _Trial(settings, by_clock or not self._on_cpu)
            costs.append((yield trial) if patient else math.inf)
        return costs[by_clock:]


def _threads_told() -> int:
    """Return the threads of torch, as they are outside all sessions."""
    return _told.get() or torch.get_num_threads()
