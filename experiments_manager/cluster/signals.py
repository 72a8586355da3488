"""Signals that ask a run to stop: Ctrl-C, and what clusters send before they kill a job.

They only set a flag. The training loop asks for it at every step boundary it reaches, so that it stops where it can go
on later, never in the midst of something.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""SIGUSR1 and SIGUSR2 are what SLURM and others can be told to send ahead of a time limit."""

_SHOW_CURSOR = "\x1b[?25h"


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 into a flag for the length of a `with` block.

    A second SIGINT does at once what it would have done outside of the block: end the process, or raise
    `KeyboardInterrupt` in a notebook. A signal that is ignored already (as SIGINT is for what a script runs in the
    background) stays ignored. Python handles signals in the main thread only; in another one nothing happens.

    Yields:
        A function that tells whether the process was asked to stop.
    """
    asked = _Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked.should_stop
        return
    try:
        for name in NAMES:
            asked.listen(getattr(signal, name, None))
        yield asked.should_stop
    finally:
        asked.restore()


class _Asked:
    """The flag, and the handlers that were there before."""

    def __init__(self) -> None:
        self._former: dict[signal.Signals, Any] = {}
        self._is_asked = False
        self._is_interrupted = False
        """Whether one of the signals was a SIGINT, so that the next one is the second."""

    def should_stop(self) -> bool:
        return self._is_asked

    def listen(self, number: signal.Signals | None) -> None:
        """Handles a signal, unless this system does not have it or somebody else has a say in it."""
        if number is None or signal.getsignal(number) in (signal.SIG_IGN, None):
            return
        self._former[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        by_keyboard = number == signal.SIGINT
        if by_keyboard and self._is_interrupted:
            self._leave()
        elif by_keyboard or not self._is_asked:
            hint = " Press Ctrl-C again to leave at once." if by_keyboard else ""
            _write(f"\n{signal.Signals(number).name}: stopping at the next step.{hint}\n")
        self._is_asked = True
        self._is_interrupted |= by_keyboard

    def _leave(self) -> None:
        """Does what a SIGINT did before; what was written as a checkpoint so far stays."""
        with contextlib.suppress(OSError):
            if os.isatty(2):
                _write(_SHOW_CURSOR)  # a progress bar hides it, and has no more time to bring it back
        self.restore()
        signal.raise_signal(signal.SIGINT)


def _write(text: str) -> None:
    """Writes to standard error without Python's buffers, which the code that was interrupted may be filling."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
