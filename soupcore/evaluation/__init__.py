"""From a point in weight space and a split to an evaluation."""

from soupcore.evaluation.batchnorm import Estimate, StatisticsChoice
from soupcore.evaluation.evaluation import Evaluation
from soupcore.evaluation.evaluator import Evaluator
from soupcore.evaluation.paired import Paired, paired
from soupcore.evaluation.preview import Preview
from soupcore.evaluation.progress import Progress, no_progress
from soupcore.evaluation.race import Bound
from soupcore.evaluation.statistics import score_interval

__all__ = [
    "Bound",
    "Estimate",
    "Evaluation",
    "Evaluator",
    "Paired",
    "Preview",
    "Progress",
    "StatisticsChoice",
    "no_progress",
    "paired",
    "score_interval",
]
