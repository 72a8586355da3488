"""The run folder: layout, manifest, snapshot, provenance, listing and comparison."""

from experiments_manager.runs.compare import Comparison, compare_runs, differing
from experiments_manager.runs.errors import RunError
from experiments_manager.runs.folder import create_run, find_run, open_run
from experiments_manager.runs.listing import RunRow, list_runs
from experiments_manager.runs.locking import RunLock, lock
from experiments_manager.runs.run import Run

__all__ = [
    "Comparison",
    "Run",
    "RunError",
    "RunLock",
    "RunRow",
    "compare_runs",
    "create_run",
    "differing",
    "find_run",
    "list_runs",
    "lock",
    "open_run",
]
