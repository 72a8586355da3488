"""Signals that ask a process to stop: Ctrl-C, and what clusters send before they kill a job.

While a run trains they only set a flag. The training loop asks for it at every step boundary it reaches, so that it
stops where it can go on later, never in the midst of something.

Before the first step nothing would read a flag: TensorFlow is imported, the settings module is executed, hooks read
their data. There, in blocks marked as `interruptible`, a signal raises `StopRequested` wherever the main thread is, as
Ctrl-C does in any Python program; a call into C ends first. Nothing heavy is imported here, for the command line
listens before it imports anything else.

A process that serves waits for `shutdown_event`; one whose main thread may be inside a call that never ends uses
`on_shutdown_signal` and `exit_process`.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""SIGUSR1 and SIGUSR2 are what SLURM and others can be told to send ahead of a time limit."""
AHEAD_OF_A_LIMIT = ("SIGUSR1", "SIGUSR2")
SHUTDOWN_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_AGAIN_AFTER = 0.02
"""Seconds after which `StopRequested` is raised again where Python had to discard it."""


class StopRequested(KeyboardInterrupt):
    """The process was asked to stop before the first step.

    A `KeyboardInterrupt`, whichever signal it was: code that handles errors lets it pass, and notebooks know it.
    """


class StopSignals:
    """Whether the process was asked to stop; called, it tells. Listens from `listen` to `restore`."""

    def __init__(self) -> None:
        self._former: dict[signal.Signals, Any] = {}
        self._asked_by: str | None = None
        self._is_interrupted = False
        """Whether one of the signals was a SIGINT, so that the next one is the second."""
        self._is_interruptible = False
        self._raises_again = False
        self.has_raised = False
        """Whether `StopRequested` was raised into what ran at that moment."""

    def __call__(self) -> bool:
        """Return whether the process was asked to stop."""
        return self._asked_by is not None

    @property
    def asked_by(self) -> str | None:
        """Name of the first signal that asked to stop."""
        return self._asked_by

    def listen(self) -> None:
        """Handle the signals, but those that are ignored, or that this system does not have."""
        for number in (getattr(signal, name, None) for name in NAMES):
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._former[number] = signal.signal(number, self._handle)
        _listening.append(self)

    def restore(self) -> None:
        """Bring back the handlers that were there before."""
        if self in _listening:
            _listening.remove(self)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def ignore(self) -> None:
        """Ignore the signals from here on: what there was to do is done, and only Python's own end is left."""
        for number in self._former:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a request to stop raises `StopRequested`, once, wherever the main thread is.

        A request that came before raises at the beginning. Whatever becomes of the exception inside (code may swallow
        it, or turn it into an error of its own), the block ends by it.
        """
        if self():
            raise self._stop()
        former, hook = self._is_interruptible, sys.unraisablehook
        sys.unraisablehook = self._on_discarded(hook)
        self._is_interruptible = True
        try:
            yield
        except StopRequested:
            raise
        except BaseException as error:
            if self.has_raised:
                raise self._stop() from error
            raise
        finally:
            self._is_interruptible, sys.unraisablehook = former, hook
        if self.has_raised:
            raise self._stop()

    def defer_signals(self) -> None:
        """From here on a request to stop only sets the flag, but in blocks inside that are `interruptible`."""
        self._is_interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._raises_again:
            self._raises_again = False
            if self._is_interruptible:
                raise self._stop()
            return
        by_keyboard, name = number == signal.SIGINT, signal.Signals(number).name
        if by_keyboard and self._is_interrupted:
            self._leave()
        elif by_keyboard or not self():
            place = "before the first step" if self._is_interruptible else "at the next step"
            hint = " Press Ctrl-C again to leave at once." if by_keyboard else ""
            _write(f"\n{name}: stopping {place}.{hint}\n")
        self._asked_by = self._asked_by or name
        self._is_interrupted |= by_keyboard
        if self._is_interruptible and not self.has_raised:
            self.has_raised = True
            raise self._stop()

    def _stop(self) -> StopRequested:
        return StopRequested(f"{self._asked_by}: asked to stop before the first step")

    def _on_discarded(self, hook: Any) -> Any:
        """Return a hook for what Python discards: what was raised in finalizers and in callbacks of weak references."""

        def handle(discarded: Any) -> None:
            if not issubclass(discarded.exc_type, StopRequested):
                hook(discarded)
                return
            self._raises_again = True
            _thread.start_new_thread(self._send_again, ())  # it takes no lock, which the main thread may hold just now

        return handle

    def _send_again(self) -> None:
        time.sleep(_AGAIN_AFTER)
        if self._raises_again and self._former:
            os.kill(os.getpid(), next(iter(self._former)))

    def _leave(self) -> None:
        """Do what a SIGINT did before; what was written as a checkpoint so far stays."""
        with contextlib.suppress(OSError):
            if os.isatty(2):
                _write("\x1b[?25h")  # shows the cursor, which a progress bar hides and has no time to bring back
        self.restore()
        signal.raise_signal(signal.SIGINT)


_listening: list[StopSignals] = []
_of_the_process: StopSignals | None = None
"""What listens for the whole life of the process, where that is a command line that trains."""


def _leave_children_alone() -> None:
    """Restore the handlers in a forked child, which does not train: a worker of `multiprocessing`, say."""
    for signals in list(_listening):
        signals.restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_children_alone)


def install_stop_signals() -> StopSignals:
    """Listen from here to the end of the process, for a command line that trains; while Python ends, ignore signals."""
    global _of_the_process
    signals = _of_the_process = StopSignals()
    signals.listen()
    atexit.register(signals.ignore)  # registered first, so it is called last
    return signals


def stop_listening() -> None:
    """Undo `install_stop_signals`: signals act as before it."""
    global _of_the_process
    signals, _of_the_process = _of_the_process, None
    if signals is not None:
        atexit.unregister(signals.ignore)
        signals.restore()


def has_been_stopped() -> bool:
    """Return whether `StopRequested` was raised since `install_stop_signals`; later errors follow from it."""
    return _of_the_process is not None and _of_the_process.has_raised


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Turn SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 into a flag for the length of a `with` block.

    A second SIGINT does at once what it would have done outside of the block: end the process, or raise
    `KeyboardInterrupt` in a notebook. A signal that is ignored already (as SIGINT is for what a script runs in the
    background) stays ignored. Python handles signals in the main thread only; in another one nothing happens.

    Yields:
        A function that tells whether the process was asked to stop; its `interruptible` marks blocks in which a signal
        raises instead.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopSignals()
        return
    if _of_the_process is not None:
        _of_the_process.defer_signals()
        yield _of_the_process
        return
    signals = StopSignals()
    try:
        signals.listen()
        yield signals
    finally:
        signals.restore()


def _write(text: str) -> None:
    """Write to standard error without Python's buffers, which the code that was interrupted may be filling."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def end_by_interrupt() -> None:
    """Let Ctrl-C end the process by the signal, without a traceback, unless something else handles it already."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def shutdown_handler(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Inside, a function handles SIGINT and SIGTERM, as for `signal.signal`; in another than the main thread, none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handler) for number in SHUTDOWN_SIGNALS}
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)


@contextlib.contextmanager
def shutdown_event() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set, instead of ending the process."""
    event = threading.Event()
    with shutdown_handler(lambda number, frame: event.set()):
        yield event


@contextlib.contextmanager
def on_shutdown_signal(act: Callable[[], None]) -> Iterator[None]:
    """Inside, the first SIGINT or SIGTERM calls a function in a thread of its own, and later ones do nothing.

    An event loop's own handlers, and Python's, run between two steps of the main thread; one that is inside a model
    call would never come to them. What is written to the wake-up descriptor is there at once. The function may go on
    after the block.
    """
    import socket

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    with shutdown_handler(
        lambda number, frame: None
    ):  # without a handler in Python, nothing is written to the descriptor
        descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_act_once, args=(reader, act), name="signals", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            writer.close()  # which ends the thread


def _act_once(reader: Any, act: Callable[[], None]) -> None:
    acted = False
    with reader:  # open to the end: a signal that cannot be written to it would be reported as a fault
        while number := reader.recv(1):
            if number[0] in SHUTDOWN_SIGNALS and not acted:
                acted = True
                act()


def exit_process(code: int) -> NoReturn:
    """End the process here and now: its usual end would wait for threads that are inside TensorFlow."""
    import logging

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    logging.shutdown()
    os._exit(code)
