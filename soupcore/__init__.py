"""Model soups: find good points in weight space, evaluate each once, and save their weights.

sweep = soupcore.Sweep.from_folder("sample_data/digits/sweep")
task = soupcore.load_task("sample_data/digits/task.py:task")
evaluator = soupcore.Evaluator(task)
soup = soupcore.greedy(sweep, evaluator)
soup.save("soup.safetensors")

Each public name loads its module on first use (PEP 562), so a process loads only what it uses.
"""

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "RECIPES",
    "Adaptive",
    "Barriers",
    "Cancelled",
    "Checkpoint",
    "CheckpointError",
    "ClassificationTask",
    "ConnectivityError",
    "Curve",
    "Ensemble",
    "Evaluation",
    "Evaluator",
    "Finding",
    "FitReport",
    "Geometry",
    "GreedyEnsemble",
    "Ingredient",
    "LinearPath",
    "Metric",
    "Mixture",
    "NothingFitsError",
    "Orders",
    "Parts",
    "Pass",
    "Plane",
    "RecipeError",
    "RemoteError",
    "Soup",
    "SoupVsEnsemble",
    "Split",
    "Step",
    "StockpotError",
    "Store",
    "Sweep",
    "SweepError",
    "Task",
    "TaskError",
    "TensorInfo",
    "barriers",
    "basins",
    "curve",
    "dare",
    "ema",
    "ensemble",
    "export_table",
    "geometry",
    "greedy",
    "greedy_ensemble",
    "greedy_orders",
    "interpolate",
    "learned",
    "linear_path",
    "load_task",
    "manual",
    "mean",
    "mergekit_config",
    "model_card",
    "model_stock",
    "open_checkpoint",
    "other_statistics_of",
    "plane",
    "push_to_hub",
    "rebuild",
    "save_adapter",
    "slerp",
    "soup_vs_ensemble",
    "swa",
    "task_arithmetic",
    "ties",
    "uniform",
    "weighted",
    "wise_ft",
]

# Each module and its public names.
_NAMES = {
    "analysis": (
        "Ensemble GreedyEnsemble SoupVsEnsemble ensemble greedy_ensemble soup_vs_ensemble"
    ),
    "checkpoints": "Checkpoint TensorInfo open_checkpoint",
    "connectivity": (
        "Adaptive Barriers Geometry LinearPath Plane barriers basins geometry linear_path plane"
    ),
    "errors": (
        "Cancelled CheckpointError ConnectivityError RecipeError RemoteError StockpotError "
        "SweepError TaskError"
    ),
    "evaluation": "Evaluation Evaluator",
    "mixtures": "Mixture interpolate mean",
    "provenance": "mergekit_config model_card push_to_hub rebuild save_adapter",
    "recipes": (
        "RECIPES Curve Orders Parts Pass Soup Step curve dare ema greedy greedy_orders learned "
        "manual model_stock other_statistics_of slerp swa task_arithmetic ties uniform weighted "
        "wise_ft"
    ),
    "store": "Store",
    "table_export": "export_table",
    "sweeps": "Finding FitReport Ingredient NothingFitsError Sweep",
    "tasks": "ClassificationTask Metric Split Task load_task",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES and name not in _NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # An import leaves no garbage, and each collection would traverse all of torch.
        collects = gc.isenabled()
        gc.disable()
        try:
            module = import_module(f"{__name__}.{_MODULES.get(name, name)}")
        finally:
            if collects:
                gc.enable()
        value = globals()[name] = getattr(module, name) if name in _MODULES else module
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

else:  # type checkers and editors resolve the names statically
    from soupcore.analysis.ensemble import Ensemble, GreedyEnsemble, ensemble, greedy_ensemble
    from soupcore.analysis.soup_vs_ensemble import SoupVsEnsemble, soup_vs_ensemble
    from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo
    from soupcore.checkpoints.opening import open_checkpoint
    from soupcore.connectivity.adaptive import Adaptive
    from soupcore.connectivity.barriers import Barriers, barriers
    from soupcore.connectivity.basins import basins
    from soupcore.connectivity.geometry import Geometry, geometry
    from soupcore.connectivity.lines import linear_path
    from soupcore.connectivity.path import LinearPath
    from soupcore.connectivity.plane import Plane, plane
    from soupcore.errors import (
        Cancelled,
        CheckpointError,
        ConnectivityError,
        RecipeError,
        RemoteError,
        StockpotError,
        SweepError,
        TaskError,
    )
    from soupcore.evaluation.evaluation import Evaluation
    from soupcore.evaluation.evaluator import Evaluator
    from soupcore.mixtures import Mixture, interpolate, mean
    from soupcore.provenance.adapter_folder import save_adapter
    from soupcore.provenance.card import model_card
    from soupcore.provenance.hub import push_to_hub
    from soupcore.provenance.mergekit import mergekit_config
    from soupcore.provenance.rebuilding import rebuild
    from soupcore.recipes.averages import ema, manual, swa, uniform
    from soupcore.recipes.curve import Curve, curve
    from soupcore.recipes.dare import dare
    from soupcore.recipes.greedy import Orders, greedy, greedy_orders
    from soupcore.recipes.learned import learned
    from soupcore.recipes.model_stock import model_stock
    from soupcore.recipes.parts import Parts
    from soupcore.recipes.registry import RECIPES
    from soupcore.recipes.slerp import slerp
    from soupcore.recipes.soup import Soup, other_statistics_of
    from soupcore.recipes.task_arithmetic import task_arithmetic
    from soupcore.recipes.ties import ties
    from soupcore.recipes.trace import Pass, Step
    from soupcore.recipes.weighted import weighted
    from soupcore.recipes.wise_ft import wise_ft
    from soupcore.store import Store
    from soupcore.sweeps.findings import Finding, FitReport, NothingFitsError
    from soupcore.sweeps.sweep import Ingredient, Sweep
    from soupcore.table_export import export_table
    from soupcore.tasks.classification import ClassificationTask
    from soupcore.tasks.loading import load_task
    from soupcore.tasks.metrics import Metric
    from soupcore.tasks.splits import Split
    from soupcore.tasks.task import Task
