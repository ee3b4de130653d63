"""Long work: a queue that survives restarts, a warm worker, progress, cancel and resume."""

from soupcore.jobs.descriptions import Descriptions
from soupcore.jobs.queue import Job, Queue, State
from soupcore.jobs.supervisor import Supervisor

__all__ = ["Descriptions", "Job", "Queue", "State", "Supervisor"]
