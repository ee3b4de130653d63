"""How to judge weights."""

from soupcore.tasks.classification import ClassificationTask
from soupcore.tasks.loading import load_task
from soupcore.tasks.task import Role, Split, Task

__all__ = ["ClassificationTask", "Role", "Split", "Task", "load_task"]
