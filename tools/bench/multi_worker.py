"""Throughput of two processes of one core each against one process with two, on the same training.

    python tools/bench/multi_worker.py [--epochs 8] [--rounds 3]

The CNN of `training.py` (batch 128, 8,000 images of 28x28) is trained once by one process that may use cores 0 and 1,
and once by two processes of `MultiWorkerMirroredStrategy`, one on each of these cores, which speak to each other over
the loopback address. Before anything is timed, the losses of both after an epoch must agree to 1e-4, without dropout,
of which each process draws other numbers. Rounds alternate, and so does who comes first. The time of an epoch
(training and validation) is the median over a run after its first two epochs, which compile; the ratio is the median
over rounds. It fails where the two processes come to less than 0.9 of the throughput. It needs Linux, and a machine
that does nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WANTED = 0.9
COMPILING_EPOCHS = 2
TOLERANCE = 1e-4
STRATEGY = '\nstrategy = "MultiWorkerMirroredStrategy"\ntensorboard = False\nexport = False\nfigures = False\n'


def main() -> int:
    """Measure, print, and return 1 where it is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", nargs=2, metavar=("SETTINGS", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        return train(*given.train, given.epochs)
    from training import CNN

    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        checked, settings = Path(folder, "mysettings_checked.py"), Path(folder, "mysettings_cnn.py")
        checked.write_text(CNN.replace("layers.Dropout(0.25), ", "") + STRATEGY, encoding="utf-8")
        settings.write_text(CNN + STRATEGY, encoding="utf-8")
        require_same_losses(checked)
        for number in range(given.rounds):
            sides = [[{0, 1}], [{0}, {1}]]
            times = {len(cores): measured(settings, cores, number, given.epochs) for cores in sides[:: (-1) ** number]}
            one, two = (statistics.median(times[workers][COMPILING_EPOCHS:]) for workers in (1, 2))
            ratios.append(one / two)
            print(f"one process {one:.2f} s an epoch, two {two:.2f} s: {ratios[-1]:.2f} of the throughput", flush=True)
    ratio = statistics.median(ratios)
    print(f"median of {given.rounds}: {ratio:.2f} (at least {WANTED} wanted)")
    return 0 if ratio >= WANTED else 1


def train(settings: str, name: str, epochs: int) -> int:
    """Train in this process, and print the seconds of each epoch where it is the chief."""
    from experiments_manager import api
    from experiments_manager.events import Watcher

    class Clock(Watcher):
        def on_epoch(self, report) -> None:
            print(report.seconds, *(report.logs[name] for name in ("loss", "val_loss")), flush=True)

    changes = {"epochs": epochs}
    api.train(
        settings, overrides=changes, working_dir=Path(settings).parent, run_name=name, watchers=[Clock()], quiet=True
    )
    return 0


def require_same_losses(settings: Path) -> None:
    """Train an epoch by one process and by two, and end where their losses differ."""
    one, two = (printed(settings, cores, "check", 1)[0][1:] for cores in ([{0, 1}], [{0}, {1}]))
    print(f"loss and validation loss after an epoch: one process {one}, two {two}", flush=True)
    if any(abs(mine - other) > TOLERANCE for mine, other in zip(one, two, strict=True)):
        raise SystemExit(f"They differ by more than {TOLERANCE}: there is nothing to compare.")


def measured(settings: Path, cores: list[set[int]], number: int, epochs: int) -> list[float]:
    """Return the seconds of each epoch."""
    return [seconds for seconds, *_ in printed(settings, cores, number, epochs)]


def printed(settings: Path, cores: list[set[int]], name: int | str, epochs: int) -> list[list[float]]:
    """Train once, by a process on each of the sets of cores; return seconds, loss and validation loss of each epoch."""
    command = [sys.executable, __file__, "--epochs", str(epochs), "--train", str(settings), f"{len(cores)}-{name}"]
    addresses, processes = free_addresses(len(cores)), []
    for index, usable in enumerate(cores):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        variables = {"TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": "-1"}
        pinned = ["taskset", "--cpu-list", ",".join(map(str, sorted(usable))), *command]
        processes.append(subprocess.Popen(pinned, env=os.environ | variables, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("The training failed; see above.")
    return [[float(number) for number in line.split()] for line in said[0].splitlines()]


def free_addresses(number: int) -> list[str]:
    """Return addresses on which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


if __name__ == "__main__":
    raise SystemExit(main())
