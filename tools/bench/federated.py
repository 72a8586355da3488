"""What a federation takes beyond its clients' training, and what Flower's own ways of running one take.

    python tools/bench/federated.py [--repetitions 5] [--case regression|digits] [--without-flower]

Two cases: (a) 2 clients, 5 rounds of the regression example; (b) 100 clients, 10 rounds of the digits MLP of
`examples/federated`. Each side runs in processes of its own, the two in turn:

- the federation, as `federate simulate` runs it for a user: checkpoints, metrics.csv, TensorBoard, exported versions;
- the same local epochs with no federation: one compiled model trains each client's share, one client after the other,
  and between rounds NumPy averages by hand, which is not timed. Its weights at the end must be those of the federation.

`total` is the time from loading the settings to the end, with building and compiling the model and, in the federation,
the last export; `later rounds` is the time between the end of the first round and the end of the last one. Both are
medians over the repetitions, their ratios ratios of medians; memory is the largest that a process had.

Then the same small task (a) by Flower's own simulation (`--engine ray`), and by Flower's own deployment: a SuperLink and
two SuperNodes on this machine, each once, with the time that their processes take to start.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MEMORY_BAR_GB = 3.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A federation, and how much longer than its local epochs it may take."""

    file: Path
    clients: int
    rounds: int
    local_epochs: int
    bar: float
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def settings(self):
        """Return its settings, for either side."""
        from experiments_manager import api

        federated = {"strategy": "FedAvg", "local_epochs": self.local_epochs}
        changes = {"early_stopping_patience": None, **self.changes, "federated": federated}
        return api.federation_settings(self.file, clients=self.clients, rounds=self.rounds, overrides=changes)


CASES = {
    "regression": Case(EXAMPLES / "regression" / "mysettings_curve_fitting.py", 2, 5, 1, 1.2),
    "digits": Case(EXAMPLES / "federated" / "mysettings_digits.py", 100, 10, 5, 1.5, {"hparams.alpha": 100.0}),
}


def federation(case: Case, folder: Path, engine: str = "process") -> dict[str, float]:
    """Run the federation; its last weights go to `weights.npz`."""
    import numpy as np

    from experiments_manager import api
    from experiments_manager.events import Watcher
    from experiments_manager.runs import open_run
    from experiments_manager.training.state.checkpoints import read_latest

    class Clock(Watcher):
        def on_epoch(self, report) -> None:
            ended.append(time.perf_counter())

    ended: list[float] = []
    began = time.perf_counter()
    run = api.simulate_federation(case.settings(), engine=engine, working_dir=folder, quiet=True, watchers=[Clock()])
    total = time.perf_counter() - began
    _, snapshot = read_latest(open_run(run.run_dir).checkpoints_dir)
    prefix = "epoch_trainer/global/"
    weights = {name.removeprefix(prefix): value for name, value in snapshot.tensors.items() if name.startswith(prefix)}
    np.savez(folder / "weights.npz", **{name.replace("/", "|"): np.asarray(value) for name, value in weights.items()})
    return {"total": total, "later": ended[-1] - ended[0]}


def plain_loops(case: Case, folder: Path) -> dict[str, float]:
    """Train the same local epochs with no federation; the last weights go to `weights.npz`."""
    import numpy as np

    from experiments_manager.federated.simulation.clients import client_of
    from experiments_manager.training.local.task import LocalTask
    from experiments_manager.training.local.trainer import LocalTrainer
    from experiments_manager.training.setup.devices import prepared_devices
    from experiments_manager.training.setup.seeds import seed_everything

    began, averaging, ended = time.perf_counter(), 0.0, []
    settings = case.settings()
    with prepared_devices(settings) as devices:
        seed_everything(settings.random_seed)
        clients = [client_of(settings, number, case.clients) for number in range(case.clients)]
        trainer = LocalTrainer.make(settings, devices, clients[0])
        weights = trainer.weights()
        for number in range(1, case.rounds + 1):
            results = [trainer.train(client, weights, LocalTask(number, case.local_epochs)) for client in clients]
            paused = time.perf_counter()
            total = sum(result.samples for result in results)
            weights = {
                name: sum(result.weights[name] * (result.samples / total) for result in results) for name in weights
            }
            averaging += time.perf_counter() - paused
            ended.append(time.perf_counter() - averaging)
        trainer.close()
    np.savez(folder / "weights.npz", **{name.replace("/", "|"): value for name, value in weights.items()})
    return {"total": ended[-1] - began, "later": ended[-1] - ended[0]}


def ray(case: Case, folder: Path) -> dict[str, float]:
    """Run it by Flower's simulation."""
    return federation(case, folder, engine="ray")


SIDES = {"federation": federation, "plain loops": plain_loops, "ray": ray}


def measured(name: str, side: str, folder: Path) -> dict[str, float]:
    """Run a side in a process of its own."""
    folder.mkdir(parents=True)
    command = [sys.executable, __file__, "--worker", side, "--case", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def work(name: str, side: str, folder: Path) -> None:
    """Be the process of a side, and print what it took."""
    import tensorflow as tf  # noqa: F401  (its import is not what is measured)

    import experiments_manager.federated.run  # noqa: F401

    took = SIDES[side](CASES[name], folder)
    took["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(took))


def compare(name: str, repetitions: int, folder: Path) -> bool:
    """Print what the federation takes beside its local epochs; return whether it is within the bar."""
    case, took = CASES[name], {"federation": [], "plain loops": []}
    for number in range(repetitions):
        for side, times in took.items():
            times.append(measured(name, side, folder / f"{side} {number}"))
        if number == 0:
            require_same(folder / "federation 0", folder / "plain loops 0")
    print(f"\n{name}: {case.clients} clients, {case.rounds} rounds of {case.local_epochs} local epochs")
    ratios = {}
    for part, label in (("total", "total"), ("later", "later rounds")):
        medians = {side: statistics.median(each[part] for each in times) for side, times in took.items()}
        ratios[part] = medians["federation"] / medians["plain loops"]
        print(
            f"  {label:13} federation {medians['federation']:7.3f} s   local epochs alone "
            f"{medians['plain loops']:7.3f} s   ratio {ratios[part]:.2f} (at most {case.bar})"
        )
    memory = max(each["memory"] for each in took["federation"])
    print(f"  memory        federation {memory:.2f} GB (at most {MEMORY_BAR_GB:g})")
    return max(ratios.values()) <= case.bar and memory <= MEMORY_BAR_GB


def require_same(first: Path, second: Path) -> None:
    """Exit where two sides did not train the same weights."""
    import numpy as np

    ours, theirs = (np.load(folder / "weights.npz") for folder in (first, second))
    if sorted(ours.files) != sorted(theirs.files):
        sys.exit(f"The sides train other variables: {ours.files} and {theirs.files}.")
    apart = max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours.files)
    print(f"both sides end with the same weights, to {apart:.1g}")
    if apart > 1e-5:
        sys.exit("The sides do not train the same.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument(
        "--without-flower", action="store_true", help="leave Flower's own simulation and deployment out"
    )
    parser.add_argument("--worker", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.case, arguments.worker, arguments.folder)
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        names = [arguments.case] if arguments.case else list(CASES)
        good = [compare(name, arguments.repetitions, Path(folder) / name) for name in names]
    sys.exit(0 if all(good) else 1)
