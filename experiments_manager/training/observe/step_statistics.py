"""What a run tells of itself beside loss and metrics: gradients, time, waiting for data, averages, memory.

Norms of the gradient, and the loss since scalars were last written, belong to the state of the run, so that a resumed
run draws the same curves as one that was never interrupted. Times belong to the process that measured them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from experiments_manager.common.machine.processes import resident_bytes
from experiments_manager.training.observe.gradient_norm import GradientNorm
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.state.progress import RunningMean

MIB = 2**20
UPDATES_BETWEEN_NORMS = 10
"""Of so many updates the gradient of one is measured; of fewer where epochs are shorter or scalars come more often."""


class StepStatistics(NamedTuple):
    """What the compiled loop adds up on the way, in float64 so that it does not matter where a call ends."""

    norms: tf.Tensor
    """Of the gradient's norm, `[4]`: its sum over the epoch and over the steps since scalars were last written, and how
    many norms are in each. Steps that apply nothing, or what is not finite, are not counted."""
    waited: tf.Tensor
    """Seconds for which the steps of this call waited for their batches."""


@dataclasses.dataclass
class StepTiming:
    """Time that some steps took."""

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds of these in which the next batch had not come."""

    def add(self, steps: int, seconds: float, waited: float) -> None:
        """Add a call of the compiled loop."""
        self.steps, self.seconds, self.waited = self.steps + steps, self.seconds + seconds, self.waited + waited

    def values(self) -> dict[str, float]:
        """`step_seconds` and `data_wait_share`; nothing where no call counted."""
        if not self.steps:
            return {}
        return {"step_seconds": self.seconds / self.steps, "data_wait_share": min(1.0, self.waited / self.seconds)}


class Meter:
    """Adds up, from call to call of the compiled loop, what the watchers are told by epoch and by step.

    Args:
        experiment: What is trained; its progress takes up the sums that belong to the state.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        settings = experiment.settings
        self.log_every_steps = settings.log_every_steps if settings.tensorboard else None
        self.gradient_norm: GradientNorm | None = None
        """Measured by the compiled training loop; `None` where it would not be shown."""
        if settings.tensorboard or settings.mlflow:
            updates = [
                max(1, steps // (settings.gradient_accumulation_steps or 1))
                for steps in (experiment.train.steps or 1, self.log_every_steps)
                if steps
            ]
            every = min(UPDATES_BETWEEN_NORMS, *updates)
            self.gradient_norm = GradientNorm(experiment.model, every=every)
        self.ema_distance: float | None = None
        """That of the epoch which ended, where it is known already."""
        self._has_compiled = False
        self._epoch, self._recent, self._seen = StepTiming(), StepTiming(), RunningMean()

    @property
    def statistics(self) -> StepStatistics | tuple[()]:
        """What the next call goes on from."""
        if self.gradient_norm is None:
            return ()
        progress = self._experiment.state.progress
        epoch, recent = progress.epoch_gradient_norm, progress.recent_gradient_norm
        norms = tf.constant([epoch.total, recent.total, epoch.count, recent.count], tf.float64)
        return StepStatistics(norms, tf.constant(0.0, tf.float64))

    def took(self, steps: int, seconds: float, statistics: StepStatistics | tuple[()]) -> None:
        """Take note of a call of so many steps."""
        if not statistics:
            return
        waited = float(statistics.waited)
        in_epoch, in_recent, updates, recent_updates = statistics.norms.numpy().tolist()
        progress = self._experiment.state.progress
        progress.epoch_gradient_norm = RunningMean(in_epoch, int(updates))
        progress.recent_gradient_norm = RunningMean(in_recent, int(recent_updates))
        if not self._has_compiled:  # the first call was compiled, which says nothing about steps
            self._has_compiled = True
            return
        self._epoch.add(steps, seconds, waited)
        self._recent.add(steps, seconds, waited)

    def waited(self, seconds: float) -> None:
        """Take note that a stream had nothing for so long."""
        if self._has_compiled and self.gradient_norm is not None:
            self._epoch.add(0, seconds, seconds)
            self._recent.add(0, seconds, seconds)

    def is_due(self) -> bool:
        """Return whether scalars are to be written at the step reached."""
        return bool(self.log_every_steps) and self._experiment.state.progress.global_step % self.log_every_steps == 0

    def begin_epoch(self) -> None:
        """Forget the epoch before, when a new one is begun at its first step."""
        self._epoch = StepTiming()
        self._experiment.state.progress.epoch_gradient_norm = RunningMean()

    def end_steps(self) -> None:
        """Look at the loss of the epoch's last steps, before the metrics are used for the validation."""
        self._seen = self._loss_so_far() if self.log_every_steps else RunningMean()

    def end_epoch(self) -> None:
        """Keep that loss for the next report, once the validation was not interrupted."""
        progress = self._experiment.state.progress
        progress.recent_loss = progress.recent_loss + self._seen

    def of_epoch(self) -> dict[str, float]:
        """Return what was measured over the epoch, by name."""
        if self.gradient_norm is None:
            return {}
        return self._values(self._experiment.state.progress.epoch_gradient_norm, self._epoch)

    def of_recent_steps(self, logs: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
        """Return what is told by step; the next time it is told of the steps from here on.

        Args:
            logs: Loss and metrics over the epoch so far.

        Returns:
            `logs` with the loss of the steps since the last time, and what was measured in these.
        """
        progress, seen = self._experiment.state.progress, self._loss_so_far()
        loss = progress.recent_loss + seen
        told = dict(logs)
        # Where a `train_step` of the user's tells another loss than Keras counts, theirs is told.
        if loss.count and "loss" in logs and math.isclose(seen.mean, logs["loss"], rel_tol=1e-4):
            told["loss"] = loss.mean
        values = self._values(progress.recent_gradient_norm, self._recent)
        progress.recent_loss = RunningMean(-seen.total, -seen.count)
        progress.recent_gradient_norm, self._recent = RunningMean(), StepTiming()
        return told, values

    def _values(self, gradient_norm: RunningMean, timing: StepTiming) -> dict[str, float]:
        averages = self._experiment.state.averages
        values = {"gradient_norm": gradient_norm.mean} if gradient_norm.count else {}
        values |= timing.values()
        if averages:
            values["ema_distance"] = averages.distance() if self.ema_distance is None else self.ema_distance
            self.ema_distance = None
        return values | memory()

    def _loss_so_far(self) -> RunningMean:
        """Sum of the samples' losses in this epoch, and their number, out of the metric that counts them."""
        for metric in self._experiment.model.metrics:
            if isinstance(metric, keras.metrics.Mean) and metric.name == "loss":
                # Through tensors, since on several devices each holds its share.
                total, count = (float(tf.convert_to_tensor(part)) for part in (metric.total, metric.count))
                if count:
                    return RunningMean(total, count)
        return RunningMean()


def memory() -> dict[str, float]:
    """Memory in MiB: of each GPU in use, now and at its highest; without one, of the process (resident)."""
    gpus = tf.config.list_logical_devices("GPU")
    values: dict[str, float] = {}
    for number in range(len(gpus)):
        info = tf.config.experimental.get_memory_info(f"GPU:{number}")
        values[f"memory_mib/gpu_{number}"] = info["current"] / MIB
        values[f"memory_mib/gpu_{number}_peak"] = info["peak"] / MIB
    return values if gpus else {"memory_mib/process": resident_bytes() / MIB}
