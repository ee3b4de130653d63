"""Evaluation of points in weight space on the splits of a task."""

from soupcore.evaluation.batchnorm import Estimate, StatisticsChoice
from soupcore.evaluation.early_rejection import UpperBound
from soupcore.evaluation.evaluation import Evaluation, Preview
from soupcore.evaluation.evaluations import Evaluations
from soupcore.evaluation.evaluator import Evaluator
from soupcore.evaluation.measuring import by_class, by_group, compare

__all__ = [
    "Estimate",
    "Evaluation",
    "Evaluations",
    "Evaluator",
    "Preview",
    "StatisticsChoice",
    "UpperBound",
    "by_class",
    "by_group",
    "compare",
]
