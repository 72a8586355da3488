"""What an epoch's result means: better or not, time to lower the learning rate, time to stop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from experiments_manager.settings.monitor_mode import resolved_mode
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.state.progress import Best, TrainingProgress


@dataclasses.dataclass(frozen=True)
class Monitor:
    """The rules by which epochs are compared.

    Attributes:
        name: Of the watched value among an epoch's logs.
        mode: `min` or `max`.
        min_delta: How much better counts as better.
        patience: Epochs without improvement after which training stops; `None` never stops it.
        plateau_patience: Epochs without improvement after which the learning rate is lowered; `None` never.
        plateau_min_delta: How much better counts as better for that; `None` as much as otherwise.
        takes_latest: Whether the latest epoch counts as the best: on a stream whose law may change, what was best once
            is no measure of now.
    """

    name: str
    mode: str
    min_delta: float = 0.0
    patience: int | None = None
    plateau_patience: int | None = None
    plateau_min_delta: float | None = None
    takes_latest: bool = False

    @classmethod
    def make(cls, name: str, mode: str, **rules: float | int | None) -> Monitor:
        """Resolve `mode = "auto"` by the name of what is watched."""
        return cls(name, resolved_mode(name, mode), **rules)

    def is_better(self, value: float, best: Best | None) -> bool:
        """Return whether `value` improves on `best`; NaN never does."""
        if self.takes_latest:
            return math.isfinite(value)
        return self._gains(value, best.value if best else None, self.min_delta)

    def leaves_plateau(self, value: float, best: float | None) -> bool:
        """Return the same for what decides on the learning rate."""
        return self._gains(value, best, self.min_delta if self.plateau_min_delta is None else self.plateau_min_delta)

    def _gains(self, value: float, best: float | None, min_delta: float) -> bool:
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        gain = best - value if self.mode == "min" else value - best
        return gain > min_delta

    def watched(self, logs: Mapping[str, float]) -> float:
        """Return the watched value.

        Raises:
            TrainingError: If it is not among the logs.
        """
        if self.name not in logs:
            raise TrainingError(
                f"monitor: `{self.name}` is not among the values of an epoch. "
                f"Expected one of {', '.join(sorted(logs))}. Set `monitor` to one of these."
            )
        return float(logs[self.name])


@dataclasses.dataclass(frozen=True)
class Decision:
    """What follows from an epoch."""

    improved: bool
    lower_learning_rate: bool
    stop_reason: str | None


def decide(monitor: Monitor, progress: TrainingProgress, logs: Mapping[str, float], unit: str = "epoch") -> Decision:
    """Compare the epoch that ended with the best so far, and update the counters in `progress`.

    Args:
        monitor: The rules.
        progress: Its `epoch` and `global_step` are those after the epoch; `best` and the counters are updated.
        logs: The epoch's values.
        unit: What an epoch is called in the reason to stop.

    Returns:
        The decision.
    """
    value = monitor.watched(logs)
    lower = _plateau_is_long(monitor, progress, value)
    if monitor.is_better(value, progress.best):
        progress.best = Best(value, progress.epoch, progress.global_step)
        progress.epochs_without_improvement = 0
        return Decision(improved=True, lower_learning_rate=lower, stop_reason=None)
    progress.epochs_without_improvement += 1
    reason = None
    if monitor.patience is not None and progress.epochs_without_improvement >= monitor.patience:
        where = f"; best {progress.best.value:.6g} in {unit} {progress.best.epoch}" if progress.best else ""
        reason = f"{monitor.name} has not improved for {progress.epochs_without_improvement} {unit}s{where}"
    return Decision(improved=False, lower_learning_rate=lower, stop_reason=reason)


def _plateau_is_long(monitor: Monitor, progress: TrainingProgress, value: float) -> bool:
    """Count the epochs on the plateau, and say whether it is time to lower the learning rate."""
    best = progress.plateau_best
    if best is None and progress.best is not None:  # the checkpoint was written before there was a value of its own
        best = progress.best.value
    if monitor.leaves_plateau(value, best):
        progress.plateau_best, progress.epochs_on_plateau = value, 0
        return False
    progress.plateau_best = best
    progress.epochs_on_plateau += 1
    if monitor.plateau_patience is None or progress.epochs_on_plateau < monitor.plateau_patience:
        return False
    progress.epochs_on_plateau = 0
    return True
