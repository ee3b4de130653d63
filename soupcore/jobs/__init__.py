"""Jobs: a persistent queue, worker processes, progress, cancellation and resuming."""

from soupcore.jobs.descriptions import Descriptions
from soupcore.jobs.job import Job, State
from soupcore.jobs.queue import Queue
from soupcore.jobs.supervisor import Supervisor

__all__ = ["Descriptions", "Job", "Queue", "State", "Supervisor"]
