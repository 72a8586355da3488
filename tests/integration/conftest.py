"""Real processes that train, are killed or asked to stop, and go on; and a real browser that looks at them.

Most of a process's life is an import, so all stories that the tests tell are acted out in the background, two at a
time, from the first test on.
"""

import concurrent.futures
import importlib.util
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = Path(__file__).parent / "survival"
NAMES = ("augmented_arrays", "random_map", "half_precision", "short_epochs", "generator")
KILLS_EACH = 4
STOP_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")


@pytest.fixture(scope="session")
def bench():
    """`tools/bench/survival.py`, which kills and compares; the tests do the same with other experiments."""
    spec = importlib.util.spec_from_file_location("survival_bench", ROOT / "tools" / "bench" / "survival.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def laboratory(bench, tmp_path_factory):
    """Where processes train."""
    with concurrent.futures.ThreadPoolExecutor(2) as workers:
        yield Laboratory(bench, tmp_path_factory.mktemp("survival"), workers)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, one for all tests; WebGL is drawn by the processor. A test begins with `browser.get(url)`.

    Without Chromium the tests that look through it are skipped, but on the build server they fail.
    """
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not found; install the Debian packages chromium and chromium-driver"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-dev-shm-usage",  # containers have little of it
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--window-size=1600,1000",
        "--force-device-scale-factor=1",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def screenshots():
    """Folder for what the browser saw, which continuous integration keeps."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Laboratory:
    """Acts out all stories; the undisturbed runs first, so whoever waits for one of them waits for one that began."""

    def __init__(self, bench, folder, workers):
        self.bench, self.folder = bench, folder
        self.cases = {name: bench.Case(name, EXPERIMENTS / f"mysettings_{name}.py") for name in NAMES}
        self._undisturbed = {name: workers.submit(self._train, name) for name in NAMES}
        self._killed = {name: workers.submit(self._kill, name) for name in NAMES}
        self._signalled = workers.submit(self._signal)
        self._damaged = workers.submit(self._damage)
        self._shared = workers.submit(self._share)

    def undisturbed(self, name):
        """The run that nobody disturbed."""
        return self._undisturbed[name].result()

    def killed(self, name):
        """How often the same run was killed, what came out, and what was said on the way."""
        return self._killed[name].result()

    def signalled(self):
        """For each stop signal the exit code, the state in run.json and what was said; and the finished run."""
        return self._signalled.result()

    def damaged(self):
        """The file that was damaged, what the next process said, and the finished run."""
        return self._damaged.result()

    def shared(self):
        """Id of the first process, exit code and words of the second, and whether the first went on."""
        return self._shared.result()

    def differences(self, name, run_dir):
        """In what a run differs from the undisturbed one."""
        return self.bench.differences(self.undisturbed(name).outcome, self.bench.outcome_of(run_dir))

    def _training(self, name, folder):
        return self.bench.Training(self.cases[name], self.folder / folder)

    def _train(self, name):
        return self.bench.train_undisturbed(self.cases[name], self.folder / "undisturbed")

    def _kill(self, name):
        folder = self.folder / "killed"
        kills = self.bench.kill_until_finished(
            self.cases[name], folder, KILLS_EACH, self.undisturbed(name), random.Random(name), haste=0.4
        )
        return kills.total(), self.bench.outcome_of(folder / name), (folder / f"{name}.log").read_text()

    def _signal(self, name="short_epochs"):
        told = {}
        for signal_name in STOP_SIGNALS:
            with self._training(name, "signals") as training:
                self._wait_for_progress(training)
                training.process.send_signal(getattr(signal, signal_name))
                told[signal_name] = training.wait(), training.manifest["state"], training.output
        with self._training(name, "signals") as training:
            assert training.wait() == 0, training.output
        return told, training.run_dir

    def _damage(self, name="half_precision"):
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
        return file, training.output, training.run_dir

    def _share(self, name="random_map"):
        with self._training(name, "shared") as first:
            assert first.wait_for(lambda: first.trains), first.output
            first.process.send_signal(signal.SIGSTOP)  # it must not end before the second one has looked
            with self._training(name, "shared") as second:
                code = second.wait()
            first.process.send_signal(signal.SIGCONT)
            step = first.step
            went_on = first.wait_for(lambda: first.step > step)
            return first.process.pid, code, second.output, went_on

    @staticmethod
    def _wait_for_progress(training):
        begun = training.step
        assert training.wait_for(lambda: training.step > begun + 50), training.output
