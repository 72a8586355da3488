"""The run folder: layout, manifest, snapshot, provenance, listing and comparison."""

from experiments_manager.runs.errors import RunError
from experiments_manager.runs.folder import Run, create_run, find_run, open_run

__all__ = ["Run", "RunError", "create_run", "find_run", "open_run"]
