"""Real processes that train the experiments of `tests/integration/survival`, and are killed, stopped or disturbed."""

import dataclasses
import functools
import random
import signal
import subprocess
from pathlib import Path

from tests.helpers.warm_processes import WarmPopen
from tools.bench import survival as bench

EXPERIMENTS = Path(__file__).parents[1] / "integration" / "survival"
STOP_SIGNALS = {
    "augmented_arrays": "SIGTERM",
    "random_map": "SIGUSR1",
    "half_precision": "SIGUSR2",
    "short_epochs": "SIGINT",
    "generator": "SIGTERM",
}
"""The signal that asks the run of each experiment to stop."""
KILLED_IN = {
    "augmented_arrays": "checkpoint",
    "random_map": "training",
    "half_precision": "export",
    "short_epochs": "checkpoint",
    "generator": "training",
}
"""What the run of each experiment is at when it is killed."""
DAMAGED = "half_precision"
"""The experiment whose newest checkpoint is damaged after the kill."""


def case(name):
    return bench.Case(name, EXPERIMENTS / f"mysettings_{name}.py")


@dataclasses.dataclass(frozen=True)
class Disturbed:
    """A run that was asked to stop, and killed after that."""

    code: int
    """Exit code of the process that was asked to stop."""
    state: str
    """What run.json said after that."""
    told: str
    """What that process said."""
    killed: bool
    damaged: Path | None
    """The file that was changed after the kill."""
    outcome: bench.Outcome
    """What came out at last."""
    output: str
    """What the last process said."""


class WarmTraining(bench.Training):
    """A process that trains, forked from a warm one."""

    def _start(self, command):
        with self.log.open("ab") as output:
            return WarmPopen(command, cwd=bench.ROOT, stdout=output, stderr=subprocess.STDOUT)


class Survival:
    """What runs of the experiments come to. Each run is made when a test asks for it, and once."""

    def __init__(self, folder):
        self.folder = folder

    def training(self, name, folder):
        """Starts a process that trains an experiment in a folder of its own."""
        return WarmTraining(case(name), self.folder / folder)

    @functools.cache  # noqa: B019
    def undisturbed(self, name):
        """The run that nobody disturbed."""
        return bench.train_undisturbed(case(name), self.folder / "undisturbed", WarmTraining)

    @functools.cache  # noqa: B019
    def disturbed(self, name):
        """The same run, asked to stop by a signal, gone on with, and killed; a checkpoint of one is damaged then.

        A run that finished before it was killed, since the machine was busier when nobody disturbed it, is made again
        in more haste.
        """
        undisturbed, chance = self.undisturbed(name), random.Random(name)
        for haste in (0.4, 0.2, 0.1, 0.05):
            folder = f"disturbed_in_haste_{haste}"
            with self.training(name, folder) as training:
                assert training.wait_for(lambda training=training: training.step > 0), training.output
                training.process.send_signal(getattr(signal, STOP_SIGNALS[name]))
                stopped = training.wait(), training.manifest["state"], training.output
            with self.training(name, folder) as training:
                killed = bench.reach(training, KILLED_IN[name], undisturbed, haste, chance)
                if not killed:
                    continue
            damaged = damage_newest_checkpoint(training.run_dir) if name == DAMAGED else None
            with self.training(name, folder) as training:
                assert training.wait() == 0, training.output
            break
        return Disturbed(*stopped, killed, damaged, bench.outcome_of(training.run_dir), training.output)

    def shared(self, name):
        """Id of the first process, exit code and words of the second, and whether the first went on."""
        with self.training(name, "shared") as first:
            assert first.wait_for(lambda: first.trains), first.output
            first.process.send_signal(signal.SIGSTOP)  # it must not end before the second one has looked
            with self.training(name, "shared") as second:
                code = second.wait()
            first.process.send_signal(signal.SIGCONT)
            step = first.step
            went_on = first.wait_for(lambda: first.step > step)
            return first.process.pid, code, second.output, went_on


def damage_newest_checkpoint(run_dir):
    """Changes one bit of a file, and gives the file."""
    folder = run_dir / "checkpoints"
    file = folder / (folder / "latest").read_text().strip() / "variables.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file
