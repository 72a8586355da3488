"""Hooks that come after the first step, called once in a dry run: callbacks, logs of the user's own, the client."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.dialects import dialect_of_client
from experiments_manager.settings import Lazy, Settings
from experiments_manager.training.dry_run.findings import Findings
from experiments_manager.training.dry_run.one_batch import DryRunBatch
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.setup.boundary import at_work
from experiments_manager.training.setup.callbacks import callbacks_of
from experiments_manager.training.setup.experiment import Experiment

_REFUSED = frozenset({
    "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "shutil.rmtree",
    "shutil.move", "shutil.copyfile", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn",
    "socket.connect", "socket.bind", "os.kill",
})  # fmt: skip
"""Audit events of Python's that change something outside of the process."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ALLOWED = threading.local()
_INSTALLED: list[bool] = []


class HeldWriteError(BaseException):
    """Code was about to change something outside of the process; not for `except Exception` to catch."""


@contextlib.contextmanager
def held_writes(folder: Path) -> Iterator[None]:
    """Inside, code of this thread may read, and write below a folder; anything else raises `HeldWriteError`.

    Python tells of what it opens (PEP 578); what libraries open in C, such as HDF5's, is not seen.
    """
    if not _INSTALLED:
        sys.addaudithook(_look)  # there is no way to take it away again; it does nothing outside of such a block
        _INSTALLED.append(True)
    before, _ALLOWED.folder = getattr(_ALLOWED, "folder", None), os.path.realpath(folder)
    try:
        yield
    finally:
        _ALLOWED.folder = before


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    folder = getattr(_ALLOWED, "folder", None)
    if folder is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITING)
        if not writes or isinstance(path, int) or _may(path, folder):
            return
    elif event == "os.mkdir":
        if _may(arguments[0], folder) or Path(arguments[0]).is_dir():
            return
    elif event not in _REFUSED or (arguments and _may(arguments[0], folder)):
        return
    what = arguments[0] if arguments else ""
    raise HeldWriteError(f"{event} {os.fsdecode(what) if isinstance(what, (str, bytes, os.PathLike)) else what}")


def _may(path: Any, folder: str) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    place = os.path.realpath(os.fsdecode(path))
    return place.startswith((folder + os.sep, "/dev/")) or place == folder or "__pycache__" in place


def look_at_callbacks(experiment: Experiment, batch: DryRunBatch, findings: Findings, folder: Path) -> None:
    """Ask for the callbacks, and call the hooks of those of the user's own once, in the order of an epoch."""
    settings, model = experiment.settings, experiment.model
    if not settings.has("callbacks") or findings.said_of("callbacks"):
        return
    callbacks: list[keras.callbacks.Callback] = []
    with findings.part("callbacks"), _held(findings, "callbacks", folder):
        callbacks = callbacks_of(settings, model, experiment.train, experiment.validation, _run_of(folder))
    with findings.part("callbacks"):
        told = UserCallbacks(callbacks, model, settings.epochs, experiment.train.steps)
        experiment.callbacks = callbacks
        for callback in callbacks:
            _look_at_monitor(callback, batch, findings)
        own = {id(callback) for callback in told.user_made}
        called = (*(c for c in callbacks if id(c) in own or isinstance(c, keras.callbacks.LearningRateScheduler)),)
        _call_hooks(settings, called, batch, findings, folder)
    model.stop_training = False


def _call_hooks(
    settings: Settings,
    callbacks: Iterable[keras.callbacks.Callback],
    batch: DryRunBatch,
    findings: Findings,
    folder: Path,
) -> None:
    """Call each hook of all callbacks; they share the logs, to which one may add what the next one reads."""
    train = {name: value for name, value in batch.logs.items() if not name.startswith("val_")}
    test = {name.removeprefix("val_"): value for name, value in batch.logs.items() if name.startswith("val_")}
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("on_train_begin", ()),
        ("on_epoch_begin", (0,)),
        ("on_train_batch_begin", (0,)),
        ("on_train_batch_end", (0, dict(train))),
        ("on_test_begin", ()),
        ("on_test_batch_begin", (0,)),
        ("on_test_batch_end", (0, dict(test))),
        ("on_test_end", (dict(test),)),
        ("on_epoch_end", (0, dict(batch.logs))),
        ("on_train_end", (dict(batch.logs),)),
    ]
    for hook, arguments in calls:
        if hook.startswith("on_test") and not test:
            continue
        for callback in callbacks:
            name = f"{type(callback).__name__}.{hook}"
            with findings.part("callbacks"), at_work(settings, "callbacks"), _held(findings, name, folder):
                getattr(callback, hook)(*arguments)


def _look_at_monitor(callback: keras.callbacks.Callback, batch: DryRunBatch, findings: Findings) -> None:
    """Say where a callback of Keras' watches what is not measured, of which it would only warn, epoch by epoch."""
    monitor = getattr(callback, "monitor", None)
    of_keras = type(callback).__module__.startswith("keras.")
    if not of_keras or not isinstance(monitor, str) or not batch.logs or monitor in batch.logs:
        return
    if not any(name.startswith("val_") for name in batch.logs) and monitor.removeprefix("val_") in batch.logs:
        return  # there is no validation, or it failed
    findings.say(
        "callbacks",
        f"{type(callback).__name__} watches {monitor!r}, which is nothing that is measured. Expected one of "
        f"{', '.join(batch.logs)}. Correct its `monitor`.",
    )


@contextlib.contextmanager
def _held(findings: Findings, what: str, folder: Path) -> Any:
    """Inside, nothing is written; code that would is noted as not looked at."""
    try:
        with held_writes(folder):
            yield
    except HeldWriteError as held:
        findings.skip(f"{what} beyond where it would change something outside ({held}), which a dry run does not")


def look_at_logs(experiment: Experiment, batch: DryRunBatch, findings: Findings, run: Any) -> None:
    """Call the hook `tensorboard_logs` once, with nowhere to write to."""
    settings = experiment.settings
    if not settings.has("tensorboard_logs") or not settings.tensorboard or findings.said_of("tensorboard_logs"):
        return
    validation = experiment.validation
    with (
        findings.part("tensorboard_logs"),
        at_work(settings, "tensorboard_logs"),
        _held(findings, "tensorboard_logs", run.path),
        tf.summary.create_noop_writer().as_default(step=1),
    ):
        settings.call(
            "tensorboard_logs",
            model=experiment.model,
            epoch=settings.first_epoch("tensorboard_logs"),
            logs=dict(batch.logs),
            train_data=Lazy(experiment.train.as_dataset),
            validation_data=Lazy(lambda: validation.as_dataset() if validation else None),
            run=run,
        )


def look_at_client(settings: Settings, findings: Findings) -> None:
    """Look whether a class that is to talk to a server has the methods for it; it is not made."""
    if not settings.has("client") or findings.said_of("client") or dialect_of_client(settings.client):
        return
    client: Callable[..., Any] = settings.client
    if not inspect.isclass(client):
        return
    missing = [name for name in ("requests", "on_response") if not callable(getattr(client, name, None))]
    if missing:
        findings.say(
            "client",
            f"{client.__name__} has no {' and no '.join(f'`{name}`' for name in missing)}. Expected the methods "
            "`requests()` and `on_response(request, outputs)`. Write what is missing.",
        )


def _run_of(folder: Path) -> Any:
    from experiments_manager.runs import Run

    return Run(folder)
