"""How much slower is scanning a checkpoint than computing its SHA-256?"""

import hashlib
import json
import os
from pathlib import Path

from tests.benchmarks.processes import interleaved, run
from tests.benchmarks.sweeps import write_sweep
from tests.benchmarks.table import multiples, spread
from tests.benchmarks.uniform import as_torch_files

RUNS = 7
MEGABYTES = 500
BLOCK = 512 << 10

BASELINE = "SHA-256 of the file"
SCAN = "digest of the weights, and NaN and infinity counted"
TORCH_SCAN = "the same of a .pt file, and its checksums"
KNOWN = "opened again, the digest known"


def measure(path: str, torch_path: str, report: str) -> None:
    import soupcore
    from soupcore.checkpoints.digest import scan

    taken = interleaved(
        {
            BASELINE: lambda: sha256(path),
            SCAN: lambda: scan(soupcore.open_checkpoint(path), lambda nbytes: None),
            TORCH_SCAN: lambda: scan(soupcore.open_checkpoint(torch_path), lambda nbytes: None),
            KNOWN: lambda: soupcore.open_checkpoint(path).digest,
        },
        RUNS,
        Path(report),
        wall=True,
    )
    Path(report).write_text(json.dumps(taken))


def sha256(path: str) -> str:
    sha = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    descriptor = os.open(path, os.O_RDONLY)
    while count := os.readv(descriptor, [buffer]):
        sha.update(buffer[:count])
    os.close(descriptor)
    return sha.hexdigest()


def benchmark(folder: Path) -> list[str]:
    """Measure, with a file in the folder, and return the report."""
    sweep, torch_files, report = folder / "sweep", folder / "pt", folder / "report.json"
    run(write_sweep, sweep, 1, MEGABYTES, workspace=folder)
    run(as_torch_files, sweep, torch_files, workspace=folder)
    paths = sweep / "run-0.safetensors", torch_files / "run-0.pt"
    run(measure, *paths, report, workspace=folder)
    taken = json.loads(report.read_text())
    return [
        f"Digest of a file of {MEGABYTES} MB in the page cache, {RUNS} runs",
        *multiples(taken, "wall s", {}),
        *(
            f"{way}: {spread([MEGABYTES / 1e3 / seconds for seconds in taken[way]])} GB/s, "
            "the goal is 1 or more"
            for way in (SCAN, TORCH_SCAN)
        ),
    ]
