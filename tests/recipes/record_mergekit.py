"""What mergekit makes of small fine-tuned runs, recorded for `test_against_mergekit.py`.

Its requirements conflict with those of the tests, so it has an environment of its own, which
`make bench ARGS=peers` makes. To record again, runs and results, with that in place:

    .venv-peers/bin/python -m tests.recipes.record_mergekit

The runs are recorded too, so that they are the same whatever random numbers torch draws. In the
metadata of each result are mergekit's version and the configuration it was given. Which entries
DARE dropped is another draw with each recording: mergekit takes tensors in an order of its own.
"""

import io
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.benchmarks.peers import declare_missing_operators

RECORDED = Path(__file__).parent / "recorded_mergekit"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RUNS = ("run1", "run2", "run3")
SHAPES = {"conv": (3, 2, 5, 5), "norm": (33,), "scale": (), "row": (1, 13), "head": (53, 31)}

# How the runs lie: as far from the base as fine-tuned ones do, often with opposite signs, and yet
# with so much in common that Model Stock's t is between 0 and 1.
DISTANCE, ALONE, SEED = 0.05, 1.5, 6


def config(
    method: str,
    *own: Mapping[str, float],
    base: str | None = "base",
    shared: Mapping[str, float | bool] = MappingProxyType({}),
) -> dict[str, Any]:
    """Make a configuration in which the first runs have parameters of their own."""
    models = [
        {"model": f"{name}.safetensors", "parameters": parameters}
        for name, parameters in zip(RUNS, own, strict=False)
    ]
    named = {"base_model": f"{base}.safetensors"} if base else {}
    return {"merge_method": method, "models": models, "parameters": dict(shared)} | named


def weights(*each: float, **others: float) -> list[dict[str, float]]:
    return [{"weight": weight} | others for weight in each]


MEAN, SUM = {"normalize": True}, {"normalize": False}

CASES = {
    "linear": config("linear", *weights(1, 1, 1), base=None),
    "linear-weighted": config("linear", *weights(0.5, 0.3, 0.2), base=None),
    "task-arithmetic": config("task_arithmetic", *weights(0.3, 0.3, 0.3), shared=SUM),
    "task-arithmetic-subtracted": config("task_arithmetic", *weights(-0.4, -0.4, -0.4), shared=SUM),
    "ties": config("ties", *weights(1, 1, 1, density=0.25), shared=MEAN),
    "ties-scaled": config("ties", *weights(1, 1, 1, density=0.5), shared=MEAN | {"lambda": 1.5}),
    "slerp": config("slerp", {}, {}, base="run1", shared={"t": 0.3}),
    "model-stock": config("model_stock", {}, {}, {}),
    "dare-one-run": config("dare_linear", *weights(1, density=0.4), shared=MEAN),
    "dare-mean": config("dare_linear", *weights(1, 1, 1, density=0.4), shared=MEAN),
    "dare-sum": config("dare_linear", *weights(1, 1, 1, density=0.4), shared=SUM),
    "dare-ties": config("dare_ties", *weights(1, 1, 1, density=0.4), shared=MEAN),
}


def make_runs(dtype: torch.dtype) -> dict[str, dict[str, Tensor]]:
    """Make the base and the runs."""
    generator = torch.Generator().manual_seed(SEED)

    def draw() -> dict[str, Tensor]:
        return {n: torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}

    base, common = draw(), draw()
    states = {"base": {name: 0.5 * tensor for name, tensor in base.items()}}
    for name in RUNS:
        own = draw()
        states[name] = {
            n: states["base"][n] + DISTANCE * (common[n] + ALONE * own[n]) for n in SHAPES
        }
    return {
        name: {n: tensor.to(dtype) for n, tensor in state.items()} for name, state in states.items()
    }


def record(folder: Path, dtype: str) -> None:
    """Make the runs, and merge them in every case."""
    from mergekit.scripts.merge_raw_pytorch import SimpleLoaderCache, main

    folder.mkdir(parents=True, exist_ok=True)
    for name, state in make_runs(DTYPES[dtype]).items():
        save_file(state, folder / f"{name}.safetensors")
    os.chdir(folder)  # the configurations name files in it
    SimpleLoaderCache().loaders.clear()  # it knows files by these names
    with tempfile.TemporaryDirectory() as scratch:
        path, merged = Path(scratch, "config.yml"), Path(scratch, "merged")
        for name, case in CASES.items():
            text = json.dumps(case | {"dtype": "float32", "out_dtype": dtype})  # YAML as well
            path.write_text(text)
            with redirect_stderr(io.StringIO()):  # it draws bars
                main([str(path), str(merged), "--random-seed=0"], standalone_mode=False)
            save_file(
                load_file(merged / "model.safetensors"),
                folder / f"{name}.safetensors",
                metadata={"mergekit": version("mergekit"), "configuration": text},
            )


if __name__ == "__main__":
    declare_missing_operators()
    for dtype in DTYPES:
        record(RECORDED / dtype, dtype)
