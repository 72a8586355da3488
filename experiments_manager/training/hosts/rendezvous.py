"""The meeting of the processes of a training before TensorFlow starts, at the chief's address.

The chief listens there until all have come; then the port is free again for TensorFlow's own server. Until then it
tells those that are there for whom it waits, every few seconds; one that cannot be told is gone, and may come again.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

from experiments_manager.common.machine.addresses import is_loopback
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hosts.cluster import HostCluster
from experiments_manager.training.hosts.peer import Peer

PATIENCE = 300.0
"""Seconds that processes wait for each other at the start: on a cluster they may come up at very different times."""
REPORTS, SILENCE = 5.0, 30.0
"""Seconds between two lines that say who is there and who is missing; seconds after which a chief that says none is
asked again."""
_LONGEST_LINE = 1 << 20
"""Bytes; a greeting has the addresses of all."""


class Waiting:
    """Says in a line of its own, every few seconds, for whom a process waits.

    Args:
        names: Of the processes that are to come, by their numbers.
        patience: Seconds after which none of them is waited for any more.
        tell: Takes a line.
    """

    def __init__(self, names: dict[int, str], patience: float, tell: Callable[[str], None]) -> None:
        self._names, self._patience, self._tell = names, patience, tell
        self._began = self._told = time.monotonic()
        self._came = 0

    @property
    def is_over(self) -> bool:
        """Whether patience is at its end."""
        return time.monotonic() - self._began > self._patience

    def report(self, found: Collection[int]) -> str:
        """Say who is there and who is missing, where that was not said for a while or somebody came since."""
        now = time.monotonic()
        if now - self._told < (REPORTS if len(found) == self._came else 1.0):
            return ""
        self._told, self._came = now, len(found)
        waited = f"{now - self._began:.0f} of {self._patience:.0f} s"
        missing = self.missing(found)
        there = ", ".join(self._names[number] for number in sorted(found)) or "none yet"
        line = f"Waiting for the processes of this training ({waited}). There: {there}. Missing: {missing}."
        self._tell(line)
        return line

    def missing(self, found: Collection[int]) -> str:
        """Return who has not come."""
        return ", ".join(name for number, name in self._names.items() if number not in found)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _name(cluster: HostCluster, number: int) -> str:
    return f"{'worker ' + str(number) if number else 'the chief'} ({cluster.addresses[number]})"


def gather_workers(
    cluster: HostCluster, patience: float = PATIENCE, tell: Callable[[str], None] = _to_stderr
) -> list[Peer]:
    """Return connections to all others, in their order; for the chief.

    Args:
        cluster: The processes.
        patience: Seconds to wait for them.
        tell: Takes a line every few seconds while some are missing.

    Raises:
        TrainingError: The port is taken, or not all have come in time.
    """
    host, _, port = cluster.addresses[0].rpartition(":")
    host = host.strip("[]")
    names = {number: _name(cluster, number) for number in range(1, len(cluster.addresses))}
    found: dict[int, socket.socket] = {}
    waiting = Waiting(names, patience, tell)
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        # On its own machine a host's name is often an alias of the loopback address, where no other host could come.
        here = host if is_loopback(host) else ""
        with socket.create_server((here, int(port)), family=family, backlog=len(cluster.addresses)) as server:
            server.settimeout(0.5)
            while len(found) < len(names):
                number, connection = _accepted(server, cluster)
                if connection is not None:
                    if number in found:  # it was started again, or its connection broke
                        found[number].close()
                    found[number] = connection
                elif waiting.is_over:
                    raise TrainingError(_not_there("not all workers came", waiting.missing(found), patience))
                if len(found) < len(names) and (line := waiting.report(found)):
                    for number in _not_told(found, {"waiting": line}):
                        found.pop(number).close()
        _not_told(found, {"welcome": True})  # one that is gone by now is noticed as at any later time
    except OSError as error:
        raise TrainingError(
            f"The chief cannot listen on {cluster.addresses[0]}: {error}. Expected a free port of this host. Change "
            "its address in TF_CONFIG, or end what uses the port."
        ) from error
    except BaseException:
        for connection in found.values():
            connection.close()
        raise
    return [Peer(found[number], names[number]) for number in sorted(found)]


def _not_told(found: dict[int, socket.socket], message: dict[str, Any]) -> list[int]:
    """Send those that are there a message; return who could not be told."""
    gone = []
    for number, connection in found.items():
        try:
            connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            gone.append(number)
    return gone


def _accepted(server: socket.socket, cluster: HostCluster) -> tuple[int, socket.socket | None]:
    """Return the number of a worker that has come, and its connection; others that come by are turned away."""
    try:
        connection, _ = server.accept()
    except TimeoutError:
        return 0, None
    connection.settimeout(10.0)
    try:
        greeting = json.loads(_line(connection))
        number = greeting["worker"]
        if greeting["cluster"] == list(cluster.addresses) and number in range(1, len(cluster.addresses)):
            return number, connection
    except (OSError, ValueError, LookupError, TypeError):
        pass
    connection.close()
    return 0, None


def _line(connection: socket.socket) -> bytes:
    content = b""
    while not content.endswith(b"\n") and len(content) < _LONGEST_LINE:
        part = connection.recv(1)
        if not part:
            break
        content += part
    return content


def join_chief(cluster: HostCluster, patience: float = PATIENCE, tell: Callable[[str], None] = _to_stderr) -> Peer:
    """Return the connection to the chief; for the others.

    Args:
        cluster: The processes.
        patience: Seconds to wait for it.
        tell: Takes a line every few seconds while it is missing.

    Raises:
        TrainingError: It did not come in time.
    """
    host, _, port = cluster.addresses[0].rpartition(":")
    greeting: dict[str, Any] = {"worker": cluster.index, "cluster": list(cluster.addresses)}
    waiting = Waiting({0: _name(cluster, 0)}, patience, tell)
    while not waiting.is_over:
        waiting.report(())
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=REPORTS)
        except OSError:
            time.sleep(0.2)
            continue
        try:
            connection.settimeout(SILENCE)
            connection.sendall(json.dumps(greeting).encode() + b"\n")
            while content := _line(connection):
                message = json.loads(content)
                if message.get("welcome"):
                    return Peer(connection, _name(cluster, 0))
                tell(f"The chief says: {message['waiting']}")
        except (OSError, ValueError, LookupError, AttributeError):  # it is gone, or another program is there
            pass
        connection.close()
        time.sleep(0.2)
    raise TrainingError(_not_there("the chief did not come", _name(cluster, 0), patience))


def _not_there(what: str, who: str, patience: float) -> str:
    return (
        f"The training on several hosts cannot begin: {what} within {patience:.0f} s. Missing: {who}. Expected a "
        "process at each address. Start one for each, with the same settings, and see what they print."
    )
