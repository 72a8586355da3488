"""Real processes that train, are killed or asked to stop, and go on, beside the tests of all other folders.

Most of a process's life is an import, so the stories that the tests tell are acted out in the background, two at a
time, from the beginning of the first test on. `Laboratory` is the side of the tests: it runs this file as a program,
which writes what came of each story to a file and then its name to standard output. That is a process of its own, with
a small claim to the processor, so that no other test waits for it or sees what it prints.
"""

import concurrent.futures
import contextlib
import importlib.util
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = Path(__file__).parent / "survival"
NAMES = ("augmented_arrays", "random_map", "half_precision", "short_epochs", "generator")
KILLS_EACH = 4
LEAST_KILLS = 2
STOP_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")
NICENESS = 5

DIGITS = ROOT / "examples" / "classification" / "mysettings_digits.py"
WATCHED_RUNS = {
    "narrow": {"hidden_units": 16, "dropout": 0.2, "learning_rate": 0.002, "decay": 0.1},
    "wide": {"hidden_units": 128, "dropout": 0.2, "learning_rate": 0.004, "decay": None},
    "marked": {
        "hidden_units": 64,
        "dropout": 0,
        "learning_rate": 0.002,
        "warmup": "cosine",
        "words": "<script>window.evil = 1</script>",
    },
}
"""Hyperparameters of three runs of an example, for those who look at them in a browser."""


def load_bench():
    """`tools/bench/survival.py`, which kills and compares; the tests do the same with other experiments."""
    spec = importlib.util.spec_from_file_location("survival_bench", ROOT / "tools" / "bench" / "survival.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its classes are pickled by this name
    spec.loader.exec_module(module)
    return module


class Laboratory:
    """Has stories acted out by a process in the background, and knows what came of them."""

    def __init__(self, folder):
        self.folder, self._process, self._ended = folder, None, set()

    def begin(self, groups):
        """Begins with groups of stories (names in `GROUPS`), unless there is a beginning already."""
        if self._process is None:
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
            command = [sys.executable, __file__, str(self.folder), *groups]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with (self.folder / "laboratory.log").open("wb") as log:
                self._process = subprocess.Popen(command, env=environment, stderr=log, text=True, **pipes)
        return self

    def result(self, story):
        """Waits for the end of a story and gives what came of it."""
        while story not in self._ended:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"no end of {story}:\n{(self.folder / 'laboratory.log').read_text()}")
            self._ended.add(line.strip())
        result = pickle.loads((self.folder / f"{story}.pickle").read_bytes())
        if isinstance(result, Exception):
            raise result
        return result

    def undisturbed(self, name):
        """The run that nobody disturbed."""
        return self.result(f"undisturbed_{name}")

    def killed(self, name):
        """How often the same run was killed, what came out, and what was said on the way."""
        return self.result(f"killed_{name}")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._process is not None:
            with self._process:  # closes its standard input: it ends, with all that it started
                pass


