"""All who are told of the rounds of a run."""

from __future__ import annotations

from experiments_manager.federated.watching.round_watcher import RoundWatcher
from experiments_manager.training.engine.context import TrainingContext


def round_watchers(context: TrainingContext) -> list[RoundWatcher]:
    """Return who is told of the rounds of this run."""
    return []
