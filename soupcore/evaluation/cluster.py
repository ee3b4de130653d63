"""Evaluation on a Ray cluster, with the interface of `ForwardPass`.

Each actor holds the network, the data and the ingredients, as a worker of this machine does. It has
one GPU, or one CPU if the cluster has no GPUs. Descriptions and paths travel to the actors and
records of examples come back, but no weights: the checkpoints and the task's file have to be under
the same paths on all nodes. The driver alone writes the store. So if an actor or its node is lost,
its chunk of points is computed again by another one, and nothing else is lost.

Points are sent in chunks of about a second, two per actor, and results are taken in the order in
which they are ready. The results are those of an evaluation on one machine with the same hardware
and number of threads, to the bit.

The limits of large sweeps, by arithmetic: the 72 CLIP ViT-L/14 of the paper's size (304 M
parameters, 1.2 GB in float32) have 2,556 pairs, and a screen evaluates about 3 new points of each:
7,668 passes, and 72 for the ends. Mixing a point reads 2.4 GB from memory if the ingredients stay
there (86 GB for all), else from the disk: 18 TB in total. A pass over 10,000 images at 1,000
images/s takes 10 s, so all take 21.5 GPU hours: 2.7 hours on 8 GPUs, 20 minutes on 64. 4,950 pairs
(100 runs) take 41 GPU hours: 5.2 hours on 8, 39 minutes on 64. With 64 nodes that read each point
from shared storage, the limit is its bandwidth: 64 × 2.4 GB every 10 s are 15 GB/s. So give each
actor memory for the ingredients (`memory_budget`), or order pairs by their first end, which halves
the reads.
"""

import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from soupcore.errors import StockpotError
from soupcore.evaluation.batchnorm import Estimate
from soupcore.evaluation.command_pass import CommandPass
from soupcore.evaluation.early_rejection import EarlyRejection
from soupcore.evaluation.forward_pass import ForwardPass
from soupcore.evaluation.network import choose_device
from soupcore.evaluation.scoring import ExampleRecords
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress
from soupcore.tasks import Task, load_task
from soupcore.tasks.command import CommandTask
from soupcore.version import VERSION

LOCAL = "local"  # the address of a cluster started on this machine, for this process

# A point to compute: its key, the point, and whether to keep its outputs.
Wanted = tuple[str, Mixture, bool]
Computed = tuple[str, ExampleRecords, float]  # key, records, seconds

_CHUNK = 1.0  # seconds of work in a chunk
_MOST = 256  # points in a chunk
_AHEAD = 2  # chunks per actor, so that it never waits for the driver
_TRIES = 3  # actors lost with the same chunk, after which the chunk counts as the cause
_LOOK_EVERY = 0.2  # seconds between two reports of progress, which may cancel
_START_TIMEOUT = 300.0  # seconds to wait for a first actor

_PACKAGE_ROOT = Path(__file__).parents[2]


def local_pass(
    task: Task, device: torch.device, batch_size: int | None, memory_budget: int
) -> CommandPass | ForwardPass:
    """Return the passes of a task on this machine."""
    if isinstance(task, CommandTask):
        return CommandPass(task)
    return ForwardPass(task, device, batch_size, memory_budget)


def versions() -> dict[str, str]:
    """Return the versions that have to be the same on all nodes."""
    import ray

    return {
        "Python": platform.python_version(),
        "ray": ray.__version__,
        "torch": torch.__version__,
        "Stockpot": VERSION,
    }


