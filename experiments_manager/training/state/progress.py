"""How far a run is and how good it was: the plain numbers of its state."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class Best:
    """The best value of the watched quantity, and where it was reached."""

    value: float
    epoch: int
    """Counted from 1."""
    step: int
    """Global step, which is also the version that was exported with these weights."""


@dataclasses.dataclass
class RunningMean:
    """A mean in the making."""

    total: float = 0.0
    count: float = 0

    @property
    def mean(self) -> float:
        """NaN where nothing was counted."""
        return self.total / self.count if self.count else float("nan")

    def __add__(self, other: RunningMean) -> RunningMean:
        return RunningMean(self.total + other.total, self.count + other.count)


_SUMS = ("epoch_gradient_norm", "recent_gradient_norm", "recent_loss")


@dataclasses.dataclass
class TrainingProgress:
    """Everything about a run that is a number or a name; written to checkpoints as JSON."""

    epoch: int = 0
    """Completed epochs, which is also the index of the current one."""
    step: int = 0
    """Steps done in the current epoch."""
    begun: bool = False
    """Whether metrics were reset and callbacks told of the current epoch."""
    global_step: int = 0
    best: Best | None = None
    epochs_without_improvement: int = 0
    """What early stopping counts."""
    epochs_on_plateau: int = 0
    """What the reduction of the learning rate counts; begins again with each reduction."""
    plateau_best: float | None = None
    """The value from which it counts improvements."""
    stop_reason: str | None = None
    """Why training is over before its last epoch, or `None`."""
    last_logs: dict[str, float] = dataclasses.field(default_factory=dict)
    """Values of the last completed epoch."""
    last_version: int | None = None
    """Newest version that was handed to the publisher."""
    reloads: int = 0
    """How often training went back to a checkpoint because the loss was no longer finite."""
    epoch_gradient_norm: RunningMean = dataclasses.field(default_factory=RunningMean)
    """Norms of the gradient since the epoch began, where they are measured."""
    recent_gradient_norm: RunningMean = dataclasses.field(default_factory=RunningMean)
    """The same since scalars were last written by step."""
    recent_loss: RunningMean = dataclasses.field(default_factory=RunningMean)
    """What to add to the losses of this epoch's samples to have those since scalars were last written by step."""

    running_loss: float | None = None
    """Mean of the losses of the epochs on a live stream, the later ones weighing more; `None` before the first."""

    def reached(self, monitor: str) -> dict[str, Any]:
        """Return how far the run is, as run.json and all who are told of it have it.

        Args:
            monitor: Name of the watched value.
        """
        return {
            "epochs": self.epoch,
            "global_step": self.global_step,
            "metrics": dict(self.last_logs),
            "best": self.best and {**dataclasses.asdict(self.best), "name": monitor},
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrainingProgress:
        """Make the progress of what `to_json` returned."""
        best = data.get("best")
        sums = {name: RunningMean(**data[name]) for name in _SUMS if name in data}
        return cls(**{**data, "best": Best(**best) if best else None, **sums})
