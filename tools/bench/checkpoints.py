"""What a checkpoint every 20 steps costs the training of a CNN, in one and the same run.

    python tools/bench/checkpoints.py [--blocks 16] [--every 20] [--feed arrays|tf.data]

The CNN of `training.py` (batch 128, 8,000 images of 28x28) is trained once. Blocks of three epochs with checkpoints and
blocks without any alternate; the first epoch of each block, in which the last write of the block before may still be
going on, is not counted. Each block with checkpoints is compared with its two neighbours, since the load of a machine
drifts, and the median of these ratios is taken: of the seconds that went by, and of those that the processor worked,
over all cores, which other processes hardly disturb.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from training import COMPILING_EPOCHS, settings_for

from experiments_manager.events import Watcher
from experiments_manager.training.engine import loop, step_hooks
from experiments_manager.training.engine.context import RunOptions
from experiments_manager.training.engine.runner import start_run

EPOCHS_A_BLOCK = 3
BAR = 1.05


class Alternation(Watcher):
    """Switches checkpoints on and off from block to block, and times the epochs of each."""

    def __init__(self, settings, every: int) -> None:
        self._settings, self._every = settings, every
        self._ended = np.full(2, math.nan)
        self.blocks: list[list[np.ndarray]] = []
        """Seconds, and seconds of the processor, of the epochs that count; the second, fourth, … block writes."""

    def on_epoch(self, report) -> None:
        now = clocks()
        number = report.epoch - 1 - COMPILING_EPOCHS
        if number >= 0 and number % EPOCHS_A_BLOCK:
            self.blocks[-1].append(now - self._ended)
        if (number + 1) % EPOCHS_A_BLOCK == 0 and number >= -1:
            self.blocks.append([])
            self._settings.checkpoint_every_steps = self._every if len(self.blocks) % 2 == 0 else None
        self._ended = clocks()


def clocks() -> np.ndarray:
    """Return seconds, and seconds that the processor worked for this process."""
    return np.array([time.perf_counter(), time.process_time()])


def time_pauses() -> list[float]:
    """Note, in the list that it gives, the seconds for which each checkpoint halts the loop."""
    pauses: list[float] = []
    checkpoint = step_hooks.checkpoint

    def timed(context) -> None:
        began = time.perf_counter()
        checkpoint(context)
        pauses.append(time.perf_counter() - began)

    step_hooks.checkpoint = timed
    return pauses


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--feed", choices=("arrays", "tf.data"), default="arrays")
    options = parser.parse_args()
    loop.SECONDS_BETWEEN_EPOCH_CHECKPOINTS = math.inf  # the blocks without checkpoints shall write none at all
    pauses = time_pauses()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        epochs = COMPILING_EPOCHS + EPOCHS_A_BLOCK * (options.blocks + 1)
        settings = settings_for("cnn", options.feed, folder, epochs=epochs, export=False, checkpoint_every_minutes=None)
        alternation = Alternation(settings, options.every)
        start_run(settings, working_dir=folder / "runs", options=RunOptions(lambda *_: [alternation]))
    blocks = np.array([np.median(block, axis=0) for block in alternation.blocks[: options.blocks + 1] if block])
    without, written = blocks[0::2], blocks[1::2]
    ratios = 2 * written / (without[:-1] + without[1:])
    seconds, cpu = np.median(ratios, axis=0)
    print(f"pause of the loop      {statistics.median(pauses) * 1e3:8.2f} ms a checkpoint (median of {len(pauses)})")
    for name, number in (("seconds", 0), ("CPU", 1)):
        print(f"an epoch, {name:<8}     {np.median(without[:, number]) * 1e3:8.1f} ms without checkpoints, "
              f"{np.median(written[:, number]) * 1e3:.1f} ms with one every {options.every} steps")  # fmt: skip
    print(f"ratio to neighbours    {seconds:8.3f} (CPU {cpu:.3f}; medians of {len(ratios)}; bar {BAR})")
    sys.exit(0 if seconds <= BAR else 1)


if __name__ == "__main__":
    main()
