"""What logging everything for TensorBoard costs the training of a CNN, in one and the same run.

    python tools/bench/watching.py [--blocks 24] [--every 10] [--case cnn|regression] [--feed arrays|tf.data]

The CNN of `training.py` (batch 128, 8,000 images of 28x28) is trained once. Blocks of three epochs that log (all
scalars by epoch and, every so many steps, by step: loss, metrics, learning rate, gradient norm, step time, wait for
data, distance of the averages, memory) and blocks that run as with `tensorboard = False` alternate; the first epoch of
each block, in which the loop may be compiled, is not counted. Each block that logs is compared with its two neighbours,
since the load of a machine drifts, and the median of these ratios is taken: of the seconds that went by, and of those
that the processor worked, over all cores, which other processes hardly disturb.

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

from experiments_manager.monitoring.tensorboard import TensorBoardLogs
from experiments_manager.runs import open_run
from experiments_manager.training import loop, runner
from experiments_manager.training.checkpoints import read_latest
from experiments_manager.training.events import Watcher
from experiments_manager.training.job import Job
from experiments_manager.training.measuring import Meter
from experiments_manager.training.steps import CompiledLoop, train_one

EPOCHS_A_BLOCK = 3
BAR = 1.03


class Alternation(Watcher):
    """Switches logging on and off from block to block, and times the epochs of each."""

    def __init__(self, settings) -> None:
        self._settings = settings
        self._ended = np.full(2, math.nan)
        self._modes: list[tuple] = []
        self.blocks: list[list[np.ndarray]] = []
        """Seconds, and seconds of the processor, of the epochs that count; the second, fourth, … block logs."""

    def take_over(self, job: Job) -> None:
        """Compiles the loop of a run without TensorBoard too, beside the one that the job has."""
        self._job, experiment = job, job.experiment
        logs = [watcher for watcher in job.watchers if isinstance(watcher, TensorBoardLogs)]
        self._settings.tensorboard = False
        one = train_one(experiment.model, experiment.state.step, experiment.state.averages, experiment.class_weight)
        self._modes = [
            (CompiledLoop(experiment.model, one, experiment.train), Meter(experiment), []),
            (job.train_steps, job.meter, logs),
        ]

    def on_epoch(self, report) -> None:
        now = clocks()
        number = report.epoch - 1 - COMPILING_EPOCHS
        if number >= 0 and number % EPOCHS_A_BLOCK:
            self.blocks[-1].append(now - self._ended)
        if (number + 1) % EPOCHS_A_BLOCK == 0 and number >= -1:
            self.blocks.append([])
            self._switch()
        self._ended = clocks()

    def _switch(self) -> None:
        is_on = bool(self.blocks) and len(self.blocks) % 2 == 0
        job = self._job
        job.train_steps, job.meter, logs = self._modes[is_on]
        job.watchers[:] = [watcher for watcher in job.watchers if not isinstance(watcher, TensorBoardLogs)] + logs


def clocks() -> np.ndarray:
    """Seconds, and seconds that the processor worked for this process."""
    return np.array([time.perf_counter(), time.process_time()])


def hand_over(alternation: Alternation) -> None:
    """Lets the alternation see the job before the run starts."""
    make = runner._make_job

    def making(*arguments) -> Job:
        job = make(*arguments)
        alternation.take_over(job)
        return job

    runner._make_job = making


def tensorboard(run, settings) -> list[Watcher]:
    """As `train` has it, histograms off."""
    return [TensorBoardLogs(run.logs_dir, by_step=True)] if settings.tensorboard else []


def check_equal(case: str, feed: str, folder: Path, every: int) -> int:
    """Trains with and without logging, compares the final states bit by bit, and gives how many tensors they hold."""
    states = []
    for logs in (True, False):
        settings = settings_for(case, feed, folder, epochs=3, export=False, tensorboard=logs, log_every_steps=every)
        result = runner.start_run(settings, working_dir=folder / "equal", make_watchers=tensorboard)
        snapshot = read_latest(open_run(result.run_dir).checkpoints_dir)[1]
        states.append({name: value.numpy() for name, value in snapshot.tensors.items()})
    names = [name for name in states[0] if states[0][name].tobytes() != states[1][name].tobytes()]
    if names or states[0].keys() != states[1].keys():
        sys.exit(f"{case}, {feed}: logging changed {', '.join(names)}")
    return len(states[0])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--case", choices=("cnn", "regression"), default="cnn")
    parser.add_argument("--feed", choices=("arrays", "tf.data"), default="arrays")
    options = parser.parse_args()
    loop.SECONDS_BETWEEN_EPOCH_CHECKPOINTS = math.inf  # no checkpoint shall disturb a block
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tensors = check_equal(options.case, options.feed, folder, options.every)
        epochs = COMPILING_EPOCHS + EPOCHS_A_BLOCK * (options.blocks + 1)
        overrides = {"epochs": epochs, "export": False, "checkpoint_every_minutes": None}
        settings = settings_for(options.case, options.feed, folder, log_every_steps=options.every, **overrides)
        alternation = Alternation(settings)
        hand_over(alternation)
        runner.start_run(
            settings,
            working_dir=folder / "runs",
            make_watchers=lambda run, settings: [*tensorboard(run, settings), alternation],
        )
    blocks = np.array([np.median(block, axis=0) for block in alternation.blocks[: options.blocks + 1] if block])
    without, logged = blocks[0::2], blocks[1::2]
    without, logged = without[: len(logged) + 1], logged[: len(without) - 1]
    ratios = 2 * logged / (without[:-1] + without[1:])
    seconds, cpu = np.median(ratios, axis=0)
    print(f"final state            {tensors} tensors, equal bit for bit with and without logging")
    for name, number in (("seconds", 0), ("CPU", 1)):
        print(f"an epoch, {name:<8}     {np.median(without[:, number]) * 1e3:8.1f} ms without TensorBoard, "
              f"{np.median(logged[:, number]) * 1e3:.1f} ms with all scalars every {options.every} steps")  # fmt: skip
    print(f"ratio to neighbours    {seconds:8.3f} (CPU {cpu:.3f}; medians of {len(ratios)}; bar {BAR})")
    sys.exit(0 if seconds <= BAR else 1)


if __name__ == "__main__":
    main()
