"""Tasks: how to evaluate weights."""

from soupcore.tasks.classification import ClassificationTask
from soupcore.tasks.description import Role, TaskDescription, TaskInfo, Undefined
from soupcore.tasks.loading import load_task
from soupcore.tasks.metrics import METRICS, Metric, MetricInfo
from soupcore.tasks.splits import Shown, Split
from soupcore.tasks.task import Task
from soupcore.tasks.torchmetrics_metric import from_torchmetrics
from soupcore.tasks.unit import NO_LABELS, PLAIN, SHARE, Labels, Unit

__all__ = [
    "METRICS",
    "NO_LABELS",
    "PLAIN",
    "SHARE",
    "ClassificationTask",
    "Labels",
    "Metric",
    "MetricInfo",
    "Role",
    "Shown",
    "Split",
    "Task",
    "TaskDescription",
    "TaskInfo",
    "Undefined",
    "Unit",
    "from_torchmetrics",
    "load_task",
]
