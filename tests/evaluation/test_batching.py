import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch

from soupcore.evaluation import batching
from soupcore.evaluation.batching import FIRST, Pace, Settings


@dataclass
class Clock:
    """Time that passes only as the work under test says."""

    wall: float = 0.0
    cpu: float = 0.0

    def perf_counter(self) -> float:
        return self.wall

    def process_time(self) -> float:
        return self.cpu

    def takes(self, wall: float, cpu: float | None = None) -> Callable[[], None]:
        """Return work that takes so long."""

        def work() -> None:
            self.wall += wall
            self.cpu += wall if cpu is None else cpu

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(batching, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


Cost = Callable[[Settings], float]


def settle(pace: Pace, clock: Clock, cost: Cost, examples: int, passes: int = 200) -> Settings:
    """Go through the examples again and again, each batch taking what its settings say."""
    for _ in range(passes):
        seen = 0
        with pace.session():
            while seen < examples:
                size = min(pace.settings.batch, examples - seen)
                pace.compute(size, clock.takes(size * cost(pace.settings)))
                seen += size
    assert pace.is_settled
    return pace.settings


def test_a_size_that_is_given_is_kept_with_all_else_as_it_is(clock: Clock) -> None:
    pace = Pace(100, 10_000, images=True)
    assert settle(pace, clock, lambda settings: 1e-3, 1000) == Settings(100)


@pytest.mark.parametrize(
    ("best", "examples", "expected"),
    [(512, 5000, 512), (64, 5000, 64), (4096, 50_000, 4096), (16, 5000, 32), (4096, 700, 512)],
)
def test_the_quickest_batch_is_found_within_what_there_is(
    clock: Clock, best: int, examples: int, expected: int
) -> None:
    def cost(settings: Settings) -> float:
        return 1e-5 * (1 + 0.2 * abs(math.log2(best / settings.batch)))

    found = settle(Pace(None, examples), clock, cost, examples)
    assert found == Settings(expected, threads=1)


def test_a_difference_that_may_be_chance_changes_nothing(clock: Clock) -> None:
    found = settle(Pace(None, 5000), clock, lambda s: 1e-4 * (1 - s.batch / 1e6), 5000)
    assert found.batch == FIRST


@pytest.mark.parametrize("speed", [0.5, 0.97, 2.0])
@pytest.mark.parametrize("images", [False, True])
def test_the_layout_is_measured_where_there_are_images(
    clock: Clock, speed: float, images: bool
) -> None:
    cost: Cost = lambda settings: 1e-4 * (speed if settings.channels_last else 1)  # noqa: E731
    found = settle(Pace(None, 5000, images=images), clock, cost, 5000)
    assert found.channels_last is (images and speed == 0.5)


@pytest.mark.parametrize(("speed", "threads"), [(0.5, None), (0.9, 1), (30.0, 1)])
def test_threads_are_used_where_they_gain_enough(
    clock: Clock, speed: float, threads: int | None
) -> None:
    cost: Cost = lambda settings: 1e-4 * (1 if settings.threads == 1 else speed)  # noqa: E731
    assert settle(Pace(None, 5000), clock, cost, 5000).threads == threads


def test_threads_are_judged_by_the_clock_and_sizes_by_the_time_of_the_cpu(clock: Clock) -> None:
    pace = Pace(None, 5000)
    with pace.session():
        while not pace.is_settled:
            several = 1 if pace.settings.threads == 1 else 4
            size = pace.settings.batch
            # Four threads take a third of the clock's time, and more of the CPU's.
            wall = 1e-4 * size / (3 if several == 4 else 1)
            pace.compute(size, clock.takes(wall, wall * several * 90 / size))
    assert pace.settings == Settings(4096, threads=None)


def test_torch_has_its_threads_back_afterwards(clock: Clock) -> None:
    pace, seen = Pace(None, 5000), set()

    def work() -> None:
        seen.add(torch.get_num_threads())
        clock.takes(0.01)()

    with pace.session():
        for _ in range(6):
            pace.compute(pace.settings.batch, work)
    assert seen == {1, 4}
    assert torch.get_num_threads() == 4

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), pace.session():
        pace.compute(pace.settings.batch, fail)
    assert torch.get_num_threads() == 4


def test_what_a_pass_takes_besides_its_batches_has_the_threads_of_these(clock: Clock) -> None:
    pace = Pace(None, 5000)
    cost: Cost = lambda settings: 1e-4 * (1 if settings.threads == 1 else 30)  # noqa: E731
    assert settle(pace, clock, cost, 5000).threads == 1
    with pace.session():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4


def test_a_session_inside_another_leaves_both_and_torch_with_their_threads(clock: Clock) -> None:
    cost: Cost = lambda settings: 1e-4 * (1 if settings.threads == 1 else 30)  # noqa: E731
    pace = Pace(None, 5000)
    assert settle(pace, clock, cost, 5000).threads == 1
    with pace.session():
        with pace.session():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
        other = Pace(100, 5000)  # as many as torch had been told
        with other.session():
            assert torch.get_num_threads() == 4
        assert torch.get_num_threads() == 1
        more = settle(Pace(None, 5000), clock, lambda s: 1e-4 * (s.threads or 0.1), 5000)
        assert more.threads is None
    assert torch.get_num_threads() == 4


def test_where_a_batch_takes_no_time_nothing_is_tried(clock: Clock) -> None:
    pace = Pace(None, 5000, images=True)
    found = settle(pace, clock, lambda settings: 1e-6, 5000)
    assert found == Settings(FIRST, threads=1)


def test_trials_end_with_patience(clock: Clock) -> None:
    tried: list[int] = []

    def cost(settings: Settings) -> float:
        tried.append(settings.batch)
        return 1.0 / settings.batch**2  # larger is always better

    pace = Pace(None, 100_000)
    with pace.session():
        while not pace.is_settled:
            size = pace.settings.batch
            pace.compute(size, clock.takes(100 * size * cost(pace.settings)))
    assert clock.wall < 2 + 1
    assert max(tried) < 4096


def test_batches_cut_short_teach_nothing(clock: Clock) -> None:
    pace = Pace(None, 1000)
    before = pace.settings
    for _ in range(100):
        pace.compute(before.batch - 1, clock.takes(1.0))
    assert pace.settings == before
    assert not pace.is_settled


def test_halving_ends_the_trials_and_stops_at_one(clock: Clock) -> None:
    pace = Pace(None, 1000)
    sizes = []
    while pace.halve():
        sizes.append(pace.settings.batch)
    assert sizes == [64, 32, 16, 8, 4, 2, 1]
    assert pace.is_settled
