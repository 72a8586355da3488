"""Kill training processes at random moments and looks whether the runs end as if nothing had happened.

    python tools/bench/survival.py [--kills 200] [--example regression|digits|recurrent] [--seed 0]

Each example is trained once without interruption. Then the very same command line, `train … --run-name NAME --resume
auto`, is started in another working directory again and again, and killed (SIGKILL) at moments of chance: during
start-up, training, the writing of a checkpoint, an export; until a process is quick enough to finish. What came out
must be equal: every tensor of the last checkpoint bit for bit (weights, averages, optimiser, seeds, best weights), the
progress in it (best epoch, early stopping), `metrics.csv` byte for byte, the variables of the newest version, and the
curves that TensorBoard shows, by epoch and by step: no step twice, none missing, and all values but those of times.

Last, the digits run is asked to stop by SIGTERM, and the time until the process has ended is measured.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 300.0
"""Seconds after which a process that neither ended nor did what was waited for counts as hung."""
MOMENTS = {"anywhere": 0.15, "training": 0.5, "checkpoint": 0.2, "export": 0.15}
"""Moments of a kill, and how often each is chosen. Most let the process begin to train, which takes it five seconds."""
MOST_KILLS_OF_ONE_RUN = 15
TIMES = ("seconds", "wait", "memory")
"""Words in names of curves that are another in each process."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An experiment to be killed: settings file, overrides `NAME=VALUE`, and the command that trains it."""

    name: str
    settings: Path
    overrides: tuple[str, ...] = ()
    verb: tuple[str, ...] = ("train",)

    def command(self, working_dir: Path) -> list[str]:
        """Return the command line that starts the run and, given again, goes on with it."""
        options = [f"--set={override}" for override in self.overrides]
        names = ["--run-name", self.name, "--resume", "auto", "--working-dir", str(working_dir)]
        return [sys.executable, "-m", "experiments_manager", *self.verb, str(self.settings), *names, *options]


CASES = {
    "regression": Case(
        "regression",
        ROOT / "examples/regression/mysettings_curve_fitting.py",
        ("checkpoint_every_steps=7", "epochs=400", "early_stopping_patience=40", "log_every_steps=4"),
    ),
    "digits": Case(
        "digits",
        ROOT / "examples/classification/mysettings_digits.py",
        (
            "model_file=model_cnn.py",
            "checkpoint_every_steps=9",
            "epochs=40",
            "early_stopping_patience=3",
            "log_every_steps=4",
        ),
    ),
    "recurrent": Case(
        "recurrent",
        ROOT / "examples/recurrent/mysettings_sequences.py",
        ("checkpoint_every_steps=13", "log_every_steps=5"),
    ),
}


class Training:
    """A real process that trains, and what its run folder shows from outside."""

    def __init__(self, case: Case, working_dir: Path) -> None:
        self.case, self.run_dir = case, working_dir / case.name
        working_dir.mkdir(parents=True, exist_ok=True)
        self.log = working_dir / f"{case.name}.log"
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        self.process = self._start(case.command(working_dir))

    def _start(self, command: list[str]) -> Any:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with self.log.open("ab") as output:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)

    @property
    def output(self) -> str:
        """What this process has said so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_begin)
            return log.read().decode(errors="replace")

    @property
    def has_ended(self) -> bool:
        """Whether the process is no more."""
        return self.process.poll() is not None

    @property
    def trains(self) -> bool:
        """Whether everything is built and the loop has begun, which the summary of the model announces."""
        return " parameters on " in self.output

    @property
    def manifest(self) -> dict[str, Any]:
        """What run.json says."""
        return json.loads((self.run_dir / "run.json").read_text())

    @property
    def step(self) -> int:
        """Global step of the newest checkpoint; 0 before the first."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.run_dir / "checkpoints" / "latest").read_text().strip().rpartition("-")[2])
        return 0

    def writes(self, folder: str, pattern: str) -> bool:
        """Return whether something is being written in a folder of the run at this moment."""
        return any((self.run_dir / folder).glob(pattern))

    def wait_for(self, condition: Callable[[], bool], seconds: float = DEADLINE) -> bool:
        """Wait until the condition holds; false where the process ended or time ran out before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            if self.has_ended:
                return False
            time.sleep(0.001)
        return False

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """Kill the process on the spot."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *error: object) -> None:
        if not self.has_ended:
            self.kill()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished run left behind, as far as it must not depend on interruptions."""

    state: str
    metrics: bytes
    tensors: dict[str, bytes]
    """Every tensor of the last checkpoint, and the newest version's variables, as bytes."""
    progress: dict[str, Any]
    version: int | None
    curves: dict[str, list[tuple[int, float | None]]]
    """Step and value of each point that TensorBoard shows, by folder and name; no value where it is a time."""

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Epoch and global step of each row of metrics.csv."""
        table = csv.DictReader(io.StringIO(self.metrics.decode()))
        return [(int(row["epoch"]), int(row["step"])) for row in table]


def outcome_of(run_dir: Path) -> Outcome:
    """Read what a run came to.

    Raises:
        FileNotFoundError: It has no checkpoint, or no version although one was exported.
    """
    import tensorflow as tf

    from experiments_manager.export.versions import versions
    from experiments_manager.training.state.checkpoints import read_latest

    found = read_latest(run_dir / "checkpoints")
    if found is None:
        raise FileNotFoundError(f"{run_dir} has no checkpoint")
    _, snapshot = found
    tensors = {name: value.numpy().tobytes() for name, value in snapshot.tensors.items()}
    version = max(versions(run_dir / "exported_models"), default=None)
    if version is not None:
        reader = tf.train.load_checkpoint(str(run_dir / "exported_models" / str(version) / "variables" / "variables"))
        for name in reader.get_variable_to_shape_map():
            if "CHECKPOINTABLE_OBJECT_GRAPH" not in name:
                tensors[f"version/{name}"] = reader.get_tensor(name).tobytes()
    return Outcome(
        state=json.loads((run_dir / "run.json").read_text())["state"],
        metrics=(run_dir / "metrics.csv").read_bytes(),
        tensors=tensors,
        progress=snapshot.progress.to_json(),
        version=version,
        curves=curves_of(run_dir / "logs"),
    )


def curves_of(logs_dir: Path) -> dict[str, list[tuple[int, float | None]]]:
    """Read the event files of a run as TensorBoard does."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    curves = {}
    for group in ("train", "validation", "train/by_step", "validation/by_step"):
        accumulator = EventAccumulator(str(logs_dir / group), size_guidance={"tensors": 0})
        if (logs_dir / group).is_dir():
            accumulator.Reload()
        for tag in accumulator.Tags()["tensors"]:
            is_time = any(word in tag for word in TIMES)
            points = [
                (event.step, None if is_time else make_ndarray(event.tensor_proto).tolist())
                for event in accumulator.Tensors(tag)
            ]
            # A short epoch may lack a time: a process does not count the first call, which it compiles.
            if not is_time or "memory" in tag:
                curves[f"{group}: {tag}"] = points
    return curves


