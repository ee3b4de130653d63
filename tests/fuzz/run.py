"""Fuzzes one target until the time is up or something is wrong.

python -m tests.fuzz.run TARGET FOLDER_OF_SEEDS [option of libFuzzer …]
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["soupcore.safe_torch", "soupcore.checkpoints"]):
    from tests.fuzz import targets

from tests.fuzz.programs import program

MOST_SECONDS = 0.5  # for a seed, as time is to be spent on what is made of them
MOST_MEMORY = 256  # MiB more than before


def _generated(data: bytes) -> None:
    source = atheris.FuzzedDataProvider(data)
    targets.read_pickle(program(source.ConsumeIntInRange))


def _target(name: str, folder: Path) -> Callable[[bytes], None]:
    known: dict[str, Callable[[bytes], None]] = {
        "safetensors": lambda data: targets.read_safetensors(data, folder / "a.safetensors"),
        "torch": targets.read_torch_file,
        "pickle": targets.read_pickle,
        "programs": _generated,
    }
    return known[name]


def main() -> None:
    name, seeds, *options = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="stockpot-fuzz-", dir=_memory_disk()))
    target = _target(name, folder)
    _warm_up(target, seeds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    limits = [f"-rss_limit_mb={peak + MOST_MEMORY}", f"-malloc_limit_mb={MOST_MEMORY}"]
    atheris.Setup([sys.argv[0], seeds, *limits, *options], Watched(target))
    atheris.Fuzz()


def _warm_up(target: Callable[[bytes], None], seeds: str) -> None:
    """Have everything imported that is imported lazily, and leave out seeds that take long."""
    for seed in Path(seeds).iterdir():
        started = time.process_time()
        with suppress(Exception):  # what is wrong with it comes out later
            target(seed.read_bytes())
        if time.process_time() - started > MOST_SECONDS:
            seed.unlink()


class Watched:
    """Calls a target, which must not lead to anything being imported, executed or started."""

    _STRANGE = (
        *("exec", "compile", "import", "pickle.", "marshal.", "code.", "ctypes."),
        *("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket."),
    )

    def __init__(self, target: Callable[[bytes], None]) -> None:
        self.target = target
        self.seen: list[str] = []
        sys.addaudithook(self._look)

    def __call__(self, data: bytes) -> None:
        self.seen.clear()
        self.target(data)
        if self.seen:
            raise AssertionError(f"this file led to {self.seen}")

    def _look(self, event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(self._STRANGE):
            self.seen.append(f"{event} {args!r:.200}")


def _memory_disk() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a disk, not a file


if __name__ == "__main__":
    main()
