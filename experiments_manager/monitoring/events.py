"""The records that the training loop hands out, under the room that shows them."""

from experiments_manager.training.events import EpochReport, Progress, RunEnd, RunStart, VersionPublished, Watcher

__all__ = ["EpochReport", "Progress", "RunEnd", "RunStart", "VersionPublished", "Watcher"]
