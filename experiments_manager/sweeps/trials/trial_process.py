"""A trial in its process: an ordinary run, a watcher that tells the driver how it goes, and its end in one message.

The process is forked from one that has imported TensorFlow. It may run several trials, one after another; each is a run
that seeds everything and begins with empty names, as in a process of its own.
"""

from __future__ import annotations

import contextlib
import gc
import math
import numbers
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from experiments_manager.common.error_text import named_reason, reason
from experiments_manager.common.errors import UserError
from experiments_manager.common.machine.redirection import redirected
from experiments_manager.events import Watcher
from experiments_manager.runs import Run, find_run
from experiments_manager.runs.locking import LOCK_FILE, is_held
from experiments_manager.settings import Settings, load_settings
from experiments_manager.settings.problems import UserCodeError, problem_at
from experiments_manager.settings.types import plain_value
from experiments_manager.sweeps.trials.channel import Channel, Message
from experiments_manager.sweeps.trials.trial_watcher import ObjectiveError, TrialWatcher, values_of_run

GRACE = 30.0
"""Seconds in which a trial without a driver writes its checkpoint, before its process ends all the same."""
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_FORMER_PROCESS = 60.0
"""Seconds for which a trial waits until a process of an earlier driver has left its run."""


class DriverLink(Protocol):
    """The driver as a trial sees it: what it wants, and what it is told."""

    def wants_stop(self) -> bool:
        """Return whether the trial should end at the next step."""

    def tell(self, **message: Any) -> None:
        """Send a message to the driver of the sweep."""

    def ask(self, epoch: int, values: tuple[float, ...], curve: list[float | None], seconds: float) -> bool:
        """Ask whether a trial goes on after an epoch, and wait for the answer."""


