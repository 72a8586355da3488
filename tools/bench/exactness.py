"""Kill the runs of settings files at random, and look whether any that is announced exact ends unequal.

    python tools/bench/exactness.py FOLDER_OR_FILE… [--kills 200] [--seed 0] [--cold]

Each settings file is trained twice without interruption; where these two differ, the file is not repeatable, and no
resume of it can be judged. Then the same command line, `train … --resume auto`, is started again and again and killed
(SIGKILL) at moments of chance until a process is quick enough to finish, as in `survival.py`. The outcome is compared
with the undisturbed run's, bit for bit, and with what run.json says of it:

    equal        as if it had not been killed
    announced    it ended otherwise, and its run.json says that a resume is not exact, and why
    refused      a process refused to go on (exit code 2); the reason is printed
    BROKEN       it ended otherwise although it was called exact

Processes are forked from a warm one that has imported TensorFlow, so that a kill costs a second or two; `--cold` starts
each anew, with another seed of Python's hashes. The exit code is 1 where a run is BROKEN.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.bench import survival

REFUSED = 2
_FORKS = multiprocessing.get_context("forkserver")
_WARM = ["tensorflow", "keras", "numpy", "experiments_manager.cli.main", "experiments_manager.training.engine.runner"]


class ForkedProcess:
    """A command line in a process forked from the warm one; to be used as `subprocess.Popen` is."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._process = _FORKS.Process(target=_run, args=(arguments, str(log)))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} has not ended within {timeout} s")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run(arguments: list[str], log: str) -> None:
    from experiments_manager.cli import entry

    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(survival.ROOT)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = ["experiments_manager", *arguments]
    entry.main()


class WarmTraining(survival.Training):
    """A training in a forked process."""

    def _start(self, command: list[str]) -> ForkedProcess:
        self.log.touch()
        return ForkedProcess(command[command.index("experiments_manager") + 1 :], self.log)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one killed run."""

    name: str
    text: str = ""


def judge(
    case: survival.Case, folder: Path, kills: int, reference: survival.Uninterrupted, chance: random.Random, kind: type
) -> tuple[Verdict, int]:
    """Kill a run of a case until it is through; return what it came to, and how many kills there were."""
    made = 0
    while True:
        with kind(case, folder) as training:
            moment = survival._choose_moment(chance) if made < kills else None
            if moment is not None and reach(training, moment, reference, chance):
                training.kill()
                made += 1
                continue
            code = training.wait()
            if code == REFUSED:
                return Verdict("refused", training.output.strip().splitlines()[-1]), made
            if code != 0:
                return Verdict("BROKEN", f"exit code {code}: {training.output[-2000:]}"), made
            break
    exactness = training.manifest.get("exactness") or {}
    found = survival.differences(reference.outcome, survival.outcome_of(training.run_dir))
    if not found:
        return Verdict("equal" if exactness.get("exact") else "equal, not promised", _reasons(exactness)), made
    if exactness.get("exact"):
        return Verdict("BROKEN", "; ".join(text[:200] for text in found)), made
    return Verdict("announced", _reasons(exactness)), made


def reach(training: survival.Training, moment: str, reference: survival.Uninterrupted, chance: random.Random) -> bool:
    """Wait for a moment at which to kill; false where the process ended first.

    Those within the training are told by the newest checkpoint: what is compiled takes longer than all steps of a small
    net, so by the clock most kills would come before there is anything that a resume could lose.
    """
    left = reference.outcome.progress["global_step"] - training.step
    if moment != "training" or left < 2:
        return survival.reach(training, moment, reference, 0.6, chance)
    step = training.step + chance.randint(1, max(1, left // 2))
    return training.wait_for(lambda: training.step >= step) and (
        not training.wait_for(lambda: False, chance.uniform(0, 0.1)) and not training.has_ended
    )


def _reasons(exactness: dict) -> str:
    return " | ".join(exactness.get("reasons") or [])


def bench(file: Path, folder: Path, kills: int, chance: random.Random, kind: type) -> Iterator[tuple[Verdict, int]]:
    """Yield what became of the killed runs of a settings file."""
    overrides = ("checkpoint_every_steps=7", "figures=False")
    case = survival.Case(file.stem, file, overrides)
    try:
        reference = survival.train_undisturbed(case, folder / "undisturbed", kind)
        again = survival.train_undisturbed(case, folder / "again", kind)
    except RuntimeError as error:
        yield Verdict("fails", str(error)[-2000:]), 0
        return
    if differing := survival.differences(reference.outcome, again.outcome):
        yield Verdict("not repeatable", "; ".join(differing)), 0
        return
    left, number = kills, 0
    while left > 0:
        number += 1
        place = folder / f"killed_{number}"
        verdict, made = judge(case, place, min(left, 6), reference, chance, kind)
        left -= max(made, 1)
        yield verdict, made
        if verdict.name != "BROKEN":
            shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", type=Path)
    parser.add_argument("--kills", type=int, default=200, help="of all files together")
    parser.add_argument("--seed", type=int, default=0, help="chooses other moments")
    parser.add_argument("--cold", action="store_true", help="start each process anew")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave runs that are BROKEN there")
    options = parser.parse_args()
    files = [file for place in options.places for file in (sorted(place.glob("*.py")) if place.is_dir() else [place])]
    files = [file.resolve() for file in files if file.name.startswith("mysettings")]
    _FORKS.set_forkserver_preload(_WARM)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each restart that it sees
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    total: collections.Counter[str] = collections.Counter()
    killed = 0
    began = time.monotonic()
    folder = options.keep or Path(tempfile.mkdtemp())
    kind = survival.Training if options.cold else WarmTraining
    for number, file in enumerate(files):
        share = options.kills // len(files) + (number < options.kills % len(files))
        for verdict, made in bench(file, folder / file.stem, share, random.Random(options.seed + number), kind):
            total[verdict.name] += 1
            killed += made
            print(f"{file.stem}: {made} kills, {verdict.name} {verdict.text}".rstrip(), flush=True)
        if "BROKEN" not in total:
            shutil.rmtree(folder / file.stem, ignore_errors=True)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(total.items()))
    print(f"{len(files)} files, {killed} kills in {time.monotonic() - began:.0f} s: {listed}")
    sys.exit(1 if total["BROKEN"] else 0)


if __name__ == "__main__":
    main()
