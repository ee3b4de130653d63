"""Model soups: find good points in weight space, evaluate each once, take the weights home.

sweep = soupcore.Sweep.from_folder("sample_data/digits/sweep")
task = soupcore.load_task("sample_data/digits/task.py:task")
evaluator = soupcore.Evaluator(task)
soup = soupcore.greedy(sweep, evaluator)
soup.save("soup.safetensors")
"""

from soupcore.analysis import (
    Ensemble,
    GreedyEnsemble,
    SoupVsEnsemble,
    ensemble,
    greedy_ensemble,
    soup_vs_ensemble,
)
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
from soupcore.provenance import mergekit_config, model_card, rebuild
from soupcore.recipes import (
    RECIPES,
    Curve,
    Orders,
    Parts,
    Pass,
    Soup,
    Step,
    curve,
    dare,
    ema,
    greedy,
    greedy_orders,
    learned,
    manual,
    model_stock,
    slerp,
    swa,
    task_arithmetic,
    ties,
    uniform,
    weighted,
    wise_ft,
)
from soupcore.store import Store
from soupcore.sweeps import Finding, FitReport, Ingredient, NothingFitsError, Sweep
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
    "Mixture",
    "NothingFitsError",
    "Orders",
    "Parts",
    "Pass",
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
    "curve",
    "dare",
    "ema",
    "ensemble",
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
    "plane",
    "rebuild",
    "slerp",
    "soup_vs_ensemble",
    "swa",
    "task_arithmetic",
    "ties",
    "uniform",
    "weighted",
    "wise_ft",
]
