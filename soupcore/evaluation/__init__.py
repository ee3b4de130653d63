"""From a point in weight space and a split to an evaluation."""

from soupcore.evaluation.evaluation import Evaluation
from soupcore.evaluation.evaluator import Evaluator, Progress, no_progress
from soupcore.evaluation.paired import Paired, paired
from soupcore.evaluation.statistics import score_interval

__all__ = [
    "Evaluation",
    "Evaluator",
    "Paired",
    "Progress",
    "no_progress",
    "paired",
    "score_interval",
]
