"""Real processes that train the experiments of `tests/integration/survival`, and are killed, stopped or disturbed."""

import contextlib
import functools
import random
import signal
from pathlib import Path

from tools.bench import survival as bench

EXPERIMENTS = Path(__file__).parents[1] / "integration" / "survival"
KILLS = 2
STOP_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")


def case(name):
    return bench.Case(name, EXPERIMENTS / f"mysettings_{name}.py")


class Survival:
    """What runs of the experiments come to. Each run is made when a test asks for it, and once."""

    def __init__(self, folder):
        self.folder = folder

    def training(self, name, folder):
        """Starts a process that trains an experiment in a folder of its own."""
        return bench.Training(case(name), self.folder / folder)

    @functools.cache  # noqa: B019
    def undisturbed(self, name):
        """The run that nobody disturbed."""
        return bench.train_undisturbed(case(name), self.folder / "undisturbed")

    @functools.cache  # noqa: B019
    def killed(self, name):
        """How often the same run was killed, what came out, and what was said on the way.

        A run that was quick enough, since the machine was busier when nobody disturbed it, is made again in more haste.
        """
        undisturbed = self.undisturbed(name)
        for haste in (0.4, 0.2, 0.1, 0.05):
            folder = self.folder / f"killed_in_haste_{haste}"
            kills = bench.kill_until_finished(case(name), folder, KILLS, undisturbed, random.Random(name), haste=haste)
            if kills.total() >= KILLS:
                break
        return kills.total(), bench.outcome_of(folder / name), (folder / f"{name}.log").read_text()

    def signalled(self, name):
        """For each stop signal the exit code, the state in run.json and what was said; and what came out."""
        told = {}
        for signal_name in STOP_SIGNALS:
            with self.training(name, "signals") as training:
                wait_for_epochs(training, 4)
                training.process.send_signal(getattr(signal, signal_name))
                told[signal_name] = training.wait(), training.manifest["state"], training.output
        with self.training(name, "signals") as training:
            assert training.wait() == 0, training.output
        return told, bench.outcome_of(training.run_dir)

    def damaged(self, name):
        """The file that was damaged, what the next process said, and what came out."""
        with self.training(name, "damaged") as training:
            folder = training.run_dir / "checkpoints"
            assert training.wait_for(lambda: training.step > 100 and len(list(folder.glob("epoch-*"))) >= 2)
            training.kill()
        file = folder / (folder / "latest").read_text().strip() / "variables.data-00000-of-00001"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with self.training(name, "damaged") as training:
            assert training.wait() == 0, training.output
        return file, training.output, bench.outcome_of(training.run_dir)

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


def wait_for_epochs(training, epochs):
    """Waits for rows of metrics.csv, which come as training does; checkpoints may be late on a slow disk."""

    def rows():
        with contextlib.suppress(FileNotFoundError):
            return (training.run_dir / "metrics.csv").read_bytes().count(b"\n")
        return 0

    begun = rows()
    assert training.wait_for(lambda: rows() > begun + epochs), training.output
