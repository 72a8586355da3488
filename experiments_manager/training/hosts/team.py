"""What the processes of a training agree on between the calls of the compiled loop, and that none of them is gone.

Tensors go through TensorFlow's collectives; this is for all that decides how the run goes on: how many steps a call
makes, whether one was asked to stop, whether a checkpoint is due. Each of these depends on clocks and signals, and a
process that decided by itself would wait in a collective that no other comes to.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hosts.peer import LastWords, Peer, PeerGoneError

Value = TypeVar("Value")

SILENCE, SILENCE_AT_START = 10.0, 120.0
"""Seconds without a sign of life after which a process is taken for gone. Before the first step, code of the user's
that reads data may keep all threads of a process waiting for long."""
TIME_TO_STOP = 15.0
"""Seconds that this process has for its end once another one is gone; it may be inside a call that never ends."""


class OtherProcessError(TrainingError):
    """Another process of the training ended, so that none can go on."""


class WorkerLostError(OtherProcessError):
    """It is gone, and may be there again when the run is resumed."""

    exit_code = ExitCode.INTERRUPTED


class WorkerFailedError(OtherProcessError):
    """It found a mistake, which a resume would meet again."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = ExitCode(exit_code)


class Team:
    """The processes of a training, seen from one of them.

    Args:
        index: Number of this process; 0 is the chief.
        peers: Connections: the chief's to all others in their order, or another's to the chief.
        size: How many processes there are.
    """

    def __init__(self, index: int = 0, peers: Sequence[Peer] = (), size: int = 1) -> None:
        self.index, self.size, self._peers = index, size, list(peers)
        self._silence, self._closed = SILENCE_AT_START, threading.Event()
        self.lost: LastWords | None = None
        """What is to be said of a process that is gone; `None` while all are there."""
        self._has_lost = threading.Event()
        self.before_exit: Callable[[str], None] = lambda state: None
        """Called with the state of the run before the process is ended because it cannot end by itself."""
        if peers:
            threading.Thread(target=self._watch, name="watch over workers", daemon=True).start()

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order; each calls this at the same place.

        Args:
            value: Plain data (JSON).

        Raises:
            OtherProcessError: One of them ended.
        """
        if not self._peers:
            return [value]
        try:
            if self.is_chief:
                values = [value, *(self._receive(peer) for peer in self._peers)]
                for peer in self._peers:
                    peer.send(values)
                return values
            self._peers[0].send(value)
            return self._receive(self._peers[0])
        except PeerGoneError as error:
            if not self._closed.is_set():
                self._has_lost.wait(SILENCE)
            raise self.error() from error

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process."""
        return any(self.gather(bool(flag))) if self._peers else flag

    def chiefs(self, value: Value) -> Value:
        """Return the value that the chief's process has."""
        return self.gather(value if self.is_chief else None)[0] if self._peers else value

    def begin_training(self) -> None:
        """Wait until all are ready for the first step; from then on a silent process is noticed soon."""
        self.gather(None)
        self._silence = SILENCE

    def error(self) -> OtherProcessError:
        """Return what there is to raise once a process is gone."""
        lost = self.lost or LastWords("A process of this training is gone.")
        if lost.exit_code == ExitCode.INTERRUPTED:
            return WorkerLostError(lost.text)
        return WorkerFailedError(lost.text, lost.exit_code)

    def has_lost(self, wait: float) -> bool:
        """Return whether a process is gone, or is within so many seconds."""
        return bool(self._peers) and self._has_lost.wait(wait)

    def leave(self) -> None:
        """End well, once all others are as far."""
        self._closed.set()
        with contextlib.suppress(OtherProcessError):  # all is done: it does not matter any more
            self.gather(None)

    def close(self, last_words: LastWords | None = None) -> None:
        """Close the connections.

        Args:
            last_words: Why this process ends, for the others to say, where it did not `leave`.
        """
        self._closed.set()
        for peer in self._peers:
            peer.close(last_words)

    def _receive(self, peer: Peer) -> Any:
        while True:
            try:
                return peer.receive(0.2)
            except queue.Empty:
                if self.lost is not None or peer.gone is not None:
                    raise PeerGoneError(peer.name) from None

    def _watch(self) -> None:
        while not self._closed.wait(0.2):
            for peer in self._peers:
                silent = time.monotonic() - peer.heard
                reason = peer.gone or (f"it was silent for {silent:.0f} s" if silent > self._silence else None)
                if reason is not None and not self._closed.is_set():
                    self._lose(peer, reason)
                    return

    def _lose(self, peer: Peer, reason: str) -> None:
        words = peer.last_words or LastWords(f"{peer.name[0].upper()}{peer.name[1:]} is gone: {reason}.")
        resumable = words.exit_code == ExitCode.INTERRUPTED
        then = "stop; `resume` goes on from the last checkpoint" if resumable else "stop"
        self.lost = LastWords(f"{words.text} All processes of this training {then}.", words.exit_code)
        for other in self._peers:
            other.close(words)
        self._has_lost.set()
        if self._closed.wait(TIME_TO_STOP):
            return
        sys.stderr.write(f"{self.lost.text}\n")
        sys.stderr.flush()
        self.before_exit("interrupted" if resumable else "failed")
        os._exit(self.lost.exit_code)


ALONE = Team()
"""One process by itself."""
