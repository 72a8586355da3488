"""What logging everything for TensorBoard costs the training of a CNN, in one and the same run.

    python tools/bench/watching.py [--epochs 121] [--every 10] [--case cnn|regression] [--feed arrays|tf.data]

The CNN of `training.py` (batch 128, 8,000 images of 28x28) is trained once. Epochs that log (all scalars by epoch and,
every so many steps, by step: loss, metrics, learning rate, gradient norm, step time, wait for data, distance of the
averages, memory) alternate with epochs that run as with `tensorboard = False`. Each epoch that logs is compared with
its two neighbours, since the load of a machine drifts, and the median of these ratios is taken, with the interval that
holds it in 95 of 100 repetitions (bootstrap): of the seconds that went by, and of those that the processor worked, over
all cores, which other processes hardly disturb. The same is done with `--control`, where no epoch logs: it shows how
far from 1 chance alone brings the ratio.

Before that, a run that logs and one with `tensorboard = False` must end with the same state, bit for bit.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from training import COMPILING_EPOCHS, settings_for

from experiments_manager.events import Watcher
from experiments_manager.monitoring.tensorboard.scalars import TensorBoardLogs
from experiments_manager.runs import open_run
from experiments_manager.training.engine import loop, runner
from experiments_manager.training.engine.context import RunOptions, TrainingContext
from experiments_manager.training.engine.steps import CompiledLoop
from experiments_manager.training.observe.step_statistics import Meter
from experiments_manager.training.state.checkpoints import read_latest

WARM_UP = 2 * COMPILING_EPOCHS
BAR = 1.03


class Alternation(Watcher):
    """Switches logging on and off from epoch to epoch, and times each."""

    def __init__(self, settings, *, control: bool) -> None:
        self._settings, self._control = settings, control
        self._modes: list[tuple] = []
        self._ended = np.full(2, math.nan)
        self.epochs: list[np.ndarray] = []
        """Seconds, and seconds of the processor; the first, third, … epoch runs without logging."""

    def take_over(self, context: TrainingContext) -> None:
        """Make the loop of a run without TensorBoard too, beside the one that it has."""
        self._context = context
        logs = [watcher for watcher in context.watchers if isinstance(watcher, TensorBoardLogs)]
        measured = (context.loops.train, context.meter, logs)
        self._settings.tensorboard = False
        self._modes = [self._unmeasured(), self._unmeasured() if self._control else measured]

    def _unmeasured(self) -> tuple:
        experiment = self._context.experiment
        return CompiledLoop.for_training(experiment), Meter(experiment), []

    def on_epoch(self, report) -> None:
        now = clocks()
        if report.epoch > WARM_UP:
            self.epochs.append(now - self._ended)
        context = self._context
        context.loops.train, context.meter, logs = self._modes[report.epoch % 2]
        context.watchers[:] = [
            watcher for watcher in context.watchers if not isinstance(watcher, TensorBoardLogs)
        ] + logs
        self._ended = clocks()


def clocks() -> np.ndarray:
    """Return seconds, and seconds that the processor worked for this process."""
    return np.array([time.perf_counter(), time.process_time()])


def hand_over(alternation: Alternation) -> None:
    """Let the alternation see the context before the run starts."""
    make = TrainingContext.make

    def making(*arguments) -> TrainingContext:
        context = make(*arguments)
        alternation.take_over(context)
        return context

    TrainingContext.make = making


def tensorboard(run, settings) -> list[Watcher]:
    """Return TensorBoard's watcher as `train` has it, histograms off."""
    return [TensorBoardLogs(run.logs_dir, by_step=True)] if settings.tensorboard else []


def check_equal(case: str, feed: str, folder: Path, every: int) -> int:
    """Train with and without logging, compares the final states bit by bit, and return how many tensors they hold."""
    states = []
    for logs in (True, False):
        settings = settings_for(case, feed, folder, epochs=3, export=False, tensorboard=logs, log_every_steps=every)
        result = runner.start_run(settings, working_dir=folder / "equal", options=RunOptions(make_watchers=tensorboard))
        snapshot = read_latest(open_run(result.run_dir).checkpoints_dir)[1]
        states.append({name: value.numpy() for name, value in snapshot.tensors.items()})
    names = [name for name in states[0] if states[0][name].tobytes() != states[1][name].tobytes()]
    if names or states[0].keys() != states[1].keys():
        sys.exit(f"{case}, {feed}: logging changed {', '.join(names)}")
    return len(states[0])


def interval(ratios: np.ndarray) -> np.ndarray:
    """Return the range in which the median lies in 95 of 100 samples drawn from these, `[2, columns]`."""
    drawn = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    return np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5], axis=0)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=121)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--case", choices=("cnn", "regression"), default="cnn")
    parser.add_argument("--feed", choices=("arrays", "tf.data"), default="arrays")
    parser.add_argument("--control", action="store_true", help="log nothing: the ratio should be 1")
    options = parser.parse_args()
    loop.SECONDS_BETWEEN_EPOCH_CHECKPOINTS = math.inf  # no checkpoint shall disturb an epoch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tensors = check_equal(options.case, options.feed, folder, options.every)
        overrides = {"epochs": WARM_UP + options.epochs, "export": False, "checkpoint_every_minutes": None}
        settings = settings_for(options.case, options.feed, folder, log_every_steps=options.every, **overrides)
        alternation = Alternation(settings, control=options.control)
        hand_over(alternation)
        runner.start_run(
            settings,
            working_dir=folder / "runs",
            options=RunOptions(make_watchers=lambda run, settings: [*tensorboard(run, settings), alternation]),
        )
    # The mode of an epoch is set at the end of the one before: even warm-up, so the first one counted is `_modes[0]`.
    epochs = np.array(alternation.epochs[: len(alternation.epochs) - (len(alternation.epochs) + 1) % 2])
    without, logged = epochs[0::2], epochs[1::2]
    ratios = 2 * logged / (without[:-1] + without[1:])
    seconds, cpu = np.median(ratios, axis=0)
    (seconds_low, cpu_low), (seconds_high, cpu_high) = interval(ratios)
    print(f"final state            {tensors} tensors, equal bit for bit with and without logging")
    for name, number in (("seconds", 0), ("CPU", 1)):
        print(f"an epoch, {name:<8}     {np.median(without[:, number]) * 1e3:8.1f} ms without TensorBoard, "
              f"{np.median(logged[:, number]) * 1e3:.1f} ms with all scalars every {options.every} steps")  # fmt: skip
    print(f"ratio, seconds         {seconds:8.3f} ({seconds_low:.3f} to {seconds_high:.3f}; bar {BAR})")
    print(f"ratio, CPU             {cpu:8.3f} ({cpu_low:.3f} to {cpu_high:.3f}; medians of {len(ratios)})")
    sys.exit(0 if seconds <= BAR else 1)


if __name__ == "__main__":
    main()