class Actor:
    """An actor, which computes records of points on its node.

    Args:
        task: The task, or the location of its file.
        key: The key of the task at the driver.
        device: Device for computation; `auto` for the GPU of the actor, if it has one.
        batch_size: As for `ForwardPass`.
        memory_budget: As for `ForwardPass`.
    """

    def __init__(
        self,
        task: Task | str,
        key: str,
        device: str,
        batch_size: int | None,
        memory_budget: int,
    ) -> None:
        self._task = task
        self._key = key
        self._device = device
        self._batch_size = batch_size
        self._memory_budget = memory_budget

    def start(self, expected: dict[str, str]) -> None:
        """Compare versions with the driver's, and load the task.

        Raises:
            StockpotError: Versions or tasks differ.
        """
        for name, version in versions().items():
            if version != expected[name]:
                raise StockpotError(
                    f"The node {platform.node()} has {name} {version}, and this machine has "
                    f"{expected[name]}. Install the same versions on all nodes."
                )
        self._passes  # noqa: B018 - loads the task

    def compute(
        self, points: Sequence[Wanted], split: str, estimate: Estimate | None
    ) -> list[Computed]:
        """Return the records of points."""
        found = []
        for key, point, keep_outputs in points:
            started = time.perf_counter()
            records = self._passes.run(point, split, keep_outputs=keep_outputs, estimate=estimate)
            found.append((key, records, time.perf_counter() - started))
        return found

    def call(self, method: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Call a method of the passes."""
        return getattr(self._passes, method)(*arguments, **options)

    def notes(self) -> list[str]:
        """Return the messages about disabled shortcuts."""
        return self._passes.notes

    @cached_property
    def _passes(self) -> CommandPass | ForwardPass:
        task = load_task(self._task) if isinstance(self._task, str) else self._task
        if task.key != self._key:
            raise StockpotError(
                f"The task {task.name!r} differs on the node {platform.node()}. Its file and its "
                "data have to be the same on all nodes."
            )
        device = choose_device(self._device)
        return local_pass(task, device, self._batch_size, self._memory_budget)


class ClusterPass:
    """Runs points on the actors of a Ray cluster.

    Constructing one is cheap. The actors are started with the first points.

    Args:
        task: The task. If it is from a file, each node loads this file; otherwise it is pickled.
        address: Address of the cluster; "local" for one on this machine.
        device: Device for computation on the actors.
        batch_size: As for `ForwardPass`.
        memory_budget: As for `ForwardPass`, for each actor.

    Attributes:
        notes: Messages about disabled shortcuts.
    """

    def __init__(
        self, task: Task, address: str, device: str, batch_size: int | None, memory_budget: int
    ) -> None:
        self.notes: list[str] = []
        self._task = task
        self._address = address
        self._device = device
        self._batch_size = batch_size
        self._memory_budget = memory_budget
        self._here = local_pass(task, torch.device("cpu"), batch_size, memory_budget)
        self._actors: dict[Any, int] = {}  # started actor: its pending chunks
        self._starting: dict[Any, Any] = {}  # pending answer: its actor
        self._seconds_per_point: float | None = None

    def run(
        self,
        mixture: Mixture,
        split: str,
        *,
        keep_outputs: bool = True,
        estimate: Estimate | None = None,
        rejection: EarlyRejection | None = None,
        in_bfloat16: bool = False,
        on_progress: Progress = no_progress,
    ) -> ExampleRecords:
        """Run one point on one actor; see `ForwardPass.run`."""
        options = {
            "keep_outputs": keep_outputs,
            "estimate": estimate,
            "rejection": rejection,
            "in_bfloat16": in_bfloat16,
        }
        total = len(self._task.split(split))
        found: ExampleRecords = self._call(
            "run", (mixture, split), options, lambda: on_progress(0, total)
        )
        on_progress(total, total)
        return found

    def run_ensemble(
        self,
        members: Sequence[Mixture],
        split: str,
        *,
        estimate: Estimate | None = None,
        on_progress: Progress = no_progress,
    ) -> ExampleRecords:
        """Run an ensemble on one actor; see `ForwardPass.run_ensemble`."""
        total = len(members) * len(self._task.split(split))
        found: ExampleRecords = self._call(
            "run_ensemble",
            (members, split),
            {"estimate": estimate},
            lambda: on_progress(0, total),
        )
        on_progress(total, total)
        return found

    def statistics(self, mixture: Mixture, estimate: Estimate) -> dict[str, Tensor]:
        """Return re-estimated BatchNorm statistics; see `ForwardPass.statistics`."""
        found: dict[str, Tensor] = self._call("statistics", (mixture, estimate), {})
        return found

    def targets(self, split: str) -> Tensor:
        """Return the targets of a split, from the data on this machine."""
        return self._here.targets(split)

    def run_all(
        self,
        wanted: Sequence[Wanted],
        split: str,
        estimate: Estimate | None = None,
        on_wait: Callable[[int], None] = lambda done: None,
    ) -> Generator[Computed]:
        """Compute the records of points on all actors.

        Args:
            wanted: The points.
            split: Name of the split.
            estimate: Data on which to estimate BatchNorm statistics; None to average them.
            on_wait: Called repeatedly with the number of points that are done. Raise in it to
                cancel, which stops the actors that compute.

        Yields:
            Key, records and seconds of each point, in the order in which they are ready.

        Raises:
            StockpotError: There is no cluster, the nodes differ, or a point ends its actors.
        """
        ray = _ray()
        from ray.exceptions import RayError, RayTaskError

        waiting, in_flight = deque(wanted), dict[Any, tuple[Any, list[Wanted]]]()
        lost: Counter[str] = Counter()
        done = 0
        self._start()
        since = time.monotonic()
        try:
            while waiting or in_flight:
                for actor in sorted(self._actors, key=self._actors.__getitem__):
                    while waiting and self._actors[actor] < _AHEAD:
                        size = self._chunk(len(waiting))
                        chunk = [waiting.popleft() for _ in range(size)]
                        sent = actor.compute.remote(chunk, split, estimate)
                        in_flight[sent] = actor, chunk
                        self._actors[actor] += 1
                on_wait(done)
                ready, _ = ray.wait([*in_flight, *self._starting], timeout=_LOOK_EVERY)
                for answer in ready:
                    if answer in self._starting:
                        self._started(answer)
                        continue
                    actor, chunk = in_flight.pop(answer)
                    try:
                        found = ray.get(answer)
                    except RayTaskError as failure:
                        raise _cause(failure) from None
                    except RayError as failure:  # the actor or its node was lost
                        self._lose(actor)
                        waiting.extendleft(reversed(chunk))
                        lost[chunk[0][0]] += 1
                        if lost[chunk[0][0]] >= _TRIES:
                            raise _lost_too_often(failure) from None
                        self._start()
                        continue
                    if actor in self._actors:  # a nested call may have lost it since
                        self._actors[actor] -= 1
                    self._seconds_per_point = sum(seconds for *_, seconds in found) / len(found)
                    yield from found
                    done += len(found)
                if self._actors:
                    since = time.monotonic()
                else:
                    _check_timeout(since)
        except BaseException:  # an actor cannot be interrupted in a pass
            for actor in {id(actor): actor for actor, _ in in_flight.values()}.values():
                self._lose(actor)
            raise
        on_wait(done)
        for message in self._notes():
            if message not in self.notes:
                self.notes.append(message)

    def close(self) -> None:
        """Stop all actors, which releases their GPUs."""
        for actor in [*self._actors, *self._starting.values()]:
            self._lose(actor)

    def _call(
        self,
        method: str,
        arguments: Sequence[Any],
        options: dict[str, Any],
        on_wait: Callable[[], None] = lambda: None,
    ) -> Any:
        """Call a method on one actor, and on another one if it is lost."""
        _ray()
        from ray.exceptions import RayError, RayTaskError

        lost = 0
        while True:
            try:
                return self._call_once(method, arguments, options, on_wait)
            except RayTaskError as failure:
                raise _cause(failure) from None
            except RayError as failure:  # the actor or its node was lost
                lost += 1
                if lost >= _TRIES:
                    raise _lost_too_often(failure) from None

    def _call_once(
        self,
        method: str,
        arguments: Sequence[Any],
        options: dict[str, Any],
        on_wait: Callable[[], None],
    ) -> Any:
        import ray
        from ray.exceptions import RayTaskError

        self._start()
        since = time.monotonic()
        while not self._actors:
            on_wait()
            _check_timeout(since)
            ready, _ = ray.wait([*self._starting], timeout=_LOOK_EVERY)
            for answer in ready:
                self._started(answer)
        actor = min(self._actors, key=self._actors.__getitem__)
        answer = actor.call.remote(method, arguments, options)
        try:
            while not ray.wait([answer], timeout=_LOOK_EVERY)[0]:
                on_wait()
            return ray.get(answer)
        except RayTaskError:  # the actor goes on
            raise
        except BaseException:  # it was lost, or cannot be interrupted in a pass
            self._lose(actor)
            raise

    def _chunk(self, left: int) -> int:
        """Return how many points to send: a second of work, and fewer towards the end."""
        if self._seconds_per_point is None:
            return 1
        by_time = int(_CHUNK / max(self._seconds_per_point, 1e-6))
        even = -(-left // (_AHEAD * max(1, len(self._actors))))
        return max(1, min(by_time, even, _MOST, left))

    def _start(self) -> None:
        """Connect to the cluster, and start actors for its GPUs or CPUs that have none."""
        ray = connect(self._address)
        resources = ray.cluster_resources()
        gpus = 0 if self._device.startswith("cpu") else int(resources.get("GPU", 0))
        each = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_gpus": 0, "num_cpus": 1}
        count = gpus or max(1, int(resources.get("CPU", 1)))
        sent = self._task.spec or self._task
        for _ in range(count - len(self._actors) - len(self._starting)):
            actor = (
                ray.remote(Actor)
                .options(**each)
                .remote(sent, self._task.key, self._device, self._batch_size, self._memory_budget)
            )
            self._starting[actor.start.remote(versions())] = actor

    def _started(self, answer: Any) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        actor = self._starting.pop(answer)
        try:
            ray.get(answer)
        except RayTaskError as failure:
            self.close()
            raise _cause(failure) from None
        except RayError:  # its node was lost while it started
            return
        self._actors[actor] = 0

    def _lose(self, actor: Any) -> None:
        import ray

        self._actors.pop(actor, None)
        self._starting = {a: each for a, each in self._starting.items() if each is not actor}
        ray.kill(actor)

    def _notes(self) -> list[str]:
        import ray
        from ray.exceptions import RayError

        try:
            each: list[list[str]] = ray.get([actor.notes.remote() for actor in self._actors])
        except RayError:  # an actor was just lost; notes are not worth a failure
            return []
        return [note for notes in each for note in notes]


def connect(address: str) -> Any:
    """Connect this process to a cluster, once, and return the module `ray`.

    Args:
        address: Address of the cluster, as for `ray.init`; "local" to start one on this machine.

    Raises:
        StockpotError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _ray()
    if ray.is_initialized():
        return ray
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))
    kept = ("STOCKPOT_WORKSPACE", "OMP_WAIT_POLICY")
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": {"PYTHONPATH": path, **variables}},
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if address == LOCAL:
        options |= {"num_cpus": os.cpu_count() or 1, "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except Exception as error:  # of many kinds: no node, another version, a wrong token
        raise StockpotError(
            f"The Ray cluster {address!r} cannot be reached: {type(error).__name__}: {error}. "
            "Check the address, and that all nodes have the same versions and the same token "
            "(~/.ray/auth_token)."
        ) from None
    return ray


def _lost_too_often(failure: Any) -> StockpotError:
    reason = str(failure).strip().splitlines()[0]
    return StockpotError(f"{_TRIES} actors ended while they computed the same points: {reason}")


def _check_timeout(since: float) -> None:
    if time.monotonic() - since > _START_TIMEOUT:
        raise StockpotError(
            f"No actor started on the Ray cluster within {_START_TIMEOUT:.0f} s. Either others use "
            "its CPUs and GPUs, or its nodes are gone: see `ray status`."
        )


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise StockpotError(
            "Evaluation on a cluster needs the package ray. Install it: pip install "
            "'stockpot[ray]'."
        ) from None
    return ray


def _cause(failure: Any) -> Exception:
    """Return the error that a method of an actor raised, given Ray's error."""
    cause = failure.cause
    return cause if isinstance(cause, Exception) else StockpotError(str(failure))
