"""The store of evaluations, results, soups and inner products.

Rows are in a database (by default SQLite in the workspace), arrays beside it as safetensors files
(see `soupcore.store.arrays`). Rows are written in one transaction after their arrays are on disk. A
killed process therefore loses only what it had not added yet, and a power cut at most the last
transactions, which are lost as a whole.
"""

from soupcore.store.evaluations import EvaluationStore, NewEvaluation
from soupcore.store.soups import SoupStore

__all__ = ["NewEvaluation", "Store"]


class Store(EvaluationStore, SoupStore):
    """Stores evaluations, results and soups. Any number of processes may use it at once.

    Attributes:
        folder: Folder of arrays and soups.
        url: URL of the database.
        is_read_only: Whether the folder is read-only; then methods that write raise ReadOnlyError.
        notes: Messages about files found to be damaged since the store was opened.
        holder: Holds the points that this process evaluates.

    Args:
        folder: Folder of arrays and soups; by default the workspace.
        url: Database URL in SQLAlchemy's format, for example of a PostgreSQL that a team shares
            (its members must share the folder too). By default SQLite in the folder.
        read_only: Change nothing, even if the folder is writable.
    """
