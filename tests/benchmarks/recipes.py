"""How fast are recipes on 4 runs of 200 MB and their base, compared with mergekit?

mergekit gets the configuration that Stockpot exports for each soup. Each run is a new process;
costs are those of the whole process, and those after its imports.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.peers import Costs, Meter, merge_with_mergekit, peer_python
from tests.benchmarks.processes import run
from tests.benchmarks.sweeps import write_fine_tuned
from tests.benchmarks.table import lines, number, spread

RUNS = 3
FILES, MEGABYTES = 4, 200

# Recipe, parameters, goal for mergekit's CPU time ÷ ours, and whether both compute the same. By
# default, TIES trims the whole vector, which mergekit does not support.
RECIPES: dict[str, tuple[str, Mapping[str, Any], str, bool]] = {
    "TIES": ("ties", {}, "8", False),
    "TIES, trimmed tensor by tensor": ("ties", {"trim": "tensor", "tie": "positive"}, "8", True),
    "task arithmetic": ("task_arithmetic", {}, "3", True),
    "DARE": ("dare", {}, "3", False),
    "Model Stock": ("model_stock", {"similarity": "cosine"}, "3", True),
}
IN_ALL_GOALS = {"task arithmetic": "3", "Model Stock": "3"}
TIES_GOAL = 300  # MiB


def with_soupcore(sweep: str, target: str, report: str, title: str) -> None:
    from soupcore import RECIPES as KNOWN
    from soupcore import Sweep

    recipe, parameters, *_ = RECIPES[title]
    after_imports = Meter()
    KNOWN[recipe].function(Sweep.from_folder(sweep), **parameters).save(target)
    after_imports.write(report)


def write_configuration(sweep: str, target: str, title: str) -> None:
    """Write mergekit's configuration for a soup."""
    from soupcore import RECIPES as KNOWN
    from soupcore import Sweep, mergekit_config

    recipe, parameters, *_ = RECIPES[title]
    soup = KNOWN[recipe].function(Sweep.from_folder(sweep), **parameters)
    Path(target).write_text(mergekit_config(soup) or "")


def with_mergekit(sweep: str, target: str, report: str, config: str) -> None:
    os.chdir(sweep)  # paths in the configuration are relative to it
    merge_with_mergekit(config, target, report)


def check_alike(one: str, other: str) -> None:
    """Check that two soups are the same, except for one element in 100,000.

    Of entries as large as the smallest kept one, TIES here keeps all, and mergekit only as many as
    the density allows.
    """
    import torch
    from safetensors.torch import load_file

    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    close = (torch.isclose(ours[name], theirs[name], rtol=1e-6, atol=1e-5) for name in ours)
    differ = sum(tensor.numel() - int(tensor.sum()) for tensor in close)
    assert differ <= sum(tensor.numel() for tensor in ours.values()) / 100_000, differ


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    sweep, soup, report = folder / "sweep", folder / "soup.safetensors", folder / "report"
    theirs, config = folder / "theirs.safetensors", folder / "soup.yml"
    run(write_fine_tuned, sweep, FILES, MEGABYTES, workspace=folder)
    ours, others = ({title: Costs() for title in RECIPES} for _ in range(2))
    for _ in range(RUNS):
        for title, (*_, is_same) in RECIPES.items():
            ours[title].add(
                run(with_soupcore, sweep, soup, report, title, workspace=folder), report
            )
            run(write_configuration, sweep, config, title, workspace=folder)
            cost = run(
                with_mergekit, sweep, theirs, report, config, workspace=folder, python=peer_python()
            )
            others[title].add(cost, report)
            if is_same:
                run(check_alike, soup, theirs, workspace=folder)
            soup.unlink()
    cells: list[tuple[str, ...]] = [("", "after imports, CPU s", "mergekit's", "ratio", "goal")]
    memory: list[tuple[str, ...]] = [("", "above imports, MiB", "in all, MiB", "mergekit's")]
    whole: list[tuple[str, ...]] = [("", "in all, CPU s", "mergekit's", "ratio", "goal")]
    for title, (*_, goal, _) in RECIPES.items():
        mine, its = ours[title], others[title]
        cells.append((title, *compared(mine.after_imports, its.after_imports), goal))
        whole.append((title, *compared(mine.whole, its.whole), IN_ALL_GOALS.get(title, "")))
        memory.append((title, spread(mine.above), spread(mine.peak), spread(its.peak)))
    size = f"{FILES} runs of {MEGABYTES} MB and their base"
    return [
        f"Recipes on {size}, float32, digests known, {RUNS} runs, against mergekit",
        *lines(cells),
        "",
        *lines(whole),
        "",
        *lines(memory),
        f"The goal for the memory of TIES is {TIES_GOAL} MiB. Checked: if both compute the same, "
        "the files hold the same tensors, within 1e-5 except for one element in 100,000.",
    ]


def compared(ours: Sequence[float], theirs: Sequence[float]) -> tuple[str, str, str]:
    return spread(ours), spread(theirs), number(median(theirs) / median(ours))
