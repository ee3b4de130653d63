"""Jobs: a persistent queue, worker processes, progress, cancellation and resuming."""

from soupcore.jobs.descriptions import Descriptions
from soupcore.jobs.queue import Job, Queue, State
from soupcore.jobs.supervisor import Supervisor

__all__ = ["Descriptions", "Job", "Queue", "State", "Supervisor"]
