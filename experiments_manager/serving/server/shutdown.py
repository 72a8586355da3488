"""Ending a server's process when it is told to, also while a model call goes on that never ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def on_shutdown_signal(act: Callable[[], None]) -> Iterator[None]:
    """Inside, the first SIGINT or SIGTERM calls a function in a thread of its own, and later ones do nothing.

    An event loop's own handlers, and Python's, run between two steps of the main thread; one that is inside a model
    call would never come to them. What is written to the wake-up descriptor is there at once.

    Args:
        act: What to do; when the block is left it may still be at it.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    handlers = {number: signal.signal(number, _do_nothing) for number in SIGNALS}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reader, act), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()  # which ends the thread


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Return a handler in Python, without which nothing is written to the wake-up descriptor."""


def _listen(reader: socket.socket, act: Callable[[], None]) -> None:
    acted = False
    with reader:  # open to the end: a signal that cannot be written to it would be told as a fault
        while number := reader.recv(1):
            if number[0] in SIGNALS and not acted:
                acted = True
                act()


def exit_process(code: int) -> NoReturn:
    """End the process here and now: its usual end would wait for threads that are inside TensorFlow.

    Args:
        code: The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    logging.shutdown()
    os._exit(code)
