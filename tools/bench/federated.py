"""What a federation takes beyond its clients' training, and what Flower's own ways of running one take.

    python tools/bench/federated.py [--repetitions 5] [--case regression|digits] [--without-flower]

Two cases: (a) 2 clients, 5 rounds of the regression example; (b) 100 clients, 10 rounds of the digits MLP of
`examples/federated`. Each side runs in processes of its own, the two in turn:

- the federation, as `federate simulate` runs it for a user: checkpoints, metrics.csv, TensorBoard, exported versions;
- (a) alone: each client's epochs as an ordinary run (`train`) on its data, one client after the other, which also write
  checkpoints and the rest. They do as many steps as the federation;
- bare loops: the same local epochs and nothing else. One compiled model trains each client's share in turn, and between
  rounds NumPy averages by hand, which is not timed. Its weights at the end must be those of the federation.

`total` is the time from loading the settings to the end, with building and compiling the model and, in the first two,
the last export; `later rounds` is the time between the end of the first round and the end of the last one. Both are
medians over the repetitions, their ratios ratios of medians; memory is the largest that a process had. (a) is to be at
most 1.2 times the ordinary runs, (b) at most 1.5 times the bare loops.

Then the same small task (a), once each: with `--engine ray`, and by Flower alone, as a tutorial of Flower writes it
(`federated_flower.py`): its simulation, and a SuperLink with two SuperNodes on this machine. These are from the start
of the first process to the end of the last round.
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
sys.path.insert(0, str(Path(__file__).parent))

from federated_flower import WAYS

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
    against: str
    bar: float
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def settings(self):
        """Return its settings, for either side."""
        from experiments_manager import api

        federated = {"strategy": "FedAvg", "local_epochs": self.local_epochs}
        changes = {"early_stopping_patience": None, **self.changes, "federated": federated}
        return api.federation_settings(self.file, clients=self.clients, rounds=self.rounds, overrides=changes)


CASES = {
    "regression": Case(EXAMPLES / "regression" / "mysettings_curve_fitting.py", 2, 5, 1, "ordinary runs", 1.2),
    "digits": Case(
        EXAMPLES / "federated" / "mysettings_digits.py", 100, 10, 5, "bare loops", 1.5, {"hparams.alpha": 100.0}
    ),
}


def epoch_clock() -> Any:
    """Return a watcher that notes when epochs ended."""
    from experiments_manager.events import Watcher

    class Clock(Watcher):
        def __init__(self) -> None:
            self.ended: list[float] = []

        def on_epoch(self, report) -> None:
            self.ended.append(time.perf_counter())

    return Clock()


def federation(case: Case, folder: Path, engine: str = "process") -> dict[str, float]:
    """Run the federation; its last weights go to `weights.npz`."""
    import numpy as np

    from experiments_manager import api
    from experiments_manager.runs import open_run
    from experiments_manager.training.state.checkpoints import read_latest

    clock = epoch_clock()
    began = time.perf_counter()
    run = api.simulate_federation(case.settings(), engine=engine, working_dir=folder, quiet=True, watchers=[clock])
    total = time.perf_counter() - began
    _, snapshot = read_latest(open_run(run.run_dir).checkpoints_dir)
    prefix = "epoch_trainer/global/"
    weights = {name.removeprefix(prefix): value for name, value in snapshot.tensors.items() if name.startswith(prefix)}
    np.savez(folder / "weights.npz", **{name.replace("/", "|"): np.asarray(value) for name, value in weights.items()})
    return {"total": total, "later": clock.ended[-1] - clock.ended[0]}


def bare_loops(case: Case, folder: Path) -> dict[str, float]:
    """Train the same local epochs with no federation; the last weights go to `weights.npz`."""
    import numpy as np

    from experiments_manager.federated.local.client import client_of
    from experiments_manager.federated.local.task import LocalTask
    from experiments_manager.federated.local.trainer import LocalTrainer
    from experiments_manager.training.devices.devices import prepared_devices
    from experiments_manager.training.seeds import seed_everything

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


def ordinary_runs(case: Case, folder: Path) -> dict[str, float]:
    """Train each client's epochs as a run of its own."""
    from experiments_manager import api
    from experiments_manager.settings import load_settings

    began, later = time.perf_counter(), 0.0
    for client in range(case.clients):
        changes = {**case.settings().overrides, "epochs": case.rounds * case.local_epochs, "random_seed": client}
        settings = load_settings(case.file, changes)
        clock = epoch_clock()
        api.train(settings, working_dir=folder, run_name=f"client{client}", quiet=True, watchers=[clock])
        later += clock.ended[-1] - clock.ended[0]
    return {"total": time.perf_counter() - began, "later": later}


def ray(case: Case, folder: Path) -> dict[str, float]:
    """Run it by Flower's simulation."""
    return federation(case, folder, engine="ray")


SIDES = {"federation": federation, "ordinary runs": ordinary_runs, "bare loops": bare_loops, "ray": ray}


def measured(name: str, side: str, folder: Path) -> dict[str, float]:
    """Run a side in a process of its own."""
    folder.mkdir(parents=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", side, "--case", name, "--folder", str(folder)]
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
    case = CASES[name]
    took: dict[str, list[dict[str, float]]] = {
        side: [] for side in dict.fromkeys(["federation", case.against, "bare loops"])
    }
    for number in range(repetitions):
        for side, times in took.items():
            times.append(measured(name, side, folder / f"{side} {number}"))
        if number == 0:
            require_same(folder / "federation 0", folder / "bare loops 0")
    print(f"\n{name}: {case.clients} clients, {case.rounds} rounds, local epochs: {case.local_epochs}")
    medians = {
        side: {part: statistics.median(each[part] for each in times) for part in times[0]}
        for side, times in took.items()
    }
    for part, label in (("total", "total"), ("later", "later rounds")):
        for side, median in medians.items():
            ratio = medians["federation"][part] / median[part]
            print(f"  {label:13} {side:14} {median[part]:8.3f} s   federation / this: {ratio:.2f}")
    memory = max(each["memory"] for each in took["federation"])
    ratio = medians["federation"]["total"] / medians[case.against]["total"]
    print(f"  total of the federation / {case.against}: {ratio:.2f} (at most {case.bar})")
    print(f"  memory of the federation: {memory:.2f} GB (at most {MEMORY_BAR_GB:g})")
    return ratio <= case.bar and memory <= MEMORY_BAR_GB


def compare_flower(folder: Path) -> None:
    """Print what the small task takes in Flower's own ways."""
    case = CASES["regression"]
    print(f"\nregression, by way of processes: {case.clients} clients, {case.rounds} rounds")
    began = time.perf_counter()
    measured("regression", "ray", folder / "ray")
    print(f"  federate simulate --engine ray  {time.perf_counter() - began:6.1f} s")
    for way in WAYS:
        place = folder / way.split()[1].strip("()")
        place.mkdir()
        arguments = [way, str(place), str(case.file), str(case.clients), str(case.rounds)]
        script = Path(__file__).with_name("federated_flower.py")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment, check=False
        )
        took = (
            f"{float(done.stdout.splitlines()[-1]):6.1f} s" if done.returncode == 0 else f"failed: {done.stderr[-500:]}"
        )
        print(f"  {way:31} {took}")


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
        if not arguments.without_flower:
            compare_flower(Path(folder))
    sys.exit(0 if all(good) else 1)
