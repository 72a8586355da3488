"""Training with the run folder on a slow shared file system, against one on a fast disk, side by side.

    python tools/bench/slow_disk.py [--rounds 3] [--epochs 12] [--samples 16000] [--milliseconds 20]

On the slow disk (`tools/slow_disk.py`, a FUSE file system) each call takes 20 ms: lookup, `stat`, `open`, each `write`,
`fsync`, `rename`; many calls may wait at the same time. The CNN of `training.py` is trained as a user would:
averaged weights, checkpoints, metrics.csv, TensorBoard, exported versions. Each training is a process of its own;
fast and slow ones alternate. An epoch's time is the median of the times from the end of one epoch to the end of the
next, after the first two; the ratio is the median over the rounds. What comes before the first and after the last
epoch is told apart, and so are the calls to the slow disk that training itself made between two epochs: each would hold
it up. Both sides must have come to the same weights and written the same metrics.csv, byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SLOW_DISK = Path(__file__).parents[1] / "slow_disk.py"
LOG = "calls.log"


@contextlib.contextmanager
def mounted(folder: Path, milliseconds: float) -> Iterator[Path]:
    """Give a folder of which each call waits."""
    source, shown = folder / "source", folder / "slow"
    source.mkdir()
    shown.mkdir()
    options = [f"--milliseconds={milliseconds}", f"--log={folder / LOG}"]
    process = subprocess.Popen([sys.executable, SLOW_DISK, source, shown, *options])
    try:
        while not shown.is_mount():
            if process.poll() is not None:
                raise SystemExit("The slow disk could not be mounted. Is /dev/fuse there, and libfuse2 and fusepy?")
            time.sleep(0.05)
        yield shown
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def train(settings: Path, working_dir: Path, options: argparse.Namespace) -> None:
    """Train in this process; print the moments of it as JSON."""
    from experiments_manager import api
    from experiments_manager.events import EpochReport, RunStart, Watcher

    class Moments(Watcher):
        started, ends = 0.0, ()

        def on_start(self, start: RunStart) -> None:
            self.started = time.monotonic()

        def on_epoch(self, report: EpochReport) -> None:
            self.ends = (*self.ends, time.monotonic())

    moments, overrides = Moments(), [f"epochs={options.epochs}", f"hparams.samples={options.samples}"]
    import tensorflow as tf

    tf.constant(0)
    began = time.monotonic()
    result = api.train(settings, overrides=overrides, working_dir=working_dir, watchers=[moments], quiet=True)
    over = time.monotonic()
    gaps = [later - earlier for earlier, later in zip(moments.ends[1:], moments.ends[2:], strict=False)]
    told = {"start": moments.started - began, "epoch": statistics.median(gaps), "mean": statistics.mean(gaps)}
    told |= {"end": over - moments.ends[-1], "ends": moments.ends, "thread": threading.get_native_id()}
    told |= {"metrics": (result.run_dir / "metrics.csv").read_text(), "weights": weights_of(result.run_dir)}
    print(json.dumps(told))


def weights_of(run_dir: Path) -> str:
    """Return a checksum of all variables of the last state."""
    from experiments_manager.training.state.checkpoints import read_latest

    tensors = read_latest(run_dir / "checkpoints")[1].tensors
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def calls_of_loop(log: Path, told: dict[str, Any]) -> list[str]:
    """Return what the thread that trains asked of the slow disk from the end of the first epoch to that of the last."""
    first, last = told["ends"][0], told["ends"][-1]
    calls = (line.split(" ", 2) for line in log.read_text().splitlines())
    return [call for moment, thread, call in calls if int(thread) == told["thread"] and first < float(moment) < last]


def measured(settings: Path, working_dir: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train in another process; return the moments of it."""
    given = [f"--epochs={options.epochs}", f"--samples={options.samples}"]
    command = [sys.executable, __file__, "--train", str(settings), str(working_dir), *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--samples", type=int, default=16000)
    parser.add_argument("--milliseconds", type=float, default=20.0)
    parser.add_argument("--train", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(*options.train, options)
        return 0
    with tempfile.TemporaryDirectory(prefix="slow_disk") as name, mounted(Path(name), options.milliseconds) as slow:
        from training import CNN

        fast, settings = Path(name, "fast"), Path(name, "mysettings.py")
        settings.write_text(CNN)
        rounds = []
        for _ in range(options.rounds):
            pair = [measured(settings, disk, options) for disk in (fast, slow)]
            for what in ("metrics", "weights"):
                if pair[0][what] != pair[1][what]:
                    raise SystemExit(f"The two trainings came to different {what}.")
            rounds.append(pair)
            calls = calls_of_loop(slow.with_name(LOG), pair[1])
            print("  ".join([*_words(*pair), f"calls of the loop: {len(calls)}"]), flush=True)
            print("".join(f"    {call}\n" for call in calls), end="")
    for part in ("epoch", "mean"):
        ratio = statistics.median(on_slow[part] / on_fast[part] for on_fast, on_slow in rounds)
        wait = statistics.median(on_slow[part] - on_fast[part] for on_fast, on_slow in rounds)
        print(f"{part}: ratio of medians {ratio:.3f}; it waits {1000 * wait:.0f} ms")
    return 0


def _words(fast: dict[str, Any], slow: dict[str, Any]) -> list[str]:
    return [f"{part}: fast {fast[part]:.3f} s, slow {slow[part]:.3f} s" for part in ("start", "epoch", "mean", "end")]


if __name__ == "__main__":
    sys.exit(main())
