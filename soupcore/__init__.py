"""Model soups: find good points in weight space, evaluate each once, take the weights home.

sweep = soupcore.Sweep.from_folder("sample_data/digits/sweep")
task = soupcore.load_task("sample_data/digits/task.py:task")
evaluator = soupcore.Evaluator(task)
soup = soupcore.greedy(sweep, evaluator)
soup.save("soup.safetensors")
"""

from soupcore.analysis import Ensemble, SoupVsEnsemble, ensemble, soup_vs_ensemble
from soupcore.checkpoints import Checkpoint, TensorInfo, open_checkpoint
from soupcore.connectivity import (
    Adaptive,
    Barriers,
    Geometry,
    LinearPath,
    Plane,
    barriers,
    basins,
    geometry,
    linear_path,
    plane,
)
from soupcore.errors import (
    Cancelled,
    CheckpointError,
    ConnectivityError,
    RecipeError,
    StockpotError,
    SweepError,
    TaskError,
)
from soupcore.evaluation import Evaluation, Evaluator
from soupcore.mixtures import Mixture, interpolate, mean
from soupcore.recipes import RECIPES, Soup, Step, greedy, manual, uniform
from soupcore.store import Store
from soupcore.sweeps import Finding, FitReport, Ingredient, Sweep
from soupcore.tasks import ClassificationTask, Split, Task, load_task

__all__ = [
    "RECIPES",
    "Adaptive",
    "Barriers",
    "Cancelled",
    "Checkpoint",
    "CheckpointError",
    "ClassificationTask",
    "ConnectivityError",
    "Ensemble",
    "Evaluation",
    "Evaluator",
    "Finding",
    "FitReport",
    "Geometry",
    "Ingredient",
    "LinearPath",
    "Mixture",
    "Plane",
    "RecipeError",
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
    "ensemble",
    "geometry",
    "greedy",
    "interpolate",
    "linear_path",
    "load_task",
    "manual",
    "mean",
    "open_checkpoint",
    "plane",
    "soup_vs_ensemble",
    "uniform",
]