class Stories:
    """Acts stories out."""

    def __init__(self, folder, workers):
        self.bench, self.folder, self.workers = load_bench(), folder, workers
        self.cases = {name: self.bench.Case(name, EXPERIMENTS / f"mysettings_{name}.py") for name in NAMES}
        self._undisturbed = {}

    def survival(self):
        """All that are told in `test_survival.py`; the undisturbed runs first, which those that are killed wait for."""
        for name in NAMES:
            self._undisturbed[name] = self._submit(f"undisturbed_{name}", self._train, name)
        for name in NAMES:
            self._submit(f"killed_{name}", self._kill, name)
        for story in (self._signal, self._damage, self._share):
            self._submit(story.__name__.strip("_"), story)

    def out_of_memory(self):
        """An experiment that asks for more memory than there is."""
        self._submit("out_of_memory", self._run_out_of_memory)

    def watched_runs(self):
        """Three runs of an example."""
        self._submit("watched_runs", self._train_watched_runs)

    def _submit(self, name, story, *arguments):
        return self.workers.submit(self._act_out, name, story, *arguments)

    def _act_out(self, name, story, *arguments):
        try:
            result = story(*arguments)
        except Exception:
            result = RuntimeError(traceback.format_exc())
        (self.folder / f"{name}.pickle").write_bytes(pickle.dumps(result))
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        return result

    def _training(self, name, folder):
        return self.bench.Training(self.cases[name], self.folder / folder)

    def _train(self, name):
        return self.bench.train_undisturbed(self.cases[name], self.folder / "undisturbed")

    def _kill(self, name):
        """How often it was killed, what came out, and what was said on the way.

        A run that was quick enough, since the machine was busier when nobody disturbed it, is made again in more haste.
        """
        undisturbed = self._undisturbed[name].result()
        for haste in (0.4, 0.2, 0.1, 0.05):
            folder = self.folder / f"killed_in_haste_{haste}"
            kills = self.bench.kill_until_finished(
                self.cases[name], folder, KILLS_EACH, undisturbed, random.Random(name), haste=haste
            )
            if kills.total() >= LEAST_KILLS:
                break
        return kills.total(), self.bench.outcome_of(folder / name), (folder / f"{name}.log").read_text()

    def _signal(self, name="short_epochs"):
        """For each stop signal the exit code, the state in run.json and what was said; and what came out."""
        told = {}
        for signal_name in STOP_SIGNALS:
            with self._training(name, "signals") as training:
                self._wait_for_progress(training)
                training.process.send_signal(getattr(signal, signal_name))
                told[signal_name] = training.wait(), training.manifest["state"], training.output
        with self._training(name, "signals") as training:
            assert training.wait() == 0, training.output
        return told, self.bench.outcome_of(training.run_dir)

    def _damage(self, name="half_precision"):
        """The file that was damaged, what the next process said, and what came out."""
        with self._training(name, "damaged") as training:
            folder = training.run_dir / "checkpoints"
            assert training.wait_for(lambda: training.step > 100 and len(list(folder.glob("epoch-*"))) >= 2)
            training.kill()
        file = folder / (folder / "latest").read_text().strip() / "variables.data-00000-of-00001"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with self._training(name, "damaged") as training:
            assert training.wait() == 0, training.output
        return file, training.output, self.bench.outcome_of(training.run_dir)

    def _share(self, name="random_map"):
        """Id of the first process, exit code and words of the second, and whether the first went on."""
        with self._training(name, "shared") as first:
            assert first.wait_for(lambda: first.trains), first.output
            first.process.send_signal(signal.SIGSTOP)  # it must not end before the second one has looked
            with self._training(name, "shared") as second:
                code = second.wait()
            first.process.send_signal(signal.SIGCONT)
            step = first.step
            went_on = first.wait_for(lambda: first.step > step)
            return first.process.pid, code, second.output, went_on

    def _run_out_of_memory(self):
        """Exit code, what was said, and what run.json says. TensorFlow tries for ten seconds to get the memory."""
        case = self.bench.Case("too_large", EXPERIMENTS / "mysettings_too_large.py")
        with self.bench.Training(case, self.folder) as training:
            return training.wait(), training.output, training.manifest

    def _train_watched_runs(self):
        """The working directory."""
        program = (
            "import json, sys\n"
            "from experiments_manager import api\n"
            "settings, folder, runs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])\n"
            "for name, hparams in runs.items():\n"
            "    overrides = {'epochs': 2, 'embeddings_every': 1, 'export': False, 'hparams': hparams}\n"
            "    api.train(settings, overrides=overrides, working_dir=folder, run_name=name, quiet=True)\n"
        )
        folder = self.folder / "watched"
        command = [sys.executable, "-c", program, str(DIGITS), str(folder), json.dumps(WATCHED_RUNS)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return folder

    @staticmethod
    def _wait_for_progress(training, epochs=4):
        """Waits for rows of metrics.csv, which come as training does; checkpoints may be late on a slow disk."""

        def rows():
            with contextlib.suppress(FileNotFoundError):
                return (training.run_dir / "metrics.csv").read_bytes().count(b"\n")
            return 0

        begun = rows()
        assert training.wait_for(lambda: rows() > begun + epochs), training.output


GROUPS = {
    "watched_runs": Stories.watched_runs,
    "out_of_memory": Stories.out_of_memory,
    "laboratory": Stories.survival,
}
"""Groups of stories by the fixture that gives what came of them, in the order in which they begin."""


def end_with_the_tests():
    """Ends this process and all that it started once nobody holds the other end of its standard input."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def main():
    """Acts out the groups of stories that the command line names."""
    os.setpgrp()
    threading.Thread(target=end_with_the_tests, daemon=True).start()
    os.nice(NICENESS)
    with concurrent.futures.ThreadPoolExecutor(2) as workers:
        stories = Stories(Path(sys.argv[1]), workers)
        for group, begin in GROUPS.items():
            if group in sys.argv[2:]:
                begin(stories)


if __name__ == "__main__":
    main()