class _Driver:
    """The driver at the other end of a socket; see `DriverLink`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stop = threading.Event()
        self.tasks: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._verdicts: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="driver", daemon=True).start()

    def _listen(self) -> None:
        while messages := self._channel.receive():
            for message in messages:
                if message["kind"] == "verdict":
                    self._verdicts.put(message["go"])
                elif message["kind"] == "stop":
                    self._stop.set()
                    self._verdicts.put(False)
                else:
                    self.tasks.put(message)
        self._stop.set()
        self._verdicts.put(False)
        self.tasks.put(None)
        time.sleep(GRACE)
        os._exit(0)  # it may be inside a call that never ends

    def wants_stop(self) -> bool:
        """Return whether the trial should end at the next step."""
        return self._stop.is_set()

    def tell(self, **message: Any) -> None:
        """Send a message; where the driver is gone, `wants_stop` will say so."""
        self._channel.send(message)

    def ask(self, epoch: int, values: tuple[float, ...], curve: list[float | None], seconds: float) -> bool:
        """Ask whether a trial goes on after an epoch, and wait for the answer."""
        self.tell(kind="asked", epoch=epoch, values=values, curve=curve, seconds=seconds)
        return self._verdicts.get()


def run_trials(channel: Channel) -> None:
    """Do what the driver sends, one task after another, until it closes the channel."""
    driver = _Driver(channel)
    while (task := driver.tasks.get()) is not None:
        with _output_to(task.get("log")):
            _TASKS[task["kind"]](driver, task)
        gc.collect()
        if driver.wants_stop():
            return


def _describe(driver: _Driver, task: Message) -> None:
    """Tell what the settings file declares, and what is wrong with it or with the values of some points."""
    from experiments_manager.sweeps.trials.settings_summary import describe_settings

    found = describe_settings(task["settings_file"], task["overrides"], task["points"], task["names"])
    driver.tell(kind="described", **found)


def train(driver: DriverLink, task: Message) -> None:
    """Train a trial, or go on with it, and tell how it ended."""
    _share_machine(task["threads"], task["gpus"])
    started = time.monotonic()
    try:
        ended = _trained(driver, task, started)
    except ObjectiveError as error:
        ended = {"state": "failed", "reason": str(error), "refused": True}
    except UserError as error:
        ended = {"state": "failed", "reason": str(error)}
    except MemoryError as error:
        ended = {"state": "failed", "reason": f"out of memory: {reason(error)}"}
    except BaseException as error:  # of the user's code too: whatever it raises ends the trial, and is told
        ended = {"state": "failed", "reason": named_reason(error)}
        if isinstance(error, KeyboardInterrupt) and driver.wants_stop():
            ended = {"state": "interrupted"}
    driver.tell(kind="ended", seconds=time.monotonic() - started, **ended)


def _trained(driver: DriverLink, task: Message, started: float) -> dict[str, Any]:
    """Train, or go on with what was trained before; return how it ended."""
    from experiments_manager.training.engine.context import RunOptions
    from experiments_manager.training.engine.runner import start_or_resume

    settings = load_settings(task["settings_file"], task["overrides"])
    watcher = TrialWatcher(
        task["columns"],
        settings.monitor,
        settings.monitor_mode,
        asks_at=_asking(task, settings),
        asked=task["asked"],
        ask=lambda epoch, values, curve: driver.ask(epoch, values, curve, time.monotonic() - started),
        tell=driver.tell,
    )
    _wait_for_former_process(Path(task["trials_dir"]), task["name"])
    result = start_or_resume(
        settings,
        task["name"],
        RunOptions(
            make_watchers=lambda run, loaded: [*_watchers(run, loaded), watcher],
            should_stop=lambda: watcher.was_ended or driver.wants_stop(),
        ),
        working_dir=task["trials_dir"],
        command=task["command"],
    )
    if result.state == "interrupted" and not (watcher.was_ended or driver.wants_stop()):
        return {"state": "failed", "reason": "KeyboardInterrupt: its own code interrupted it", "epochs": result.epochs}
    if result.state == "interrupted":
        return {"state": "stopped" if watcher.was_ended else "interrupted"}
    run = Run(result.run_dir)
    values, curve = values_of_run(run, task["columns"], settings.monitor, settings.monitor_mode)
    if task.get("sweep_file"):
        values = (_value_of_hook(task["sweep_file"], run),)
    if not all(map(math.isfinite, values)):
        return {
            "state": "failed",
            "reason": "the objective is NaN or infinite",
            "curve": curve,
            "epochs": result.epochs,
        }
    return {"state": "finished", "values": values, "curve": curve, "epochs": result.epochs}


def _watchers(run: Run, settings: Settings) -> list[Watcher]:
    """Return the watchers of a trial: those of any run, but those that draw where the trial draws no figures."""
    from experiments_manager.monitoring.tensorboard.image_summaries import Images
    from experiments_manager.monitoring.tensorboard.projector import Projector
    from experiments_manager.monitoring.watchers import watchers_of

    chosen = watchers_of(run, settings, quiet=True)
    return [watcher for watcher in chosen if settings.figures or not isinstance(watcher, (Images, Projector))]


def _asking(task: Mapping[str, Any], settings: Settings) -> Callable[[int], bool]:
    """Return at which epochs the driver decides whether the trial goes on; never at the last."""
    every, chosen = task["asks"] == "every", task["asks"]
    return lambda epoch: epoch < settings.epochs and (every or epoch in chosen)


def _value_of_hook(sweep_file: str, run: Run) -> float:
    """Load the sweep file and call its function `objective`.

    Raises:
        UserCodeError: It raised, or returned no number.
        SettingsError: The sweep file cannot be loaded.
    """
    from experiments_manager.sweeps.sweep_file import load_sweep_file

    loaded = load_sweep_file(sweep_file)
    place = loaded.problem("objective", "").place
    try:
        with loaded.local_modules.active():
            value = plain_value(loaded.plan.objective(run))
    except (Exception, SystemExit) as error:
        deepest = loaded.local_modules.deepest_place(error.__traceback__)
        place = problem_at(*deepest, "", "").place if deepest else place
        raise UserCodeError("objective", place, error) from error
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        error = TypeError(f"it returned {value!r}. Expected a number, which is minimised")
        raise UserCodeError("objective", place, error)
    return float(value)


def _wait_for_former_process(trials_dir: Path, name: str) -> None:
    """Wait until the process of a driver that was killed has written its last checkpoint."""
    run = find_run(trials_dir, name)
    end = time.monotonic() + _FORMER_PROCESS
    while run is not None and is_held(run.path / LOCK_FILE) and time.monotonic() < end:
        time.sleep(0.1)


def _export(driver: _Driver, task: Message) -> None:
    """Publish the best weights of a finished run, and draw its figures, which trials do without."""
    from experiments_manager.monitoring.watchers import watchers_of
    from experiments_manager.runs import open_run
    from experiments_manager.training.engine.context import RunOptions
    from experiments_manager.training.engine.runner import resume_run

    _look_for_gpus_quietly()
    try:
        result = resume_run(
            open_run(task["run_dir"]),
            task["overrides"],
            RunOptions(make_watchers=lambda run, loaded: watchers_of(run, loaded, quiet=True)),
        )
        driver.tell(kind="exported", model=result.exported_model and str(result.exported_model))
    except (Exception, SystemExit) as error:
        driver.tell(kind="exported", model=None, reason=reason(error))


_TASKS = {"describe": _describe, "train": train, "export": _export}


def _share_machine(threads: int, gpus: str | None) -> None:
    """Bound what this trial takes of the machine, as long as TensorFlow has not started here."""
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    import tensorflow as tf

    _look_for_gpus_quietly()
    with contextlib.suppress(RuntimeError):  # a trial before this one has started it, with the same share
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def _look_for_gpus_quietly() -> None:
    """Look for GPUs where there is none without the lines that CUDA would write about it."""
    import tensorflow as tf

    if not _NVIDIA_DRIVER.exists():
        with _output_to(os.devnull):
            tf.config.list_physical_devices("GPU")


@contextlib.contextmanager
def _output_to(log: str | None) -> Iterator[None]:
    """Let whatever is printed inside, also by libraries in C++, go to the end of a file, which is none while empty."""
    if log is None:
        yield
        return
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    try:
        with Path(log).open("ab", buffering=0) as file, redirected(file.fileno()):
            yield
    finally:
        with contextlib.suppress(OSError):
            if Path(log).is_file() and Path(log).stat().st_size == 0:
                Path(log).unlink()