def differences(expected: Outcome, got: Outcome) -> list[str]:
    """Name everything in which two outcomes differ."""
    found = [
        f"{field}: {getattr(expected, field)} and {getattr(got, field)}"
        for field in ("state", "progress", "version")
        if getattr(expected, field) != getattr(got, field)
    ]
    if expected.metrics != got.metrics:
        found.append("metrics.csv")
    names = sorted(expected.curves.keys() | got.curves.keys())
    other = [name for name in names if expected.curves.get(name) != got.curves.get(name)]
    found += [f"curves in TensorBoard: {', '.join(other)}"] if other else []
    names = sorted(expected.tensors.keys() | got.tensors.keys())
    other = [name for name in names if expected.tensors.get(name) != got.tensors.get(name)]
    return found + ([f"{len(other)} of {len(names)} tensors: {', '.join(other[:4])} …"] if other else [])


def lost_and_doubled(expected: Outcome, got: Outcome) -> tuple[int, int]:
    """Count epochs that are missing in metrics.csv, and steps that were counted twice in it."""
    lost = len({epoch for epoch, _ in expected.rows} - {epoch for epoch, _ in got.rows})
    repeated = len(got.rows) - len({epoch for epoch, _ in got.rows})
    steps = expected.rows[0][1]
    surplus = max(0, got.rows[-1][1] - expected.rows[-1][1]) if got.rows else 0
    return lost, repeated * steps + surplus


@dataclasses.dataclass(frozen=True)
class Uninterrupted:
    """A run that nobody disturbed, and how long its parts took."""

    outcome: Outcome
    start_up: float
    """Seconds until the loop begins."""
    training: float
    """Seconds from there to the end of the process."""


def train_undisturbed(case: Case, working_dir: Path, kind: type[Training] = Training) -> Uninterrupted:
    """Train once, in a process of a kind.

    Raises:
        RuntimeError: It failed.
    """
    started = time.monotonic()
    with kind(case, working_dir) as training:
        training.wait_for(lambda: training.trains)
        begun = time.monotonic()
        code = training.wait()
        if code != 0:
            raise RuntimeError(f"{case.name}: uninterrupted, it ended with exit code {code}:\n{training.output}")
    return Uninterrupted(outcome_of(training.run_dir), begun - started, time.monotonic() - begun)


def kill_until_finished(
    case: Case,
    working_dir: Path,
    most_kills: int,
    reference: Uninterrupted,
    chance: random.Random,
    *,
    haste: float = 0.6,
    kind: type[Training] = Training,
) -> collections.Counter[str]:
    """Start the same command again and again, killing it each time, until a process finishes.

    Args:
        case: What is trained.
        working_dir: Where its run folder is made and found again.
        most_kills: After so many, the next process is left alone.
        reference: The undisturbed run, for how long things take.
        chance: Chooses the moments.
        haste: They fall into this share of what remains of the run.
        kind: How its processes are started.

    Returns:
        How many kills there were at which moment.

    Raises:
        RuntimeError: A process that was not killed failed, or hung.
    """
    kills: collections.Counter[str] = collections.Counter()
    while True:
        with kind(case, working_dir) as training:
            moment = _choose_moment(chance) if kills.total() < most_kills else None
            if moment is not None and reach(training, moment, reference, haste, chance):
                training.kill()
                kills[moment] += 1
                continue
            code = training.wait()
            if code != 0:
                raise RuntimeError(f"{case.name}: resumed, it ended with exit code {code}:\n{training.output}")
            return kills


