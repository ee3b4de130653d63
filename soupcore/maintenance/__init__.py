"""Maintenance of workspaces: checks, repair, sizes, pruning, backups, export and import.

`python -m soupcore.maintenance --help` lists the commands.
"""

from soupcore.maintenance.archives import backup, export_results, import_results
from soupcore.maintenance.pruning import PRUNED, Leftover, Size, prune, sizes, unused
from soupcore.maintenance.repairing import Problem, check, repair

__all__ = [
    "PRUNED",
    "Leftover",
    "Problem",
    "Size",
    "backup",
    "check",
    "export_results",
    "import_results",
    "prune",
    "repair",
    "sizes",
    "unused",
]
