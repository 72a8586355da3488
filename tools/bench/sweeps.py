#!/usr/bin/env python3
"""How fast sweeps are, how well ASHA searches, and what the driver costs when a sweep is long.

    python tools/bench/sweeps.py speed        # against a fresh process a trial, and against bare `fit` in one process
    python tools/bench/sweeps.py asha         # epochs and result of ASHA against TPE without pruning, over five seeds
    python tools/bench/sweeps.py overhead     # memory and time of the driver over 1,000 trials that cost nothing

All need the extra `sweeps`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments_manager.common.machine.processes import resident_bytes

ROOT = Path(__file__).resolve().parents[2]
REGRESSION = ROOT / "examples" / "regression" / "mysettings_curve_fitting.py"
DIGITS = ROOT / "examples" / "classification" / "mysettings_digits.py"
MORE = 1.15
"""ASHA has so many times the trials; most end after two or four epochs, so it trains fewer epochs all the same."""
RULES = {"method": "asha", "min_epochs": 2, "reduction": 2}
SPACE = """
from math import log
from hyperopt import hp
space = {
    "hidden_units": hp.quniform("hidden_units", 4, 64, 1),
    "learning_rate": hp.loguniform("learning_rate", log(1e-3), log(1.0)),
}
"""
SWEEP = """
settings_file = {settings!r}
max_trials = {trials}
parallel = 2
overrides = {{"epochs": {epochs}}}
trials_per_process = {together}
"""
DIGITS_SWEEP = """
from math import log
from hyperopt import hp
settings_file = {settings!r}
space = {{
    "dropout": hp.uniform("dropout", 0, 0.6),
    "learning_rate": hp.loguniform("learning_rate", log(1e-3), log(1.0)),
}}
max_trials = {trials}
parallel = 2
trials_per_process = 10
seed = {seed}
prune = {prune!r}
algorithm = "tpe"
overrides = {{
    "model_file": "model_cnn.py",
    "epochs": {epochs},
    "export": False,
    "figures": False,
    "tensorboard": False,
    "hparams.filters": 8,
}}
"""
FRESH = """
import subprocess, sys, json
import numpy as np
from hyperopt import fmin, tpe
def train(values):
    command = [sys.executable, "-m", "experiments_manager", "train", {settings!r}, "--json", "--quiet",
               "--working-dir", {folder!r}, "--set", "epochs={epochs}",
               "--set", f"hparams.hidden_units={{int(values['hidden_units'])}}",
               "--set", f"hparams.learning_rate={{values['learning_rate']}}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(told.splitlines()[-1])["best"]["value"]
fmin(train, space, tpe.suggest, {trials}, rstate=np.random.default_rng(0), show_progressbar=False)
"""
BARE = """
import numpy as np
from hyperopt import fmin, tpe
import keras, runpy
def train(values):
    keras.utils.clear_session()
    names = runpy.run_path({settings!r})
    model = names["model"]({{"hidden_units": int(values["hidden_units"])}})
    model.compile(keras.optimizers.Adam(values["learning_rate"]), "mean_squared_error")
    history = model.fit(*names["dataset"]("train"), batch_size=100, epochs={epochs}, verbose=0,
                        validation_data=names["dataset"]("validation"))
    return min(history.history["val_loss"])
fmin(train, space, tpe.suggest, {trials}, rstate=np.random.default_rng(0), show_progressbar=False)
"""
LONG = """
import numpy as np
from hyperopt import hp
settings_file = {settings!r}
algorithm = "tpe"
space = {{f"x{{n}}": hp.uniform(f"x{{n}}", 0, 1) for n in range(5)}}
"""


def _seconds(command: list[str], folder: Path) -> float:
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return time.monotonic() - began


def speed(options: argparse.Namespace, folder: Path) -> bool:
    """Compare trials per minute, each from the start of its command to its end."""
    values = {"settings": str(REGRESSION), "trials": options.trials, "epochs": 5, "folder": str(folder)}
    sweep_command = [sys.executable, "-m", "experiments_manager", "sweep", "--quiet"]
    cases = {}
    for together in (1, 10):
        file = folder / f"mysweep_together_{together}.py"
        file.write_text(SPACE + SWEEP.format(**values, together=together))
        name = "sweep" if together == 1 else f"sweep, {together} trials a process"
        cases[name] = [*sweep_command, str(file), "--working-dir", str(folder)]
    for name, script in (("fresh process a trial", FRESH), ("bare fit in one process", BARE)):
        file = folder / f"{name.split()[0]}.py"
        file.write_text(SPACE + script.format(**values))
        cases[name] = [sys.executable, str(file)]
    found = {}
    for name, command in cases.items():
        found[name] = _seconds(command, folder)
        print(f"{name}: {found[name]:.1f} s, {60 * options.trials / found[name]:.1f} trials a minute", flush=True)
    fresh, bare = found["fresh process a trial"], found["bare fit in one process"]
    best = min(seconds for name, seconds in found.items() if name.startswith("sweep"))
    print(f"sweep: {fresh / best:.1f} times the fresh processes, {bare / best:.2f} times bare fit")
    return fresh / best >= 5 and bare / best > 1


def asha(options: argparse.Namespace, folder: Path) -> bool:
    """Compare the epochs and the best value of ASHA with those of TPE without pruning."""
    plans = {"whole": (options.trials, None), "asha": (int(MORE * options.trials), RULES)}
    found = {}
    for name, (trials, prune) in plans.items():
        for seed in range(options.seeds):
            epochs, value = found[name, seed] = _digits(f"{name}_{seed}", trials, seed, prune, options.epochs, folder)
            print(f"{name}, seed {seed}: {trials} trials, {epochs} epochs, val_loss {value:.4f}", flush=True)
    pairs = [(found["whole", seed], found["asha", seed]) for seed in range(options.seeds)]
    share = statistics.median(halved[0] / whole[0] for whole, halved in pairs)
    gain = statistics.median(whole[1] - halved[1] for whole, halved in pairs)
    print(f"ASHA: {share:.0%} of the epochs (median), best val_loss lower by {gain:+.4f} (median)")
    return share <= 0.4 and gain >= 0


def _digits(name: str, trials: int, seed: int, prune: object, epochs: int, folder: Path) -> tuple[int, float]:
    """Search the digits' convolutional net; return the epochs that were trained, and the best value."""
    import experiments_manager as em

    file = folder / f"mysweep_{name}.py"
    file.write_text(DIGITS_SWEEP.format(settings=str(DIGITS), trials=trials, seed=seed, prune=prune, epochs=epochs))
    result = em.sweep(file, working_dir=folder, quiet=True, resume=True)
    with (result.sweep_dir / "trials.csv").open() as stream:
        trained = sum(int(row["epochs"]) for row in csv.DictReader(stream))
    return trained, result.best["values"]["val_loss"]


@dataclasses.dataclass
class _Instant:
    """A pool whose trials end as soon as they are begun: what is left is the driver's own work."""

    ended: list[tuple[int, dict]] = dataclasses.field(default_factory=list)
    running: list[int] = dataclasses.field(default_factory=list)
    free: int = 1

    def reattach(self, tasks: dict[int, dict]) -> dict[int, dict]:
        return {}

    def start(self, trial: int, task: dict) -> None:
        values = [(value - 0.3) ** 2 for name, value in task["overrides"].items() if name.startswith("x")]
        self.ended.append((trial, {"kind": "ended", "state": "finished", "values": [sum(values)], "curve": [1.0] * 5,
                                   "epochs": 5, "seconds": 0.1}))  # fmt: skip
        self.running, self.free = [trial], 0

    def poll(self, seconds: float) -> list[tuple[int, dict]]:
        found, self.ended, self.running, self.free = self.ended, [], [], 1
        return found


def overhead(options: argparse.Namespace, folder: Path) -> bool:
    """Measure the driver alone: proposals, journal, table."""
    from types import SimpleNamespace

    from experiments_manager.sweeps.driver import Driver, Limits
    from experiments_manager.sweeps.observers import TableWriter
    from experiments_manager.sweeps.proposals import Proposals
    from experiments_manager.sweeps.search.pruning import NoPruner
    from experiments_manager.sweeps.state.folder import SweepFolder
    from experiments_manager.sweeps.state.journal import Journal
    from experiments_manager.sweeps.state.trials import SweepState
    from experiments_manager.sweeps.sweep_file import load_sweep_file
    from experiments_manager.sweeps.sweep_plan import StopWhen

    file = folder / "mysweep_long.py"
    file.write_text(LONG.format(settings=str(REGRESSION)))
    sweep, place = load_sweep_file(file), SweepFolder(folder / "long")
    place.make()
    journal, state, times, memory = Journal(place.journal), SweepState(), [], []
    table = TableWriter(place, ["val_loss"])

    class Clock(TableWriter):
        def on_wait(self, state: SweepState) -> None:
            table.on_wait(state)
            times.append(time.monotonic())
            memory.append(resident_bytes())

    clock = Clock(place, ["val_loss"])
    clock.on_event = table.on_event
    proposals = Proposals("tpe", sweep.space, 0, modes=("min",))
    limits = Limits(options.long, StopWhen(), ("min",))
    driver = Driver(journal, state, _Instant(), proposals, NoPruner(), limits,
                    lambda trial: {"overrides": trial.overrides}, [clock])  # fmt: skip
    opened = SimpleNamespace(objectives=["val_loss"], modes=["min"])
    driver.record("opened", **vars(opened))
    driver.run(lambda: False)
    journal.close()
    steps = [1000 * (later - earlier) for earlier, later in zip(times, times[1:], strict=False)]
    tenth = max(1, len(steps) // 10)
    for name, part in (("first", steps[:tenth]), ("last", steps[-tenth:])):
        print(f"{name} {tenth} trials: {statistics.median(part):.1f} ms each (median), {max(part):.0f} ms at most")
    early, late = memory[tenth], memory[-1]
    print(f"memory after {tenth} trials {early / 2**20:.1f} MiB, after {len(memory)} {late / 2**20:.1f} MiB; "
          f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f} MiB")  # fmt: skip
    return statistics.median(steps[-tenth:]) < 50 and late - early < 32 * 2**20


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "asha", "overhead"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=27, help="of a whole trial of the digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the sweeps of `asha`, and go on with those there"
    )
    parser.add_argument("--long", type=int, default=1000, help="trials of the long sweep")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
        place = options.keep.absolute() if options.keep else Path(folder)
        reached = {"speed": speed, "asha": asha, "overhead": overhead}[options.what](options, place)
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