def _choose_moment(chance: random.Random) -> str:
    return chance.choices(list(MOMENTS), list(MOMENTS.values()))[0]


def reach(training: Training, moment: str, reference: Uninterrupted, haste: float, chance: random.Random) -> bool:
    """Wait for a moment at which to kill; false where the process ended first."""
    steps = reference.outcome.progress["global_step"]
    remaining = haste * (reference.training * (1 - training.step / steps) + 0.5)
    if moment == "anywhere":
        return not training.wait_for(lambda: False, chance.uniform(0, reference.start_up + remaining)) and (
            not training.has_ended
        )
    if not training.wait_for(lambda: training.trains):
        return False
    training.wait_for(lambda: False, chance.uniform(0, remaining))
    if moment == "checkpoint":
        return training.wait_for(lambda: training.writes("checkpoints", ".*.partial"))
    if moment == "export":
        return training.wait_for(lambda: training.writes("exported_models", ".stage-[0-9t]*"))
    return not training.has_ended


def seconds_from_signal_to_exit(case: Case, folder: Path, times: int, chance: random.Random) -> list[float]:
    """Ask a training process to stop by SIGTERM, at moments of chance, and measure how long it takes to end.

    Raises:
        RuntimeError: It did not end as interrupted.
    """
    found = []
    for number in range(times):
        with Training(case, folder / str(number)) as training:
            training.wait_for(lambda training=training: training.step > 0)
            training.wait_for(lambda: False, chance.uniform(0, 1.5))
            asked = time.monotonic()
            training.process.send_signal(signal.SIGTERM)
            code = training.wait()
            found.append(time.monotonic() - asked)
            if code != 75:
                raise RuntimeError(f"{case.name}: after SIGTERM it ended with exit code {code}:\n{training.output}")
    return found


def _shares(kills: int, cases: list[Case]) -> Iterator[tuple[Case, int]]:
    """Deal the kills out to the cases."""
    for number, case in enumerate(cases):
        yield case, kills // len(cases) + (number < kills % len(cases))


def bench(case: Case, kills: int, folder: Path, chance: random.Random) -> tuple[int, int, int, collections.Counter]:
    """Return the kills survived, epochs lost, steps doubled, and the moments of the kills."""
    reference = train_undisturbed(case, folder / "undisturbed")
    epochs, steps = reference.outcome.progress["epoch"], reference.outcome.progress["global_step"]
    print(f"{case.name}: {epochs} epochs, {steps} steps; start-up {reference.start_up:.1f} s, "
          f"training {reference.training:.1f} s", flush=True)  # fmt: skip
    survived = lost = doubled = number = 0
    moments: collections.Counter[str] = collections.Counter()
    while moments.total() < kills:
        number += 1
        working_dir = folder / f"killed_{number}"
        most = min(kills - moments.total(), MOST_KILLS_OF_ONE_RUN)
        made = kill_until_finished(case, working_dir, most, reference, chance)
        got = outcome_of(working_dir / case.name)
        found = differences(reference.outcome, got)
        survived += 0 if found else made.total()
        lost_here, doubled_here = lost_and_doubled(reference.outcome, got)
        lost, doubled, moments = lost + lost_here, doubled + doubled_here, moments + made
        told = "; ".join(found) or "equal bit for bit"
        print(f"  run {number}: {made.total()} kills ({moments.total()} of {kills}), {told}", flush=True)
        if not found:
            shutil.rmtree(working_dir)
    return survived, lost, doubled, moments


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--example", choices=list(CASES))
    parser.add_argument("--seed", type=int, default=0, help="chooses other moments")
    parser.add_argument("--signals", type=int, default=5, help="how often SIGTERM is measured")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave runs that differ there")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    cases = [CASES[options.example]] if options.example else list(CASES.values())
    survived = lost = doubled = 0
    moments: collections.Counter[str] = collections.Counter()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for case, kills in _shares(options.kills, cases):
            results = bench(case, kills, folder / case.name, chance)
            survived, lost, doubled = survived + results[0], lost + results[1], doubled + results[2]
            moments += results[3]
        if options.signals:
            seconds = seconds_from_signal_to_exit(CASES["digits"], folder / "signals", options.signals, chance)
            listed = " ".join(f"{value:.2f}" for value in seconds)
            print(f"digits: from SIGTERM to exit {statistics.median(seconds):.2f} s (median of {listed})")
    print("moments of the kills: " + ", ".join(f"{name} {count}" for name, count in moments.items()))
    print(f"survived {survived} of {moments.total()}, lost {lost} epochs, doubled {doubled} steps")
    sys.exit(0 if (survived, lost, doubled) == (moments.total(), 0, 0) else 1)


if __name__ == "__main__":
    main()
