"""What all sessions share: the store, and the supervisor of the workers."""

from functools import cache

from pages.components import settings
from soupcore import Store
from soupcore.jobs import Supervisor


@cache
def store() -> Store:
    """Return the store in the workspace, with its database where the start said."""
    return Store(url=settings.current().database)


@cache
def supervisor() -> Supervisor:
    """Return the supervisor of this server's workers."""
    known = settings.current()
    return Supervisor(store(), known.tasks, known.devices)
