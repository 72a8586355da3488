"""What an epoch's result means: better or not, time to lower the learning rate, time to stop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from experiments_manager.settings.monitoring import resolved_mode
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.progress import Best, TrainingProgress


@dataclasses.dataclass(frozen=True)
class Judge:
    """The rules by which epochs are compared.

    Attributes:
        monitor: Name of the watched value among an epoch's logs.
        mode: `min` or `max`.
        min_delta: How much better counts as better.
        patience: Epochs without improvement after which training stops; `None` never stops it.
        plateau_patience: Epochs without improvement after which the learning rate is lowered; `None` never.
    """

    monitor: str
    mode: str
    min_delta: float = 0.0
    patience: int | None = None
    plateau_patience: int | None = None

    @classmethod
    def make(cls, monitor: str, mode: str, **rules: float | int | None) -> Judge:
        """Resolves `mode = "auto"` by the name of what is watched."""
        return cls(monitor, resolved_mode(monitor, mode), **rules)

    def is_better(self, value: float, best: Best | None) -> bool:
        """Whether `value` improves on `best`; NaN never does."""
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        gain = best.value - value if self.mode == "min" else value - best.value
        return gain > self.min_delta

    def watched(self, logs: Mapping[str, float]) -> float:
        """Returns the watched value.

        Raises:
            TrainingError: If it is not among the logs.
        """
        if self.monitor not in logs:
            raise TrainingError(
                f"monitor: `{self.monitor}` is not among the values of an epoch. "
                f"Expected one of {', '.join(sorted(logs))}. Set `monitor` to one of these."
            )
        return float(logs[self.monitor])


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What follows from an epoch."""

    improved: bool
    lower_learning_rate: bool
    stop_reason: str | None


def judge_epoch(judge: Judge, progress: TrainingProgress, logs: Mapping[str, float]) -> Verdict:
    """Compares the epoch that ended with the best so far and counts on in `progress`.

    Args:
        judge: The rules.
        progress: Its `epoch` and `global_step` are those after the epoch; `best` and the counters are updated.
        logs: The epoch's values.

    Returns:
        The verdict.
    """
    value = judge.watched(logs)
    if judge.is_better(value, progress.best):
        progress.best = Best(value, progress.epoch, progress.global_step)
        progress.epochs_without_improvement = progress.epochs_on_plateau = 0
        return Verdict(improved=True, lower_learning_rate=False, stop_reason=None)
    progress.epochs_without_improvement += 1
    progress.epochs_on_plateau += 1
    lower = judge.plateau_patience is not None and progress.epochs_on_plateau >= judge.plateau_patience
    if lower:
        progress.epochs_on_plateau = 0
    reason = None
    if judge.patience is not None and progress.epochs_without_improvement >= judge.patience:
        where = f"; best {progress.best.value:.6g} in epoch {progress.best.epoch}" if progress.best else ""
        reason = f"{judge.monitor} has not improved for {progress.epochs_without_improvement} epochs{where}"
    return Verdict(improved=False, lower_learning_rate=lower, stop_reason=reason)
